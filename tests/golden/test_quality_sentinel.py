"""Against what the published code computes, with weights made from names alone."""

import json
import math
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from cohort.volume import Volume, read_image, read_label_map
from sentinel.config import SentinelConfig
from sentinel.network import QualitySentinel
from sentinel.scoring import Sentinel
from sentinel.text import load_published_embeddings

DATA = Path(__file__).parents[2].parent / "shared" / "data"
REFERENCE = DATA / "quality_sentinel" / "reference_scores.json"
CASE = DATA / "TotalSegmentator_example" / "s0000"
STRUCTURES = ("vertebrae_T11", "rib_right_7")

pytestmark = pytest.mark.skipif(
    not REFERENCE.exists() or not CASE.exists(), reason="reference data are not here"
)


def published_config() -> SentinelConfig:
    return SentinelConfig(
        backbone="resnet50",
        image_size=256,
        intensity="ct_hu",
        margin=20.0,
        orientation="as_stored",
        text_dim=512,
        precision="float32",
        device="cpu",
    )


def weights_from_names(network: QualitySentinel) -> dict[str, torch.Tensor]:
    state = {}
    for name, value in network.state_dict().items():
        shape = tuple(value.shape)
        if name.endswith("num_batches_tracked"):
            state[name] = torch.zeros_like(value)
        elif name.endswith(("bias", "running_mean")):
            state[name] = torch.zeros(shape)
        elif len(shape) == 1:
            state[name] = torch.ones(shape)
        else:
            rng = np.random.default_rng(zlib.crc32(name.encode()))
            drawn = rng.standard_normal(shape) / math.sqrt(math.prod(shape[1:]))
            state[name] = torch.from_numpy(drawn.astype(np.float32))
    return state


def sentinel_for(class_index: dict[str, int]) -> Sentinel:
    embeddings = load_published_embeddings(DATA / "quality_sentinel" / "label_embedding.pkl")
    sentinel = Sentinel(
        config=published_config(),
        structures=tuple(class_index),
        embeddings=np.stack([embeddings[index] for index in class_index.values()]),
    )
    sentinel.network.load_state_dict(weights_from_names(sentinel.network))
    return sentinel


def read_case(names: tuple[str, ...]) -> tuple[Volume, dict[str, np.ndarray]]:
    masks = {name: read_label_map(CASE / "segmentations" / f"{name}.nii.gz").array > 0 for name in names}
    return read_image(CASE / "ct.nii.gz"), masks


def check(names: tuple[str, ...]) -> None:
    reference = json.loads(REFERENCE.read_text())["s0000"]
    sentinel = sentinel_for({name: reference[name]["class_index"] for name in names})
    for score in sentinel.score(*read_case(names)):
        expected = reference[score.structure]
        assert list(score.slice_indices) == expected["slices"]
        np.testing.assert_allclose(score.slice_scores, expected["slice_scores"], rtol=0.0, atol=1e-4)
        if expected["score"] is None:
            assert math.isnan(score.predicted_dsc)
            assert score.reason == "empty mask"
        else:
            assert score.predicted_dsc == pytest.approx(expected["score"], abs=1e-4)


def test_published_scores_of_two_structures_and_an_empty_mask() -> None:
    check((*STRUCTURES, "brain"))
