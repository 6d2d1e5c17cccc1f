"""Against what the published code computes, with weights made from names alone."""

import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cohort.volume import read_image, read_label_map
from sentinel import Sentinel
from sentinel.network import QualitySentinel
from sentinel.text import load_published_embeddings

DATA = Path(__file__).parents[2].parent / "shared" / "data"
REFERENCE = DATA / "quality_sentinel" / "reference_scores.json"
EMBEDDINGS = DATA / "quality_sentinel" / "label_embedding.pkl"
CASE = DATA / "TotalSegmentator_example" / "s0000"

pytestmark = pytest.mark.skipif(
    not REFERENCE.exists() or not CASE.exists(), reason="reference data are not here"
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


@pytest.fixture(scope="module")
def sentinel(tmp_path_factory: pytest.TempPathFactory) -> Sentinel:
    weights = tmp_path_factory.mktemp("published") / "resnet50.pth"
    torch.save(weights_from_names(QualitySentinel()), weights)
    return Sentinel.load(weights, embeddings=EMBEDDINGS, precision="float32", device="cpu")


@pytest.fixture(scope="module")
def reference() -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(REFERENCE.read_text())["s0000"]
    return found


def check(sentinel: Sentinel, reference: Mapping[str, Any], names: tuple[str, ...]) -> None:
    masks = {name: read_label_map(CASE / "segmentations" / f"{name}.nii.gz").array > 0 for name in names}
    scores = sentinel.score(read_image(CASE / "ct.nii.gz"), masks)
    assert [score.structure for score in scores] == list(names)
    for score in scores:
        expected = reference[score.structure]
        assert list(score.slice_indices) == expected["slices"], score.structure
        np.testing.assert_allclose(
            score.slice_scores, expected["slice_scores"], rtol=0.0, atol=1e-4, err_msg=score.structure
        )
        if expected["score"] is None:
            assert math.isnan(score.predicted_dsc)
            assert score.reason == "empty mask"
        else:
            assert score.predicted_dsc == pytest.approx(expected["score"], abs=1e-4)


def test_published_scores_of_two_structures_and_an_empty_mask(
    sentinel: Sentinel, reference: Mapping[str, Any]
) -> None:
    check(sentinel, reference, ("vertebrae_T11", "rib_right_7", "brain"))


@pytest.mark.slow
def test_published_scores_of_every_structure(sentinel: Sentinel, reference: Mapping[str, Any]) -> None:
    assert sum(found["score"] is not None for found in reference.values()) == 38
    check(sentinel, reference, tuple(reference))


def test_every_structure_has_the_embedding_of_its_published_class(
    sentinel: Sentinel, reference: Mapping[str, Any]
) -> None:
    vectors = load_published_embeddings(EMBEDDINGS)
    for name, found in reference.items():
        if found["score"] is not None:
            index = sentinel.structure_index(name)
            assert index is not None
            np.testing.assert_array_equal(
                sentinel.embeddings[index], vectors[found["class_index"]], err_msg=name
            )
