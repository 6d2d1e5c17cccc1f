"""What a sentinel's file keeps, and what published weights say of themselves."""

import json
import math
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from cohort.errors import ConfigError, ModelError
from cohort.volume import Volume
from sentinel.calibration import Calibration, StructureCalibration
from sentinel.config import SentinelConfig
from sentinel.network import QualitySentinel
from sentinel.scoring import Sentinel
from sentinel.text import embed_names

NAMES = ("liver", "spleen")
AFFINE = np.array([[-0.5, 0, 0, 7.0], [0, 1.0, 0, -3.0], [0, 0, 3.0, 11.0], [0, 0, 0, 1.0]])
CALIBRATION = Calibration(
    level=0.8,
    structures={
        "liver": StructureCalibration(knots=((0.0, 0.2), (1.0, 0.9)), quantile=0.31, patients=20, masks=80),
        "spleen": StructureCalibration(knots=((0.0, 0.1), (1.0, 0.6)), quantile=None, patients=3, masks=9),
    },
)
Edit = Callable[[dict[str, object]], object]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    sentinel = Sentinel(
        config=SentinelConfig(image_size=32, margin=3.0, precision="float32", device="cpu"),
        structures=NAMES,
        embeddings=embed_names(NAMES),
        calibration=CALIBRATION,
    )
    sentinel.save(tmp_path / "ours.safetensors")
    return tmp_path / "ours.safetensors"


def scene() -> tuple[Volume, dict[str, np.ndarray]]:
    array = np.random.default_rng(0).normal(size=(8, 12, 16)).astype(np.float32)
    masks = {name: np.zeros(array.shape, dtype=bool) for name in NAMES}
    masks["liver"][2:6, 3:9, 2:7] = True
    masks["spleen"][1:5, 2:6, 9:14] = True
    return Volume(array=array, affine=AFFINE), masks


def rewrite(path: Path, edit: Edit) -> None:
    """Change what a file says beside its weights."""
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["sentinel"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    edit(about)
    save_file(tensors, path, metadata={"sentinel": json.dumps(about)})


class TestOurs:
    def test_calibration_survives(self, path: Path) -> None:
        loaded = Sentinel.load(path)
        assert loaded.calibration == CALIBRATION
        liver, spleen = loaded.score(*scene())
        assert liver.predicted_dsc == pytest.approx(min(1.0, max(0.0, 0.7 * liver.raw + 0.2)))
        assert liver.lower < liver.predicted_dsc < liver.upper
        assert liver.reason == ""
        assert math.isnan(spleen.lower)
        assert spleen.reason == "not calibrated for this structure"

    def test_how_to_compute_can_be_said_anew(self, path: Path) -> None:
        loaded = Sentinel.load(path, precision="bfloat16", device="auto")
        assert (loaded.config.precision, loaded.config.device) == ("bfloat16", "auto")
        assert Sentinel.load(path).config.precision == "float32"
        with pytest.raises(ConfigError, match="device is 'abacus', expected one of auto, cpu, cuda"):
            Sentinel.load(path, device="abacus")

    @pytest.mark.parametrize(
        ("edit", "message"),
        [
            (lambda about: about.pop("calibration"), "'calibration'"),
            (lambda about: about["calibration"].pop("level"), "A calibration cannot be read"),
            (
                lambda about: about["calibration"]["structures"]["liver"].pop("knots"),
                "A calibration cannot be read",
            ),
            (lambda about: about["config"].update(image_size=8), "image_size is 8, expected at least 32"),
            (lambda about: about["config"].update(colour="blue"), "colour"),
            (lambda about: about["config"].update(backbone="resnet34"), r"Missing key.*net\.layer1\.2"),
            (lambda about: about["structures"].append("brain"), r"shape \(2, 384\), expected \(3, 384\)"),
        ],
    )
    def test_a_file_that_contradicts_itself(self, path: Path, edit: Edit, message: str) -> None:
        rewrite(path, lambda about: None)
        assert Sentinel.load(path).calibration == CALIBRATION
        rewrite(path, edit)
        with pytest.raises(ModelError, match=rf"ours\.safetensors cannot be read as a sentinel.*{message}"):
            Sentinel.load(path)


def published(folder: Path, *, keys: range = range(145), **network: object) -> tuple[Path, Path]:
    """Weights and embeddings whose tensors are each one number, repeated: small files of large networks."""
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in QualitySentinel(**network).state_dict().items()}  # type: ignore[arg-type]
    state = {name: torch.tensor(0.5).expand(shape) for name, shape in shapes.items()}
    torch.save(state, folder / "net.pth")
    vectors = {key: torch.full((1, 512), float(key)) for key in keys}
    (folder / "label_embedding.pkl").write_bytes(pickle.dumps(vectors))
    return folder / "net.pth", folder / "label_embedding.pkl"


class TestPublished:
    @pytest.mark.parametrize("backbone", ["resnet101", "resnet152"])
    def test_deep_backbones_are_read_off_the_weights(self, tmp_path: Path, backbone: str) -> None:
        loaded = Sentinel.load(*published(tmp_path, backbone=backbone))
        assert loaded.config.backbone == backbone
        assert float(loaded.network.fc1.weight.detach()[3, 4]) == 0.5

    def test_the_head_is_read_off_the_weights(self, tmp_path: Path) -> None:
        loaded = Sentinel.load(*published(tmp_path, backbone="resnet18", hidden_dim=7))
        assert loaded.config.hidden_dim == loaded.network.fc2.in_features == 7

    def test_every_structure_gets_the_embedding_of_its_index(self, tmp_path: Path) -> None:
        loaded = Sentinel.load(*published(tmp_path, backbone="resnet18"))
        indices = {"liver": 13, "Left Kidney": 15, "bladder": 17, "spleen": 26}
        for name, index in indices.items():
            place = loaded.structure_index(name)
            assert place is not None
            assert loaded.embeddings[place].tolist() == [float(index)] * 512

    def test_structures_without_an_embedding_are_not_known(self, tmp_path: Path) -> None:
        loaded = Sentinel.load(*published(tmp_path, keys=range(13, 15), backbone="resnet18"))
        assert loaded.structures == ("liver", "pancreas")

    def test_embeddings_of_another_atlas(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"no embedding of any structure of DAP Atlas \(keys 0 to 144\)"):
            Sentinel.load(*published(tmp_path, keys=range(500, 503), backbone="resnet18"))

    def test_what_is_no_state_dict(self, tmp_path: Path) -> None:
        weights, embeddings = published(tmp_path, backbone="resnet18")
        for saved, message in (([1], "holds list"), ({}, "holds dict"), ({"epoch": 3}, "under 'epoch'")):
            torch.save(saved, weights)
            with pytest.raises(ModelError, match=message):
                Sentinel.load(weights, embeddings)

    def test_weights_without_a_head(self, tmp_path: Path) -> None:
        weights, embeddings = published(tmp_path, backbone="resnet18")
        state = torch.load(weights, weights_only=True)
        del state["fc1.weight"]
        torch.save(state, weights)
        with pytest.raises(ModelError, match=r"no matrix fc1\.weight"):
            Sentinel.load(weights, embeddings)
