"""Campaigns by structure and by core-set, through real Prefect and real MLflow."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from flows.config import load_config
from flows.launch import launch
from flows.progress import Display

pytestmark = pytest.mark.slow


def test_only_the_structures_that_were_asked_for_are_annotated(
    make_decathlon: Callable[..., Path], make_campaign_yaml: Callable[..., Path]
) -> None:
    changes = {
        "strategy": "quality_diverse",
        "estimator": "entropy",
        "unit": "structure",
        "budget": {"currency": "structures", "per_round": 3},
        "rounds": 2,
        "segmenter.steps": 40,
    }
    path = make_campaign_yaml(make_decathlon(10), changes)
    campaign = launch(load_config(path), Display(quiet=True))
    assert campaign.event("finished") is not None
    (selection,) = (entry.payload for entry in campaign.events("selection"))
    asked = {case_id: set(names) for case_id, names in selection["requests"]}
    assert sum(len(names) for names in asked.values()) == 3
    assert list(asked) == selection["selected"]
    assert selection["predicted_cost"]["structures"] == 3.0

    new = [a for a in campaign.annotations() if a.case_id in asked]
    assert {a.case_id: set(a.structures) for a in new} == asked
    assert sum(a.cost.structures for a in new) == 3.0
    (trial,) = (entry.payload for entry in campaign.events("trial"))
    assert {(c, s) for c, s, _ in trial["revealed_dsc"]} <= {(c, s) for c in asked for s in asked[c]}

    table = pd.read_csv(campaign.round_folder(0) / "ranked.csv", keep_default_na=False)
    assert len(table) == 2 * 5, "two structures of each of five cases"
    taken = table[table["selected"]]
    assert {(c, s) for c, s in zip(taken["case_id"], taken["part"], strict=True)} == {
        (c, s) for c in asked for s in asked[c]
    }
    assert campaign.events("result")[1].payload["labelled_cases"] == 3 + len(asked)


def test_a_core_set_on_features_of_the_segmenter_from_a_diverse_start(
    make_decathlon: Callable[..., Path], make_campaign_yaml: Callable[..., Path]
) -> None:
    changes = {"strategy": "core_set", "features": "segmenter", "start.method": "diverse", "rounds": 3}
    path = make_campaign_yaml(make_decathlon(10), changes)
    campaign = launch(load_config(path), Display(quiet=True))
    selections = [entry.payload for entry in campaign.events("selection")]
    assert len(selections) == 2
    assert [len(selection["selected"]) for selection in selections] == [2, 2]
    before = [campaign.round_folder(n) / "ranked.csv" for n in range(2)]
    tables = [pd.read_csv(path) for path in before]
    assert (tables[0]["priority"] > 0.0).all()
    assert tables[0]["priority"].is_monotonic_decreasing
    assert list(campaign.round_folder(1).glob("segment-labelled-*/stage.json"))
    launch(load_config(path), Display(quiet=True))
    assert [entry.payload for entry in campaign.events("selection")] == selections
