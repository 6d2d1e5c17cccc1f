import json

import pytest
import torch

from cohort.errors import ModelError
from segmenters.checkpoints import load_network, read_recipe, save_checkpoint
from segmenters.config import SegmenterConfig
from segmenters.descriptions import load_checkpoint
from segmenters.networks import build_network

CONFIG = SegmenterConfig(channels=(4, 8), patch=(8, 12, 16), spacing_mm=(3.0, 1.0, 0.5))


@pytest.fixture
def saved(tmp_path):
    weights = build_network(CONFIG, 3, seed=1).state_dict()
    return save_checkpoint(tmp_path, 20, weights, CONFIG, ("liver", "spleen"), (3.0, 1.0, 0.5))


def test_checkpoint_comes_back(saved, tmp_path):
    assert saved.path == tmp_path / "step_0020.safetensors"
    assert load_checkpoint(saved.path) == saved
    recipe = read_recipe(saved.path)
    assert recipe.config == CONFIG
    assert recipe.spacing_mm == (3.0, 1.0, 0.5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_0020.json", "step_0020.safetensors"]


def test_network_comes_back_with_its_weights(saved):
    network, _ = load_network(saved, "unet")
    expected = build_network(CONFIG, 3, seed=1).state_dict()

    assert not network.training
    assert all(torch.equal(tensor, expected[name]) for name, tensor in network.state_dict().items())


def test_same_weights_same_bytes_in_any_memory_format(saved, tmp_path):
    network = build_network(CONFIG, 3, seed=1).to(memory_format=torch.channels_last_3d)

    again = save_checkpoint(
        tmp_path / "again", 20, network.state_dict(), CONFIG, ("liver", "spleen"), (3.0, 1.0, 0.5)
    )

    assert again.sha256 == saved.sha256


def test_changed_weights_are_refused(saved):
    saved.path.write_bytes(saved.path.read_bytes()[:-1] + b"x")

    with pytest.raises(ModelError, match="the weights were replaced or are truncated"):
        load_checkpoint(saved.path)
    with pytest.raises(ModelError, match="the weights were replaced or are truncated"):
        load_network(saved, "unet")


def test_another_network_is_refused(saved):
    with pytest.raises(ModelError, match="weights of network 'unet', but this segmenter is a 'segresnet'"):
        load_network(saved, "segresnet")


def test_missing_files_are_named(saved, tmp_path):
    with pytest.raises(ModelError, match=r"nowhere.json does not exist"):
        load_checkpoint(tmp_path / "nowhere.safetensors")
    saved.path.unlink()
    with pytest.raises(ModelError, match=r"step_0020.safetensors does not exist"):
        load_checkpoint(saved.path)


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 1}', "null"])
def test_broken_description_is_named(saved, text):
    saved.path.with_suffix(".json").write_text(text)

    with pytest.raises(ModelError, match=r"step_0020.json is no description of a checkpoint"):
        load_checkpoint(saved.path)


def test_description_of_another_network_or_format_is_refused(saved):
    beside = saved.path.with_suffix(".json")
    recipe = json.loads(beside.read_text())
    beside.write_text(json.dumps({**recipe, "structures": ["liver"]}))
    with pytest.raises(ModelError, match="does not fit the network"):
        load_network(saved, "unet")
    beside.write_text(json.dumps({**recipe, "format": 2}))
    with pytest.raises(ModelError, match="has format 2, expected 1"):
        load_checkpoint(saved.path)
