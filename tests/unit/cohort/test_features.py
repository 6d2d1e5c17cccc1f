from pathlib import Path

import numpy as np
import pytest

from cohort.features import LENGTH, embed, embed_any, image_features, read_features
from cohort.volume import Volume, write_volume

AFFINE = np.array([[-0.5, 0.0, 0.0, 20.0], [0.0, 1.0, 0.0, -5.0], [0.0, 0.0, 3.0, 7.0], [0.0, 0.0, 0.0, 1.0]])


def volume(seed: int = 0, shape: tuple[int, int, int] = (8, 12, 16)) -> Volume:
    ramp = np.linspace(-100.0, 300.0, shape[0])[:, None, None]
    noise = np.random.default_rng(seed).normal(0.0, 30.0, shape)
    return Volume(array=(ramp + noise).astype(np.float32), affine=AFFINE)


class TestImageFeatures:
    def test_they_are_finite_numbers_of_a_fixed_count(self) -> None:
        for shape in ((8, 12, 16), (3, 40, 5), (1, 9, 64)):
            found = image_features(volume(shape=shape))
            assert found.values.shape == (LENGTH,)
            assert np.isfinite(found.values).all()
            assert found.broken == ""

    def test_neither_scale_nor_offset_of_intensities_matters(self) -> None:
        image = volume()
        scaled = Volume(array=image.array * 7.0 + 40.0, affine=AFFINE)
        np.testing.assert_allclose(image_features(scaled).values, image_features(image).values, atol=2e-2)

    def test_the_stored_orientation_does_not_matter(self) -> None:
        image = volume()
        turned_affine = AFFINE.copy()
        turned_affine[:3, 2] *= -1.0
        turned_affine[:3, 3] += AFFINE[:3, 2] * 7
        turned = Volume(array=image.array[::-1].copy(), affine=turned_affine)
        np.testing.assert_allclose(image_features(turned).values, image_features(image).values, atol=1e-6)

    def test_the_histogram_holds_all_voxels(self) -> None:
        histogram = image_features(volume()).values[:32]
        assert float(np.square(histogram).sum()) == pytest.approx(1.0, abs=1e-5)

    def test_size_and_spacing_are_logarithms_of_millimetres(self) -> None:
        found = np.exp(image_features(volume()).values[-6:])
        np.testing.assert_allclose(found, [24.0, 12.0, 8.0, 3.0, 1.0, 0.5], rtol=1e-5)

    @pytest.mark.parametrize(
        ("value", "broken"), [(0.0, "constant: every voxel is 0"), (1e9, "extreme: an intensity of 1e+09")]
    )
    def test_scans_that_nobody_can_annotate(self, value: float, broken: str) -> None:
        array = np.zeros((8, 12, 16), dtype=np.float32)
        array[0, 0, 0] = value
        found = image_features(Volume(array=array, affine=AFFINE))
        assert found.broken == broken
        assert np.isfinite(found.values).all()

    def test_a_file_that_cannot_be_read_is_broken(self, tmp_path: Path) -> None:
        (tmp_path / "a.nii.gz").write_bytes(b"no scan")
        found = read_features(tmp_path / "a.nii.gz")
        assert found.broken.startswith("cannot be read: ")
        assert not found.values.any()
        write_volume(tmp_path / "b.nii.gz", volume().array, AFFINE)
        np.testing.assert_array_equal(
            read_features(tmp_path / "b.nii.gz").values, image_features(volume()).values
        )


class TestEmbed:
    FEATURES = np.stack([image_features(volume(seed)).values for seed in range(12)])

    def test_the_mean_distance_to_the_mean_is_one(self) -> None:
        found = embed(self.FEATURES)
        assert found.shape == (12, 12)
        np.testing.assert_allclose(found.mean(axis=0), 0.0, atol=1e-5)
        assert float(np.square(found).sum(axis=1).mean()) == pytest.approx(1.0, abs=1e-5)
        assert embed(self.FEATURES, 3).shape == (12, 3)

    def test_the_order_does_not_matter(self) -> None:
        order = np.random.default_rng(0).permutation(12)
        shuffled = embed(self.FEATURES[order], 3)
        np.testing.assert_allclose(shuffled, embed(self.FEATURES, 3)[order], atol=1e-4)

    def test_like_is_near_to_like(self) -> None:
        copy = self.FEATURES[3] + np.float32(1e-4)
        found = embed(np.vstack([self.FEATURES, copy]))
        distances = np.linalg.norm(found - found[12], axis=1)
        assert np.argsort(distances)[1] == 3

    def test_cases_that_are_all_alike(self) -> None:
        assert not embed(np.repeat(self.FEATURES[:1], 4, axis=0)).any()

    def test_features_of_another_origin(self) -> None:
        rows = np.random.default_rng(0).normal(5.0, 3.0, (20, 6)).astype(np.float32)
        rows[:, 2] = 4.0
        found = embed_any(list(rows))
        assert found.shape == (20, 5)
        assert float(np.square(found).sum(axis=1).mean()) == pytest.approx(1.0, abs=1e-5)
