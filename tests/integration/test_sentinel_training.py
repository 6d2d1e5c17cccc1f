"""A sentinel trained, calibrated and tested through real Prefect and real MLflow, in a temporary folder."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from cohort.errors import CampaignError
from cohort.volume import read_image, read_label_map, write_volume
from flows.launch import launch_sentinel_training
from flows.progress import Display
from flows.sentinel_config import SentinelTrainingConfig, load_sentinel_training
from flows.stages import file_sha256, read_json
from flows.tracking import tracking_uri
from sentinel import Sentinel

pytestmark = pytest.mark.slow

CASES, HELD_OUT, CALIBRATING = 12, 3, 4
ESTIMATORS = ("sentinel", "entropy", "inconsistency", "mask_only")
ARCHITECTURES = {"seen": "unet", "unseen": "segresnet"}
STEPS = (15, 40)


@pytest.fixture(scope="module")
def scans(
    tmp_path_factory: pytest.TempPathFactory, affine: np.ndarray, make_label_map: Callable[[int], np.ndarray]
) -> Path:
    """Cases in which a network can see something, each of another patient."""
    root, training = tmp_path_factory.mktemp("scans"), []
    for number in range(CASES):
        labels, name = make_label_map(number), f"case_{number:02d}.nii.gz"
        noise = np.random.default_rng(number).normal(0.0, 40.0, labels.shape)
        write_volume(root / "imagesTr" / name, (100.0 * labels + noise).astype(np.float32), affine)
        write_volume(root / "labelsTr" / name, labels, affine)
        training.append({"image": f"imagesTr/{name}", "label": f"labelsTr/{name}"})
    document = {"labels": {"0": "background", "1": "liver", "2": "spleen"}, "training": training}
    (root / "dataset.json").write_text(json.dumps({"name": "Tiny", **document}))
    return root


def settings(scans: Path) -> dict[str, object]:
    segmenter = {
        "channels": [8, 16],
        "patch": [8, 12, 16],
        "batch_size": 2,
        "learning_rate": 0.02,
        "precision": "float32",
    }
    masks = {"steps": STEPS[-1], "checkpoint_steps": list(STEPS[:-1])}
    return {
        "threads": 1,
        "data": {"layout": "decathlon", "root": str(scans), "held_out_cases": HELD_OUT},
        "split": {"calibration_patients": CALIBRATING},
        "segmenter": segmenter,
        "masks": {"folds": 2, **masks},
        "unseen": {"segmenter": {**segmenter, "network": "segresnet"}, **masks},
        "sentinel": {
            "backbone": "resnet18",
            "image_size": 32,
            "max_slices": 2,
            "training_slices": 64,
            "steps": 3,
            "batch_size": 4,
            "precision": "float32",
        },
        "level": 0.6,
        "licence": "CC0",
    }


@pytest.fixture(scope="module")
def configure(tmp_path_factory: pytest.TempPathFactory, scans: Path) -> Callable[..., SentinelTrainingConfig]:
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(yaml.safe_dump(settings(scans)))

    def make(root: Path, *overrides: str) -> SentinelTrainingConfig:
        return load_sentinel_training(path, [f"root={root}", *overrides])

    return make


@pytest.fixture(scope="module")
def config(
    tmp_path_factory: pytest.TempPathFactory, configure: Callable[..., SentinelTrainingConfig]
) -> SentinelTrainingConfig:
    """Of a training that has finished."""
    config = configure(tmp_path_factory.mktemp("sentinels"))
    assert start(config) == config.folder / "sentinel.safetensors"
    return config


def start(config: SentinelTrainingConfig) -> Path:
    return launch_sentinel_training(config, Display(quiet=True))


def runs(config: SentinelTrainingConfig) -> list[Run]:
    client = MlflowClient(tracking_uri=tracking_uri(config.root))
    experiment = client.get_experiment_by_name("sentinels")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], f"attributes.run_name = '{config.name}'"))


def test_the_sentinel_is_calibrated_and_scores(config: SentinelTrainingConfig, scans: Path) -> None:
    sentinel = Sentinel.load(config.folder / "sentinel.safetensors")
    assert sentinel.structures == ("liver", "spleen")
    assert sentinel.calibration.level == 0.6
    for found in sentinel.calibration.structures.values():
        assert (found.patients, found.masks) == (CALIBRATING, CALIBRATING * len(STEPS))
    reference = read_label_map(scans / "labelsTr" / "case_00.nii.gz").array
    masks = {"liver": reference == 1, "spleen": reference == 2}
    for score in sentinel.score(read_image(scans / "imagesTr" / "case_00.nii.gz"), masks):
        assert score.structure in sentinel.calibration.structures
        assert 0.0 <= score.lower <= score.predicted_dsc <= score.upper <= 1.0


def test_every_estimator_is_tested_on_both_architectures(config: SentinelTrainingConfig) -> None:
    table = pd.read_csv(config.folder / "evaluation.csv").set_index(["group", "estimator", "structure"])
    wanted = {(group, name, "all") for group in ARCHITECTURES for name in ESTIMATORS}
    assert wanted <= set(table.index)
    for key in wanted:
        row = table.loc[key]
        assert row["masks"] + row["without_value"] == HELD_OUT * len(STEPS) * 2
        assert row["patients"] == HELD_OUT
        assert row["mae_low"] <= row["mae"] <= row["mae_high"]


def test_masks_are_those_of_the_test_patients_with_their_true_dsc(config: SentinelTrainingConfig) -> None:
    table = pd.read_csv(config.folder / "masks.csv")
    assert len(table) == 2 * HELD_OUT * len(STEPS) * 2
    assert table["patient_id"].nunique() == HELD_OUT
    assert table.groupby("group")["architecture"].unique().map(list).to_dict() == {
        group: [name] for group, name in ARCHITECTURES.items()
    }
    assert set(table["source"]) == {f"test{part}/step{step}" for part in ("", "-unseen") for step in STEPS}
    assert table["dsc"].between(0.0, 1.0).all()
    assert table["dsc"].nunique() > 10
    assert {f"{name}_raw" for name in ESTIMATORS} <= set(table.columns)


def test_patients_have_one_role(config: SentinelTrainingConfig) -> None:
    """What each stage was made of, from the stages' own manifests."""
    manifests = [read_json(path) for path in config.folder.glob("stages/*/stage.json")]
    made: dict[str, set[str]] = {}
    for manifest in manifests:
        role, cases = manifest["stage"].split("-step")[0], manifest["inputs"].get("cases")
        cases = manifest["inputs"].get("images") if cases is None else cases
        made.setdefault(role, set()).update(cases or ())
    assert len(made["train-seen"]) == CASES - HELD_OUT - CALIBRATING
    assert made["train-unseen"] == made["train-seen"] == made["fold0"] | made["fold1"]
    for fold in ("0", "1"):
        assert made[f"train-fold{fold}"] == made["train-seen"] - made[f"fold{fold}"]
    assert made["test"] == made["test-unseen"]
    assert len(made["test"] | made["calibrate"] | made["train-seen"]) == CASES
    assert len(made["calibrate"]) == CALIBRATING


def test_people_find_a_summary_a_card_and_figures(config: SentinelTrainingConfig) -> None:
    summary = json.loads((config.folder / "summary.json").read_text())
    assert summary["sentinel sha256"] == file_sha256(config.folder / "sentinel.safetensors")
    assert (summary["training patients"], summary["calibration patients"], summary["test patients"]) == (
        "5",
        "4",
        "3",
    )
    assert {(row["masks by"], row["estimator"]) for row in summary["headline"]} == {
        (architecture, name) for architecture in ARCHITECTURES.values() for name in ESTIMATORS
    }
    card = (config.folder / "model_card.md").read_text()
    assert "Learned from Tiny (modality not said, 5 patients)" in card
    assert "Masks by segresnet, a segmenter that it never saw" in card
    figures = {path.name for path in (config.folder / "figures").glob("*.png")}
    assert figures == {f"{kind}_{group}.png" for kind in ("scatter", "coverage") for group in ARCHITECTURES}
    assert not (config.folder / "process.json").exists()


def test_mlflow_has_the_metrics_the_settings_and_the_files(config: SentinelTrainingConfig) -> None:
    (run,) = runs(config)
    assert (run.info.run_name, run.info.status) == ("tiny-seed0", "FINISHED")
    table = pd.read_csv(config.folder / "evaluation.csv").set_index(["group", "estimator", "structure"])
    for group in ARCHITECTURES:
        for name in ESTIMATORS:
            expected = float(table.loc[(group, name, "all"), "mae"])
            assert run.data.metrics[f"{group}/{name}/all/mae"] == pytest.approx(expected)
    assert run.data.metrics["seen/sentinel/all/masks"] == HELD_OUT * len(STEPS) * 2
    assert all(math.isfinite(value) for value in run.data.metrics.values())
    assert {"train-seen/loss", "train-unseen/loss", "sentinel/loss"} <= run.data.metrics.keys()
    assert run.data.params["sentinel.image_size"] == "32"
    assert run.data.tags["mlflow.note.content"] == (config.folder / "model_card.md").read_text()
    client = MlflowClient(tracking_uri=tracking_uri(config.root))
    files = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    assert files >= {"sentinel.safetensors", "evaluation.csv", "masks.csv", "model_card.md", "figures"}


def contents(folder: Path) -> Mapping[str, Any]:
    """Stages' files by their time of writing, and the report's by their bytes."""
    stages = {str(path): path.stat().st_mtime_ns for path in folder.glob("stages/*/**/*") if path.is_file()}
    names = ("sentinel.safetensors", "evaluation.csv", "masks.csv", "summary.json", "model_card.md")
    return stages | {name: file_sha256(folder / name) for name in names}


def test_the_same_command_again_trains_nothing(config: SentinelTrainingConfig) -> None:
    before = contents(config.folder)
    assert len(before) > 50
    start(config)
    assert contents(config.folder) == before
    assert len(runs(config)) == 1


def test_other_settings_need_another_name(
    config: SentinelTrainingConfig, configure: Callable[..., SentinelTrainingConfig]
) -> None:
    before = contents(config.folder)
    with pytest.raises(CampaignError, match=r"made with another config \(level: 0\.6 -> 0\.7\)"):
        start(configure(config.root, "level=0.7"))
    assert contents(config.folder) == before


def test_the_same_seed_under_another_name_gives_the_same_sentinel(
    config: SentinelTrainingConfig, configure: Callable[..., SentinelTrainingConfig]
) -> None:
    """Without the rivals and the unseen segmenter: these must not change what is trained."""
    plain = configure(config.root, "name=plain", "unseen=null", "rivals=false")
    files = config.folder / "sentinel.safetensors", start(plain)
    first, second = (Sentinel.load(path) for path in files)
    known, found = (sentinel.network.state_dict() for sentinel in (first, second))
    assert known.keys() == found.keys()
    for name, value in known.items():
        torch.testing.assert_close(found[name], value, rtol=0.0, atol=0.0, msg=name)
    assert file_sha256(files[0]) == file_sha256(files[1])
    figures = {path.name for path in (plain.folder / "figures").iterdir()}
    assert figures == {"scatter_seen.png", "coverage_seen.png"}
    (run,) = runs(plain)
    assert {name.split("/")[1] for name in run.data.metrics if name.startswith("seen/")} == {"sentinel"}
