import logging
import math
import os

import numpy as np
import pytest
import torch

from cohort.case import CaseView
from cohort.errors import ConfigError, DataError, ModelError
from cohort.volume import read_image, read_label_map, to_canonical, write_volume
from segmenters.base import find_checkpoints
from segmenters.nnunet_config import NnUNetConfig
from segmenters.registry import make_segmenter
from segmenters.torch_segmenter import TorchSegmenter

pytestmark = pytest.mark.usefixtures("needs_nnunet")


@pytest.fixture
def segmenter(tmp_path):
    return make_segmenter(NnUNetConfig(steps=2), tmp_path / "work")


@pytest.fixture
def cases(write_case):
    return [write_case("a", 0, ["liver"]), write_case("b", 1)]


def view(path, name="u"):
    return CaseView(case_id=name, patient_id=name, image=path)


def test_same_seed_same_weights_and_nothing_else_changes(
    segmenter, cases, structures, tmp_path, capfd, monkeypatch
):
    monkeypatch.setenv("nnUNet_results", "of the user")
    state = torch.get_rng_state()

    (first,) = segmenter.fit(cases, structures, tmp_path / "1", seed=5)
    found = {name: value for name, value in os.environ.items() if name.startswith("nnUNet")}
    assert found == {"nnUNet_results": "of the user"}
    assert torch.equal(torch.get_rng_state(), state)
    assert capfd.readouterr() == ("", "")

    torch.rand(3)
    (second,) = segmenter.fit(cases, structures, tmp_path / "2", seed=5)
    (other,) = segmenter.fit(cases, structures, tmp_path / "3", seed=6)
    assert first.sha256 == second.sha256
    assert first.sha256 != other.sha256

    state = torch.get_rng_state()
    segmenter.predict(
        [view(cases[0].image)], first, structures, tmp_path / "p", uncertainty=["inconsistency"]
    )
    assert torch.equal(torch.get_rng_state(), state)


def test_a_training_takes_its_steps_and_tells_them(segmenter, cases, structures, tmp_path):
    heard = []
    checkpoints = segmenter.fit(
        cases,
        structures,
        tmp_path / "w",
        seed=0,
        steps=12,
        checkpoint_steps=[3],
        report=lambda step, total, metrics: heard.append((step, total, dict(metrics))),
    )

    assert [path.name for path in (checkpoints[0].path, checkpoints[1].path)] == [
        "step_0003.safetensors",
        "step_0012.safetensors",
    ]
    assert find_checkpoints(tmp_path / "w") == checkpoints
    assert checkpoints[1].structures == ("liver", "spleen")
    assert [(step, total) for step, total, _ in heard] == [(10, 12), (12, 12)]
    assert all(math.isfinite(metrics["loss"]) for _, _, metrics in heard)
    # the polynomial schedule of the whole budget, at the step before
    assert heard[-1][2]["learning_rate"] == pytest.approx(1e-2 * (1 - 11 / 12) ** 0.9)
    assert not list((tmp_path / "work" / "nnUNet_results").rglob("*.pth"))


class Killed(Exception):
    pass


def test_a_killed_training_starts_again_on_what_it_prepared(segmenter, cases, structures, tmp_path):
    def die(step, total, metrics):
        raise Killed

    with pytest.raises(Killed):
        segmenter.fit(cases, structures, tmp_path / "w", seed=1, report=die)
    prepared = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.pkl")}
    (again,) = segmenter.fit(cases, structures, tmp_path / "w", seed=1)
    fresh = make_segmenter(NnUNetConfig(steps=2), tmp_path / "other")
    (undisturbed,) = fresh.fit(cases, structures, tmp_path / "o", seed=1)

    assert len(prepared) == 2
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.pkl")} == prepared
    assert again.sha256 == undisturbed.sha256


def test_structure_not_annotated_anywhere_is_not_trained(segmenter, write_case, structures, tmp_path, caplog):
    case = write_case("a", 0, ["spleen"])
    with caplog.at_level(logging.WARNING):
        (checkpoint,) = segmenter.fit([case], structures, tmp_path / "w", seed=0)

    (prediction,) = segmenter.predict(
        [view(case.image)], checkpoint, structures, tmp_path / "p", uncertainty=["entropy", "inconsistency"]
    )

    assert "No training case annotates liver, stomach" in caplog.text
    assert checkpoint.structures == ("spleen",)
    assert set(np.unique(read_label_map(prediction.mask).array)) <= {0, 5}
    assert prediction.voxels["liver"] == prediction.slices["liver"] == 0
    assert 0.0 <= prediction.uncertainty["entropy"]["spleen"] <= 1.0
    assert math.isnan(prediction.uncertainty["entropy"]["liver"])
    assert math.isnan(prediction.uncertainty["inconsistency"]["stomach"])
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == ["u.json", "u.nii.gz"]


def test_a_scan_gets_the_same_mask_however_it_is_stored(segmenter, cases, structures, tmp_path):
    (checkpoint,) = segmenter.fit(cases, structures, tmp_path / "w", seed=0)
    canonical = to_canonical(read_image(cases[0].image))
    turned = tmp_path / "turned.nii.gz"
    write_volume(turned, canonical.array, canonical.affine)

    stored, other = segmenter.predict(
        [view(cases[0].image, "stored"), view(turned, "turned")], checkpoint, structures, tmp_path / "p"
    )

    mask = to_canonical(read_label_map(stored.mask)).array
    assert set(np.unique(mask)) > {0}
    np.testing.assert_array_equal(mask, read_label_map(other.mask).array)


@pytest.mark.parametrize("settings", [{"configuration": "2d"}, {"mirror": True}, {"train_mirror": False}])
def test_other_shapes_and_settings_predict_on_the_grid_of_the_image(
    write_case, structures, affine, tmp_path, settings
):
    segmenter = make_segmenter(NnUNetConfig(steps=1, batch_size=1, **settings), tmp_path / "work")
    (checkpoint,) = segmenter.fit([write_case("a", 0)], structures, tmp_path / "w", seed=0)
    images = []
    for number, shape in enumerate([(3, 5, 4), (11, 9, 30)]):
        image = np.random.default_rng(number).normal(0, 10, shape).astype(np.float32)
        images.append(view(tmp_path / f"{number}.nii.gz", f"{number}"))
        write_volume(images[-1].image, image * (number + 1), affine)

    small, large = segmenter.predict(images, checkpoint, structures, tmp_path / "p")

    assert read_label_map(small.mask).array.shape == (3, 5, 4)
    assert read_label_map(large.mask).array.shape == (11, 9, 30)


def test_what_cannot_be_trained_is_named(segmenter, write_case, structures, tmp_path):
    case = write_case("a", 0, ["liver"])
    with pytest.raises(ModelError, match="no training case"):
        segmenter.fit([], structures, tmp_path, seed=0)
    with pytest.raises(ConfigError, match=r"checkpoint_steps has \[9\], expected steps from 1 to 2"):
        segmenter.fit([case], structures, tmp_path, seed=0, checkpoint_steps=[9])
    with pytest.raises(ConfigError, match="steps is 0"):
        segmenter.fit([case], structures, tmp_path, seed=0, steps=0)
    with pytest.raises(ModelError, match="annotates all of"):
        segmenter.fit([case, write_case("b", 1, ["spleen"])], structures, tmp_path, seed=0)
    wild = make_segmenter(NnUNetConfig(steps=5, learning_rate=1e30), tmp_path / "work")
    with pytest.raises(ModelError, match=r"The loss is nan at step \d; lower segmenter.learning_rate"):
        wild.fit([case], structures, tmp_path, seed=0)


def test_what_cannot_be_predicted_is_named(segmenter, cases, structures, config, tmp_path):
    (checkpoint,) = segmenter.fit(cases, structures, tmp_path / "w", seed=0, steps=1)
    views = [view(cases[0].image)]
    with pytest.raises(ModelError, match="no case to predict"):
        segmenter.predict([], checkpoint, structures, tmp_path)
    with pytest.raises(ConfigError, match="do not yield mc_dropout; they yield entropy, inconsistency"):
        segmenter.predict(views, checkpoint, structures, tmp_path, uncertainty=["mc_dropout"])
    with pytest.raises(ModelError, match=r"was trained on \['spleen'\], which the cohort does not have"):
        segmenter.predict(views, checkpoint, structures[:1], tmp_path)
    (foreign,) = TorchSegmenter(config).fit(cases, structures, tmp_path / "t", seed=0, steps=1)
    with pytest.raises(
        ModelError, match=r"of the family 'torch', but this segmenter is of the family 'nnunet'"
    ):
        segmenter.predict(views, foreign, structures, tmp_path)
    views[0].image.write_bytes(views[0].image.read_bytes()[:100])
    with pytest.raises(DataError, match=r"a.nii.gz cannot be read"):
        segmenter.predict(views, checkpoint, structures, tmp_path / "p")
    checkpoint.path.write_bytes(b"other weights")
    with pytest.raises(ModelError, match="the weights were replaced"):
        segmenter.predict(views, checkpoint, structures, tmp_path / "p")
