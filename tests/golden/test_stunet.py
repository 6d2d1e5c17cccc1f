"""Against the names, sizes and outputs of the published STU-Net, with weights made from names alone."""

import json
import math
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from segmenters.config import SegmenterConfig
from segmenters.networks import build_network

REFERENCE = Path(__file__).parents[2].parent / "shared" / "data" / "stunet" / "reference.json"
CLASSES = 105

pytestmark = pytest.mark.skipif(not REFERENCE.exists(), reason="reference data are not here")


@pytest.fixture(scope="module")
def reference():
    return json.loads(REFERENCE.read_text())


def build(size: str, device: str) -> torch.nn.Module:
    config = SegmenterConfig(network=f"stunet_{size}", patch=(64, 64, 64))
    with torch.device(device):
        return build_network(config, CLASSES)


def weights_from_names(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    state = {}
    for name, value in network.state_dict().items():
        shape = tuple(value.shape)
        if name.endswith("bias"):
            state[name] = torch.zeros(shape)
        elif len(shape) == 1:
            state[name] = torch.ones(shape)
        else:
            rng = np.random.default_rng(zlib.crc32(name.encode()))
            drawn = rng.standard_normal(shape) / math.sqrt(math.prod(shape[1:]))
            state[name] = torch.from_numpy(drawn.astype(np.float32))
    return state


def test_names_and_shapes_are_the_published_ones(reference):
    shapes = {name: list(value.shape) for name, value in build("small", "meta").state_dict().items()}

    assert shapes == reference["small"]["shapes"]


@pytest.mark.parametrize("size", ["small", "base", "large", "huge"])
def test_sizes_are_the_published_ones(reference, size):
    network = build(size, "meta")

    assert sum(value.numel() for value in network.parameters()) == reference[size]["parameters"]


def test_outputs_are_those_of_the_published_code(reference):
    network = build("small", "cpu").eval()
    network.load_state_dict(weights_from_names(network))
    image = np.random.default_rng(0).standard_normal((1, 1, 64, 64, 64)).astype(np.float32)

    with torch.inference_mode():
        logits = network(torch.from_numpy(image))

    expected = reference["small"]["output"]
    assert list(logits.shape) == expected["shape"]
    assert float(logits.mean()) == pytest.approx(expected["mean"], abs=1e-3)
    assert float(logits.std()) == pytest.approx(expected["std"], abs=1e-3)
    for *place, value in expected["voxels"]:
        assert float(logits[0][tuple(place)]) == pytest.approx(value, abs=1e-3)
