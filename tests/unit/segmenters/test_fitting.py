"""Whole trainings: interrupted, with threads, from disk, with early stopping."""

import json
import logging
from dataclasses import replace

import pytest
import safetensors.torch
import torch

from cohort.errors import ConfigError, DataError
from segmenters.config import Augmentation
from segmenters.torch_segmenter import TorchSegmenter
from segmenters.training_config import EarlyStopping, Resources


class Killed(Exception):
    """What a test stops a training with."""


@pytest.fixture
def cases(write_case):
    return [write_case(name, seed) for seed, name in enumerate("abcd")]


@pytest.fixture
def config(config):
    bending = Augmentation(elastic_mm=1.0, flip=(False, True, False))
    return replace(
        config, dropout=0.2, augmentation=bending, resources=Resources(save_every=4), learning_rate=1e-2
    )


@pytest.fixture
def fit(cases, structures):
    def run(config, out, *, stop_at=None, curve=None, **options):
        def report(step, total, metrics):
            if curve is not None:
                curve.append((step, dict(metrics)))
            if step == stop_at:
                raise Killed

        settings = {"seed": 5, "steps": 25, "checkpoint_steps": (3, 17), "report": report} | options
        return TorchSegmenter(config, "cpu").fit(cases, structures, out, **settings)

    return run


def hidden(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"accumulate": 2, "batch_size": 1},
        {"early_stopping": EarlyStopping(fraction=0.25, validate_every=3, patience=50)},
    ],
    ids=["plain", "accumulating", "early stopping"],
)
def test_interrupted_training_ends_with_the_same_bytes(fit, config, tmp_path, changes):
    config = replace(config, **changes)
    curve, resumed = [], []
    whole = fit(config, tmp_path / "whole", curve=curve)

    with pytest.raises(Killed):
        fit(config, tmp_path / "parts", stop_at=20)
    assert hidden(tmp_path / "parts") == [".training_state.json", ".training_state_000016.pt"]
    again = fit(config, tmp_path / "parts", curve=resumed)

    assert [c.step for c in again] == [3, 17, 25]
    assert [c.sha256 for c in again] == [c.sha256 for c in whole]
    assert resumed == curve
    assert hidden(tmp_path / "parts") == hidden(tmp_path / "whole") == []


def test_training_goes_on_and_does_not_begin_anew(fit, config, tmp_path, caplog):
    with pytest.raises(Killed):
        fit(config, tmp_path, stop_at=10)
    first = (tmp_path / "step_0003.safetensors").stat().st_mtime_ns

    with caplog.at_level(logging.INFO, "segmenters"):
        fit(config, tmp_path)

    assert "goes on after step 8 of 25" in caplog.text
    assert (tmp_path / "step_0003.safetensors").stat().st_mtime_ns == first


def test_resources_may_change_in_the_middle(fit, config, tmp_path):
    whole = fit(config, tmp_path / "whole")
    with pytest.raises(Killed):
        fit(config, tmp_path / "parts", stop_at=10)

    other = replace(config, resources=Resources(save_every=5, loaders=0, cache_gib=0.0))

    assert fit(other, tmp_path / "parts")[-1].sha256 == whole[-1].sha256


@pytest.mark.parametrize("what", ["seed", "steps", "config", "labels"])
def test_state_of_another_training_is_ignored(fit, config, cases, tmp_path, caplog, what):
    with pytest.raises(Killed):
        fit(config, tmp_path / "w", stop_at=10)
    options = {"seed": {"seed": 6}, "steps": {"steps": 26}}.get(what, {})
    if what == "config":
        config = replace(config, weight_decay=0.01)
    if what == "labels":
        cases[0].label_map.write_bytes(cases[1].label_map.read_bytes())

    found = fit(config, tmp_path / "w", **options)

    assert "is of a training on other inputs; training begins anew" in caplog.text
    assert found[-1].sha256 == fit(config, tmp_path / "new", **options)[-1].sha256


def damage_bytes(folder):
    path = folder / ".training_state_000008.pt"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def truncate(folder):
    path = folder / ".training_state_000008.pt"
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize(
    "damage",
    [
        damage_bytes,
        truncate,
        lambda folder: (folder / ".training_state_000008.pt").unlink(),
        lambda folder: (folder / ".training_state.json").write_text("{"),
        lambda folder: (folder / "step_0003.safetensors").unlink(),
    ],
    ids=["bit flipped", "truncated", "gone", "note broken", "checkpoint gone"],
)
def test_damaged_state_is_ignored_with_a_warning(fit, config, tmp_path, caplog, damage):
    whole = fit(config, tmp_path / "whole")
    with pytest.raises(Killed):
        fit(config, tmp_path / "w", stop_at=10)
    damage(tmp_path / "w")

    found = fit(config, tmp_path / "w")

    assert "damaged" in caplog.text
    assert [c.sha256 for c in found] == [c.sha256 for c in whole]


def test_state_runs_no_code(fit, config, tmp_path, caplog):
    """A state is data: one that was made to run something when it is unpickled is not loaded."""
    with pytest.raises(Killed):
        fit(config, tmp_path, stop_at=10)
    path = tmp_path / ".training_state_000008.pt"
    torch.save({"step": 8, "network": Killed}, path)
    note = json.loads((tmp_path / ".training_state.json").read_text())
    from segmenters.descriptions import weights_sha256

    note["sha256"] = weights_sha256(path)
    (tmp_path / ".training_state.json").write_text(json.dumps(note))

    fit(config, tmp_path)

    assert "UnpicklingError" in caplog.text


def test_saving_can_be_turned_off(fit, config, tmp_path):
    plain = replace(config, resources=Resources(save_every=0))

    with pytest.raises(Killed):
        fit(plain, tmp_path / "w", stop_at=20)

    assert hidden(tmp_path / "w") == []
    assert fit(plain, tmp_path / "w")[-1].sha256 == fit(config, tmp_path / "saved")[-1].sha256


def test_missing_file_is_named_before_anything_is_trained(fit, config, cases, tmp_path):
    cases[2].label_map.unlink()

    with pytest.raises(DataError, match=r"c_labels\.nii\.gz does not exist"):
        fit(replace(config, spacing_mm=(3.0, 1.0, 0.5)), tmp_path / "w")


def test_training_that_gains_nothing_ends_early_with_the_best_weights(fit, config, tmp_path, caplog):
    stopping = EarlyStopping(fraction=0.25, validate_every=2, patience=2)
    still = replace(config, learning_rate=1e-12, early_stopping=stopping, average_decay=0.0)
    curve = []

    with caplog.at_level(logging.INFO, "segmenters"):
        found = fit(still, tmp_path / "w", checkpoint_steps=(2, 17), curve=curve)

    # measured after 2, 4 and 6: two without a gain
    assert [c.step for c in found] == [2, 6]
    assert "ended after step 6 with the weights of step 2" in caplog.text
    best, last = (safetensors.torch.load(c.path.read_bytes()) for c in found)
    assert all(torch.equal(best[name], last[name]) for name in best)
    assert [step for step, _ in curve] == [6]
    assert 0.0 <= curve[0][1]["validation_dsc"] <= 1.0


def test_early_stopping_repeats(fit, config, tmp_path):
    stopping = replace(config, early_stopping=EarlyStopping(fraction=0.5, validate_every=5))

    first, second = fit(stopping, tmp_path / "1"), fit(stopping, tmp_path / "2")

    assert [c.sha256 for c in first] == [c.sha256 for c in second]
    assert first[-1].sha256 != fit(config, tmp_path / "3")[-1].sha256


def test_early_stopping_needs_patients(fit, config, tmp_path):
    with pytest.raises(ConfigError, match=r"of the 4 labelled patients 0 can be held back"):
        fit(replace(config, early_stopping=EarlyStopping(fraction=0.2)), tmp_path)


def test_a_structure_that_no_case_annotates_is_a_warning(fit, config, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        (*_, last) = fit(config, tmp_path, steps=2, checkpoint_steps=())

    assert last.structures == ("liver", "spleen")
    assert "No training case annotates stomach: not trained, and without voxels" in caplog.text


def test_doubtful_pseudo_labels_change_the_weights(fit, config, cases, tmp_path):
    human = list(cases)
    plain = fit(config, tmp_path / "plain")[-1].sha256
    cases[2:] = [replace(case, pseudo=True) for case in human[2:]]
    trusted = fit(config, tmp_path / "trusted")[-1].sha256
    cases[2:] = [replace(case, pseudo=True, weights={"liver": 0.2}) for case in human[2:]]
    doubted = fit(config, tmp_path / "doubted")[-1].sha256
    accumulating = replace(config, accumulate=2, batch_size=1)

    assert len({plain, trusted, doubted}) == 3
    assert fit(config, tmp_path / "again")[-1].sha256 == doubted
    assert fit(accumulating, tmp_path / "accumulated")  # batches with and without such cases add up


def test_state_of_a_training_with_other_weights_is_ignored(fit, config, cases, tmp_path, caplog):
    cases[3] = replace(cases[3], pseudo=True, weights={"liver": 0.5})
    with pytest.raises(Killed):
        fit(config, tmp_path / "w", stop_at=10)
    cases[3] = replace(cases[3], weights={"liver": 0.6})
    fit(config, tmp_path / "w")

    assert "of a training on other inputs" in caplog.text
