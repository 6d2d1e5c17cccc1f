"""Published weights and embeddings: what loads, and what is refused without being executed."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from cohort.errors import ConfigError, DataError, GeometryError, ModelError
from cohort.volume import Volume
from sentinel import Sentinel
from sentinel.network import QualitySentinel

AFFINE = np.diag([1.0, 1.0, 3.0, 1.0])


def published_embeddings(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    path = folder / "label_embedding.pkl"
    vectors = {i: torch.from_numpy(rng.normal(size=(1, 512)).astype(np.float32)) for i in range(145)}
    path.write_bytes(pickle.dumps(vectors))
    return path


def published_weights(folder: Path, backbone: str = "resnet18") -> Path:
    torch.manual_seed(0)
    path = folder / f"{backbone}.pth"
    torch.save(QualitySentinel(backbone=backbone).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def sentinel(tmp_path_factory: pytest.TempPathFactory) -> Sentinel:
    folder = tmp_path_factory.mktemp("published")
    return Sentinel.load(
        str(published_weights(folder)), str(published_embeddings(folder)), precision="float32", device="cpu"
    )


def ct() -> tuple[Volume, np.ndarray]:
    rng = np.random.default_rng(0)
    array = rng.normal(0.0, 60.0, (6, 48, 48)).astype(np.float32)
    array[:, :4] = -1000.0
    mask = np.zeros(array.shape, dtype=bool)
    mask[1:5, 12:30, 14:28] = True
    return Volume(array=array, affine=AFFINE), mask


class TestWeights:
    @pytest.mark.parametrize("backbone", ["resnet18", "resnet34", "resnet50"])
    def test_the_backbone_is_read_off_the_weights(self, tmp_path: Path, backbone: str) -> None:
        weights = published_weights(tmp_path, backbone)
        loaded = Sentinel.load(weights, published_embeddings(tmp_path))
        assert loaded.config.backbone == backbone
        assert (loaded.config.intensity, loaded.config.orientation) == ("ct_hu", "as_stored")
        stored = torch.load(weights, weights_only=True)
        for name, value in loaded.network.state_dict().items():
            torch.testing.assert_close(value, stored[name])

    def test_wrapped_and_parallel_state_dicts_load(self, tmp_path: Path) -> None:
        weights = published_weights(tmp_path)
        state = torch.load(weights, weights_only=True)
        torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, weights)
        assert Sentinel.load(weights, published_embeddings(tmp_path)).config.backbone == "resnet18"

    def test_published_weights_need_their_embeddings(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="need their text embeddings"):
            Sentinel.load(published_weights(tmp_path))

    def test_our_files_bring_their_own(self, tmp_path: Path, sentinel: Sentinel) -> None:
        sentinel.save(tmp_path / "ours.safetensors")
        with pytest.raises(ModelError, match="holds its own text embeddings"):
            Sentinel.load(tmp_path / "ours.safetensors", published_embeddings(tmp_path))

    def test_truncated_weights(self, tmp_path: Path) -> None:
        weights = published_weights(tmp_path)
        weights.write_bytes(weights.read_bytes()[:-5000])
        with pytest.raises(ModelError, match="cannot be read as weights"):
            Sentinel.load(weights, published_embeddings(tmp_path))

    def test_weights_of_another_network(self, tmp_path: Path) -> None:
        weights = tmp_path / "other.pth"
        torch.save({"layer.weight": torch.zeros(2)}, weights)
        with pytest.raises(ModelError, match="no network of Quality Sentinel in it"):
            Sentinel.load(weights, published_embeddings(tmp_path))

    def test_weights_that_miss_a_part(self, tmp_path: Path) -> None:
        weights = published_weights(tmp_path)
        state = torch.load(weights, weights_only=True)
        del state["fc2.weight"]
        torch.save(state, weights)
        with pytest.raises(ModelError, match=r"does not fit .* with a resnet18 .*fc2\.weight"):
            Sentinel.load(weights, published_embeddings(tmp_path))

    def test_a_malicious_pickle_is_refused_and_does_nothing(self, tmp_path: Path) -> None:
        class Malicious:
            def __reduce__(self) -> tuple[object, tuple[str, ...]]:
                return (Path.touch, (tmp_path / "executed",))  # type: ignore[return-value]

        weights, embeddings = published_weights(tmp_path), published_embeddings(tmp_path)
        evil = tmp_path / "evil.pth"
        torch.save({"net": Malicious()}, evil)
        with pytest.raises(ModelError, match="nothing that the file may carry beside was executed"):
            Sentinel.load(evil, embeddings)
        evil_pickle = tmp_path / "evil.pkl"
        evil_pickle.write_bytes(pickle.dumps({0: Malicious()}))
        with pytest.raises(ModelError, match="cannot be read as published text embeddings"):
            Sentinel.load(weights, evil_pickle)
        assert not (tmp_path / "executed").exists()

    def test_an_unknown_precision(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="precision is 'int4'"):
            Sentinel.load(published_weights(tmp_path), published_embeddings(tmp_path), precision="int4")


class TestNames:
    @pytest.mark.parametrize("name", ["kidney_left", "left kidney", "Kidney (L)", "lkidney"])
    def test_spellings_and_aliases_mean_the_same(self, sentinel: Sentinel, name: str) -> None:
        volume, mask = ct()
        (known,) = sentinel.score(volume, {"kidney_left": mask})
        (found,) = sentinel.score(volume, {name: mask})
        assert found.structure == name
        assert found.slice_scores == known.slice_scores

    def test_a_side_counts(self, sentinel: Sentinel) -> None:
        volume, mask = ct()
        left, right = sentinel.score(volume, {"kidney_left": mask, "kidney_right": mask})
        assert left.raw != right.raw

    def test_a_name_outside_the_table_is_refused_with_the_nearest(self, sentinel: Sentinel) -> None:
        volume, mask = ct()
        with pytest.raises(
            ModelError, match=r"'pancraes'; it knows 1\d\d structures, nearest to it pancreas"
        ):
            sentinel.score(volume, {"pancraes": mask})


class TestImages:
    def test_bare_voxels_need_a_spacing(self, sentinel: Sentinel) -> None:
        volume, mask = ct()
        (expected,) = sentinel.score(volume, {"liver": mask})
        (found,) = sentinel.score(volume.array, {"liver": mask}, (3.0, 1.0, 1.0))
        assert found.slice_scores == expected.slice_scores
        with pytest.raises(GeometryError, match="spacing_mm"):
            sentinel.score(volume.array, {"liver": mask})

    @pytest.mark.parametrize("scale", [1.0 / 255.0, 1.0])
    def test_an_image_that_is_not_in_hu(self, sentinel: Sentinel, scale: float) -> None:
        volume, mask = ct()
        grey = np.clip(volume.array + 128.0, 0.0, 255.0) * np.float32(scale)
        with pytest.raises(DataError, match="not in Hounsfield units"):
            sentinel.score(Volume(array=grey, affine=AFFINE), {"liver": mask})

    def test_nan_everywhere(self, sentinel: Sentinel) -> None:
        volume, mask = ct()
        with pytest.raises(DataError, match="NaN or infinite"):
            sentinel.score(Volume(array=np.full_like(volume.array, np.nan), affine=AFFINE), {"liver": mask})

    def test_two_dimensions(self, sentinel: Sentinel) -> None:
        volume, mask = ct()
        with pytest.raises(DataError, match=r"shape \(48, 48\); expected three dimensions"):
            sentinel.score(volume.array[0], {"liver": mask[0]}, (3.0, 1.0, 1.0))


class TestMasks:
    def test_one_voxel(self, sentinel: Sentinel) -> None:
        volume, mask = ct()
        single = np.zeros_like(mask)
        single[3, 20, 20] = True
        (found,) = sentinel.score(volume, {"liver": single})
        assert found.slice_indices == (3,)
        assert np.isfinite(found.raw)

    @pytest.mark.parametrize("corner", [(0, 0, 0), (5, 47, 47)])
    def test_touching_the_border(self, sentinel: Sentinel, corner: tuple[int, int, int]) -> None:
        volume, mask = ct()
        touching = np.zeros_like(mask)
        touching[corner] = True
        (found,) = sentinel.score(volume, {"liver": touching})
        assert found.slice_indices == (corner[0],)
        assert np.isfinite(found.raw)

    def test_the_whole_volume(self, sentinel: Sentinel) -> None:
        volume, mask = ct()
        (found,) = sentinel.score(volume, {"liver": np.ones_like(mask)})
        assert len(found.slice_scores) == 6
        assert np.isfinite(found.raw)
