import json
import logging
import os
from collections import OrderedDict
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from monai.networks.nets import DynUNet

from cohort.errors import ModelError
from segmenters.config import SegmenterConfig
from segmenters.initial_weights import parameter_groups, read_initial_weights
from segmenters.networks import build_network
from segmenters.torch_segmenter import TorchSegmenter

NAMES = ("liver", "spleen")


@pytest.fixture
def config():
    return SegmenterConfig(
        network="stunet_small",
        channels=(4, 8, 16),
        patch=(8, 12, 16),
        steps=2,
        batch_size=2,
        average_decay=0.0,
        precision="float32",
    )


def start(path: Path, config: SegmenterConfig, structures=NAMES):
    """A network that got the weights of a file, and the names of its body."""
    config = replace(config, initial_weights=str(path))
    network = build_network(config, 1 + len(structures), seed=9)
    initial = read_initial_weights(config)
    assert initial is not None
    return network, initial.put_into(network, config, structures)


def published(config: SegmenterConfig, classes: int) -> dict[str, object]:
    """What nnU-Net's first version saved."""
    losses = [np.float64(0.5), np.float64(0.25)]
    return {
        "epoch": 1000,
        "state_dict": OrderedDict(build_network(config, classes, seed=1).state_dict()),
        "optimizer_state_dict": {"state": {}, "param_groups": [{"lr": 0.01, "params": [0, 1]}]},
        "lr_scheduler_state_dict": None,
        "plot_stuff": (losses, losses, [], [np.float32(0.9)]),
        "best_stuff": (np.float64(0.1), None, np.int64(7)),
        "amp_grad_scaler": {"scale": 65536.0, "growth_factor": 2.0},
    }


def test_nothing_is_read_where_nothing_is_named(config):
    assert read_initial_weights(config) is None


@pytest.mark.parametrize("zipped", [True, False])
def test_published_weights_come_by_name(config, tmp_path, zipped):
    path = tmp_path / "small.model"
    torch.save(published(config, 3), path, _use_new_zipfile_serialization=zipped)
    expected = build_network(config, 3, seed=1).state_dict()

    network, body = start(path, config)

    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())
    assert body == {name for name in expected if not name.startswith("seg_outputs.")}


def test_numbers_that_an_older_numpy_pickled_are_let_in(config, tmp_path):
    path = tmp_path / "small.model"
    torch.save(published(config, 3), path, _use_new_zipfile_serialization=False)
    written = path.read_bytes()
    path.write_bytes(written.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert path.read_bytes() != written

    network, _ = start(path, config)

    assert torch.equal(
        network.seg_outputs[0].weight, build_network(config, 3, seed=1).state_dict()["seg_outputs.0.weight"]
    )


@pytest.mark.parametrize(
    "wrap", [lambda state: state, lambda state: {"network_weights": state}], ids=["alone", "nnunet v2"]
)
def test_weights_may_stand_alone_or_be_of_a_parallel_training(config, tmp_path, wrap):
    state = {f"module.{name}": v for name, v in build_network(config, 3, seed=1).state_dict().items()}
    torch.save(wrap(state), tmp_path / "weights.pth")

    network, _ = start(tmp_path / "weights.pth", config)

    assert torch.equal(network.state_dict()["seg_outputs.0.bias"], state["module.seg_outputs.0.bias"])
    assert torch.equal(
        network.state_dict()["conv_blocks_context.0.0.conv1.weight"],
        state["module.conv_blocks_context.0.0.conv1.weight"],
    )


def test_heads_of_other_classes_stay_random_and_it_is_said(config, tmp_path, caplog):
    torch.save(published(config, 105), tmp_path / "small.model")
    fresh = build_network(config, 3, seed=9).state_dict()
    given = build_network(config, 105, seed=1).state_dict()

    with caplog.at_level(logging.WARNING, logger="segmenters.initial_weights"):
        network, _ = start(tmp_path / "small.model", config)

    assert (
        "heads tell other classes apart, so those of liver, spleen start from random weights" in caplog.text
    )
    for name, value in network.state_dict().items():
        assert torch.equal(value, (fresh if name.startswith("seg_outputs.") else given)[name]), name


def test_weights_of_another_network_are_refused_by_name(config, tmp_path):
    other = SegmenterConfig(channels=(4, 8, 16), patch=(8, 12, 16))
    torch.save(build_network(other, 3).state_dict(), tmp_path / "unet.pth")

    with pytest.raises(
        ModelError,
        match=r"does not fit a stunet_small .*: \d+ missing \(conv_blocks_context.* and \d+ more\); \d+ not "
        r"expected \(model\.",
    ):
        start(tmp_path / "unet.pth", config)


def test_weights_of_another_size_are_refused_by_shape(config, tmp_path):
    torch.save(published(replace(config, channels=(8, 16, 32)), 3), tmp_path / "base.model")

    with pytest.raises(
        ModelError,
        match=r"of another shape \(conv_blocks_context.0.0.conv1.weight is \(8, 1, 3, 3, 3\), expected "
        r"\(4, 1, 3, 3, 3\)",
    ):
        start(tmp_path / "base.model", config)


class Program:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self):
        return os.mkdir, (str(self._path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_program_in_the_file_is_refused_and_not_run(config, tmp_path, zipped):
    bad = {**published(config, 3), "best_stuff": Program(tmp_path / "ran")}
    torch.save(bad, tmp_path / "bad.model", _use_new_zipfile_serialization=zipped)

    with pytest.raises(
        ModelError, match=r"bad\.model cannot be read as weights: .*a pickle can run any program"
    ):
        start(tmp_path / "bad.model", config)

    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("w.pth", r"w\.pth cannot be read as weights"),
        ("w.safetensors", r"w\.safetensors is no safetensors file"),
    ],
)
def test_a_broken_file_is_refused(config, tmp_path, name, message):
    (tmp_path / name).write_bytes(b"PK\x03\x04 not weights at all")

    with pytest.raises(ModelError, match=message):
        start(tmp_path / name, config)


def test_a_cut_off_file_is_refused(config, tmp_path):
    torch.save(published(config, 3), tmp_path / "w.pth")
    (tmp_path / "w.pth").write_bytes((tmp_path / "w.pth").read_bytes()[:-2000])

    with pytest.raises(ModelError, match=r"w\.pth cannot be read as weights"):
        start(tmp_path / "w.pth", config)


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [torch.zeros(2)], torch.zeros(2)])
def test_a_file_without_weights_is_refused(config, tmp_path, content):
    torch.save(content, tmp_path / "w.pth")

    with pytest.raises(
        ModelError, match=r"w\.pth holds no weights; expected a mapping from names to tensors"
    ):
        start(tmp_path / "w.pth", config)


def test_a_missing_file_is_said(config, tmp_path):
    with pytest.raises(ModelError, match=r"initial_weights is .*nothing\.model, but there is no such file"):
        start(tmp_path / "nothing.model", config)


def test_weights_of_monais_own_dynunet_fit(tmp_path):
    config = SegmenterConfig(network="dynunet", channels=(4, 8, 16), patch=(8, 12, 16))
    theirs = DynUNet(
        3, 1, 3, [3] * 3, [1, 2, 2], [2, 2], filters=[4, 8, 16], deep_supervision=True, deep_supr_num=1
    )
    torch.save(theirs.state_dict(), tmp_path / "dynunet.pt")

    network, _ = start(tmp_path / "dynunet.pt", config)

    patches = torch.randn(1, 1, 8, 12, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network.eval()(patches), theirs.eval()(patches))


@pytest.fixture
def trained(write_case, structures, config, tmp_path):
    """A checkpoint of ours, and the cases it learned from."""
    cases = [write_case("a", 0), write_case("b", 1)]
    (checkpoint,) = TorchSegmenter(config).fit(cases, structures, tmp_path / "first", seed=1)
    return checkpoint, cases


def test_the_description_says_what_a_training_started_from(trained, config, structures, tmp_path):
    checkpoint, cases = trained
    tuned = replace(config, initial_weights=str(checkpoint.path), body_rate=0.0)

    (second,) = TorchSegmenter(tuned).fit(cases, structures, tmp_path / "second", seed=2)

    description = json.loads(second.path.with_suffix(".json").read_bytes())
    assert description["initial_weights_sha256"] == sha256(checkpoint.path.read_bytes()).hexdigest()
    assert "initial_weights_sha256" not in json.loads(checkpoint.path.with_suffix(".json").read_bytes())
    before, after = (safetensors.torch.load_file(found.path) for found in (checkpoint, second))
    heads = {name for name in before if name.startswith("seg_outputs.")}
    assert all(torch.equal(before[name], after[name]) for name in before if name not in heads)
    assert not torch.equal(before["seg_outputs.1.weight"], after["seg_outputs.1.weight"])


def test_heads_of_ours_stay_only_for_the_same_structures(trained, config, caplog):
    checkpoint, _ = trained
    given = safetensors.torch.load_file(checkpoint.path)

    same, _ = start(checkpoint.path, config)
    with caplog.at_level(logging.WARNING, logger="segmenters.initial_weights"):
        other, _ = start(checkpoint.path, config, ("spleen", "liver"))

    assert torch.equal(same.state_dict()["seg_outputs.1.weight"], given["seg_outputs.1.weight"])
    assert not torch.equal(other.state_dict()["seg_outputs.1.weight"], given["seg_outputs.1.weight"])
    assert r"other classes apart (liver, spleen), so those of spleen, liver" in caplog.text


def test_our_checkpoint_of_another_network_is_refused(trained):
    checkpoint, _ = trained
    config = SegmenterConfig(patch=(8, 16, 16), initial_weights=str(checkpoint.path))

    with pytest.raises(ModelError, match=r"holds a 'stunet_small', but this segmenter is a 'unet'"):
        read_initial_weights(config)


def test_our_checkpoint_that_was_changed_is_refused(trained, config):
    checkpoint, _ = trained
    checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:-1] + b"\x7f")

    with pytest.raises(ModelError, match="the weights were replaced or are truncated"):
        start(checkpoint.path, config)


def test_the_body_learns_slower(config):
    network = build_network(config, 3)
    body = frozenset(name for name, _ in network.named_parameters() if not name.startswith("seg_outputs."))

    groups = {group["rate_factor"]: len(group["params"]) for group in parameter_groups(network, body, 0.1)}

    assert groups == {0.1: len(body), 1.0: 4}
    (whole,) = parameter_groups(network, frozenset(), 0.1)
    assert whole["rate_factor"] == 1.0
