"""A campaign that ranks by the fused estimator, through real Prefect and real MLflow."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from flows.config import load_config
from flows.launch import launch
from flows.progress import Display
from flows.stages import read_json

pytestmark = pytest.mark.slow


def test_a_round_by_the_fused_estimator(
    make_decathlon: Callable[..., Path], make_campaign_yaml: Callable[..., Path]
) -> None:
    changes = {
        "strategy": "quality",
        "estimator": "fused",
        "rounds": 2,
        "start.cases": 4,
        "cross_fitting.repeats": 2,
        "segmenter.steps": 40,
        "cross_fitting.steps": 40,
    }
    path = make_campaign_yaml(make_decathlon(10), changes)
    campaign = launch(load_config(path), Display(quiet=True))
    assert campaign.event("finished") is not None
    (trial,) = (entry.payload for entry in campaign.events("trial"))
    assert trial["estimator"]["n"] > 0

    folder = campaign.round_folder(0)
    names = {stage.name.rpartition("-")[0] for stage in folder.iterdir() if (stage / "stage.json").is_file()}
    assert {"fused", "sentinel0", "sentinel1", "sentinel2", "fold0-pool", "repeat1-fold1-pool"} <= names
    (fused,) = folder.glob("fused-*/fused.json")
    assert read_json(fused)["fusion"]["intercepts"].keys() <= {"liver", "spleen"}
    (scores,) = folder.glob("score-*/scores.csv")
    table = pd.read_csv(scores)
    assert set(table["estimator"]) == {"fused"}
    assert table["predicted_dsc"].dropna().between(0.0, 1.0).all()

    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    launch(load_config(path), Display(quiet=True))
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")} == before
