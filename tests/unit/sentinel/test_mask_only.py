"""Shapes in numbers by hand, and a baseline that learns from them."""

import math

import numpy as np
import pytest

from cohort.errors import DataError, ModelError
from sentinel.mask_only import FEATURES, MaskOnlyBaseline, mask_features

SHAPE, SPACING_MM = (8, 12, 16), (3.0, 1.0, 0.5)


def box(low: tuple[int, int, int], high: tuple[int, int, int]) -> np.ndarray:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return mask


def described(mask: np.ndarray) -> dict[str, float]:
    return dict(zip(FEATURES, mask_features(mask, SPACING_MM), strict=True))


class TestFeatures:
    @pytest.mark.parametrize("corner", [(2, 3, 4), (0, 0, 0), (6, 9, 12)])
    def test_of_a_box_by_hand_wherever_it_lies(self, corner: tuple[int, int, int]) -> None:
        found = described(box(corner, (corner[0] + 2, corner[1] + 3, corner[2] + 4)))
        # 2 x 3 x 4 voxels of 3 x 1 x 0.5 mm: 6 x 3 x 2 mm
        assert found == pytest.approx(
            {
                "log_volume_mm3": math.log(36.0),
                "log_largest_area_mm2": math.log(3.0 * 2.0),
                "depth_mm": 6.0,
                "height_mm": 3.0,
                "width_mm": 2.0,
                "log_components": 0.0,
                "surface_to_volume": 2.0 * (3.0 * 2.0 + 6.0 * 2.0 + 6.0 * 3.0) / 36.0,
                "fill_of_box": 1.0,
            }
        )

    def test_of_two_boxes_that_do_not_touch(self) -> None:
        found = described(box((1, 2, 2), (2, 4, 4)) | box((3, 2, 2), (4, 6, 6)))
        assert found["log_components"] == pytest.approx(math.log(2.0))
        assert found["log_largest_area_mm2"] == pytest.approx(math.log(16 * 0.5)), "of the larger slice"
        assert (found["depth_mm"], found["height_mm"], found["width_mm"]) == (9.0, 4.0, 2.0)
        assert found["fill_of_box"] == pytest.approx((4 + 16) / (3 * 4 * 4))

    def test_a_hole_adds_surface(self) -> None:
        solid = box((1, 2, 2), (4, 8, 10))
        hollow = solid & ~box((2, 4, 5), (3, 5, 6))
        faces_mm2 = 2.0 * (1.0 * 0.5 + 3.0 * 0.5 + 3.0 * 1.0)
        before, after = described(solid), described(hollow)
        volumes = [math.exp(found["log_volume_mm3"]) for found in (before, after)]
        assert after["surface_to_volume"] * volumes[1] == pytest.approx(
            before["surface_to_volume"] * volumes[0] + faces_mm2
        )

    def test_an_empty_mask_has_no_shape(self) -> None:
        with pytest.raises(DataError, match="An empty mask has no shape"):
            mask_features(np.zeros(SHAPE, dtype=bool), SPACING_MM)


class TestBaseline:
    @staticmethod
    def cohort(count: int, seed: int) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Large livers are good masks, large spleens are bad ones; the other features are noise."""
        rng = np.random.default_rng(seed)
        features = rng.normal(0.0, 1.0, (count, len(FEATURES)))
        features[:, 0] = rng.uniform(4.0, 9.0, count)
        names = ["liver" if number % 2 else "spleen" for number in range(count)]
        slope = np.array([0.1 if name == "liver" else -0.1 for name in names])
        return names, features, 0.6 + slope * (features[:, 0] - 6.5)

    def test_learns_a_rule_of_size_for_each_structure(self) -> None:
        model = MaskOnlyBaseline.fit(*self.cohort(300, 0))
        assert model.structures == ("liver", "spleen")
        names, features, dsc = self.cohort(200, 1)
        assert np.abs(model.predict(names, features) - dsc).mean() < 0.03
        turned = ["spleen" if name == "liver" else "liver" for name in names]
        assert np.corrcoef(model.predict(turned, features), dsc)[0, 1] < -0.9

    def test_is_deterministic(self) -> None:
        names, features, _ = self.cohort(50, 1)
        first, second = (MaskOnlyBaseline.fit(*self.cohort(80, 0)).predict(names, features) for _ in range(2))
        np.testing.assert_array_equal(first, second)
        assert len(set(first.tolist())) > 10

    def test_a_structure_that_it_never_saw_is_judged_by_its_shape(self) -> None:
        model = MaskOnlyBaseline.fit(*self.cohort(80, 0))
        found = model.predict(["brain"], self.cohort(1, 1)[1])
        assert 0.2 < float(found[0]) < 1.0

    def test_no_masks_to_predict(self) -> None:
        assert MaskOnlyBaseline.fit(*self.cohort(20, 0)).predict([], []).shape == (0,)

    def test_two_masks_are_the_fewest(self) -> None:
        names, features, dsc = self.cohort(2, 0)
        assert MaskOnlyBaseline.fit(names, features, dsc).predict(names, features).shape == (2,)
        with pytest.raises(ModelError, match="learns from 1 masks; expected at least 2"):
            MaskOnlyBaseline.fit(names[:1], features[:1], dsc[:1])
