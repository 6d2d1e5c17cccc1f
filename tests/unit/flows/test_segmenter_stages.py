from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from cohort.case import Structure
from cohort.records import TrainingCase
from flows import segmenter_stages
from flows.segmenter_stages import SegmenterStages
from segmenters.config import SegmenterConfig
from segmenters.descriptions import describe
from segmenters.training_config import Resources, SemiSupervision

CONFIG = SegmenterConfig(channels=(4, 8), patch=(8, 8, 8))


@pytest.fixture
def trainings(monkeypatch):
    """Steps of the trainings that were run; each writes one checkpoint."""
    run = []

    def train(segmenter, cases, structures, out, *, steps, **options):
        run.append(steps)
        path = out / f"step_{steps:04d}.safetensors"
        path.write_bytes(b"weights")
        (out / ".training_state.json").write_text("of a training that ended")
        describe(path, family="torch", step=steps, structures=("liver",), details={})

    monkeypatch.setattr(segmenter_stages.tasks, "train_segmenter", train)
    return run


@pytest.fixture
def fit(tmp_path):
    def run(config, cases=()):
        stages = SegmenterStages(
            folder=tmp_path / "rounds",
            workspace=tmp_path / "segmenter",
            config=config,
            structures=(Structure(name="liver", label=1),),
            fingerprints={"a": "hash"},
            step=lambda shown: nullcontext(lambda step, total, metrics: None),
        )
        return stages.fit("train", "training", cases, "none", steps=3, checkpoint_steps=(), seed=0)

    return run


def test_a_training_is_not_run_again_for_other_resources(fit, trainings):
    first = fit(CONFIG)
    second = fit(replace(CONFIG, resources=Resources(loaders=4, cache_gib=0.0, save_every=1)))

    assert first == second
    assert trainings == [3]


@pytest.mark.parametrize("change", [{"learning_rate": 0.1}, {"processes": 2}, {"accumulate": 2}])
def test_a_training_is_run_again_for_other_settings(fit, trainings, change):
    fit(CONFIG)
    fit(replace(CONFIG, **change))

    assert trainings == [3, 3]


def test_hidden_files_are_no_part_of_a_stage(fit, trainings, tmp_path):
    (checkpoint,) = fit(CONFIG)
    (checkpoint.path.parent / ".training_state.json").unlink()

    fit(CONFIG)

    assert trainings == [3]


def test_a_training_is_run_again_when_the_weights_that_it_starts_from_change(fit, trainings, tmp_path):
    weights = tmp_path / "published.pth"
    weights.write_bytes(b"first")
    config = replace(CONFIG, initial_weights=str(weights))
    fit(config)
    fit(config)
    weights.write_bytes(b"second")
    fit(config)

    assert trainings == [3, 3]


def test_how_pseudo_labels_are_used_counts_only_where_there_are_any(fit, trainings):
    capped = replace(CONFIG, semi_supervision=SemiSupervision(pseudo_share=0.1))
    fit(CONFIG)
    fit(capped)
    assert trainings == [3]

    path = Path("a.nii.gz")
    case = TrainingCase(
        case_id="a", patient_id="a", image=path, label_map=path, annotated=frozenset({"liver"}), pseudo=True
    )
    fit(CONFIG, [case])
    fit(capped, [case])
    assert trainings == [3, 3, 3]
