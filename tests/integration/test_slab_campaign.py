"""Campaigns by slabs of consecutive slices, through real Prefect and real MLflow."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cohort.records import Prediction
from cohort.slabs import Slab, slices_in
from cohort.volume import read_label_map
from flows.campaign import Campaign
from flows.config import load_config
from flows.launch import launch
from flows.progress import Display
from flows.slab_candidates import SlabPool

pytestmark = pytest.mark.slow

CHANGES: Mapping[str, object] = {
    "unit": "slices",
    "slices_per_slab": 2,
    "budget": {"currency": "slices", "per_round": 4},
    "rounds": 4,
}


def run(path: Path, *overrides: str) -> Campaign:
    return launch(load_config(path, overrides), Display(quiet=True))


def told(campaign: Campaign) -> list[Mapping[str, object]]:
    """What a campaign decided and found, without times and places."""
    kinds = ("selection", "annotation", "result", "trial")
    return [
        {key: value for key, value in entry.payload.items() if key not in ("at", "previous", "seq")}
        for entry in campaign.ledger.entries()
        if entry.event in kinds
    ]


def test_slabs_are_annotated_in_several_rounds_and_everything_repeats(
    make_decathlon: Callable[..., Path], make_campaign_yaml: Callable[..., Path]
) -> None:
    root = make_decathlon(6)
    path = make_campaign_yaml(root, {**CHANGES, "strategy": "quality", "estimator": "sentinel"})
    campaign = run(path)
    assert campaign.event("finished") is not None
    selections = [entry.payload for entry in campaign.events("selection")]
    assert len(selections) == 3
    assert all(0.0 < s["predicted_cost"]["slices"] <= 4.0 for s in selections)
    only = {request[0] for s in selections for request in s["requests"]}
    assert len(only) == 1, "the pool has one case, which stays in it while slabs of it are left"

    asked = [[tuple(slab) for slab in s["requests"][0][2]] for s in selections]
    assert all(asked)
    flat = [slab for slabs in asked for slab in slabs]
    assert len(set(flat)) == len(flat), "no slab is asked for twice"
    assert all(first % 2 == 0 and last == first + 1 for first, last in flat)

    new = [a for a in campaign.annotations() if a.case_id in only]
    assert [set(a.slabs) for a in new] == [
        {Slab(first=f, last=last) for slabs in asked[: n + 1] for f, last in slabs} for n in range(3)
    ]
    true = read_label_map(root / "labelsTr" / f"{new[-1].case_id}.nii.gz").array
    covered = slices_in(new[-1].slabs, 8)[:, None, None]
    np.testing.assert_array_equal(read_label_map(new[-1].path).array, np.where(covered, true, 0))
    for annotation, slabs in zip(new, asked, strict=True):
        inside = slices_in([Slab(first=f, last=last) for f, last in slabs], 8)
        slices = sum(int((true[inside] == label).any(axis=(1, 2)).sum()) for label in (1, 2))
        assert annotation.cost.slices == slices, "only what is new costs"
        assert (annotation.cost.cases, annotation.cost.structures) == (1.0, 2.0 * len(slabs))

    table = pd.read_csv(campaign.round_folder(0) / "ranked.csv", keep_default_na=False)
    assert set(table["part"]) <= {f"slices {n}-{n + 1}" for n in range(0, 8, 2)}
    taken = table[table["selected"]]["part"]
    assert set(taken) == {f"slices {first}-{last}" for first, last in asked[0]}
    assert list(campaign.round_folder(0).glob("score-*/slice_scores.csv"))

    assert told(run(path, "name=again")) == told(campaign)


def test_random_slabs_of_several_cases_and_a_second_start(
    make_decathlon: Callable[..., Path], make_campaign_yaml: Callable[..., Path]
) -> None:
    changes = {**CHANGES, "rounds": 2, "budget": {"currency": "minutes", "per_round": 12}}
    path = make_campaign_yaml(make_decathlon(8), changes)
    campaign = run(path)
    before = told(campaign)
    (selection,) = (entry.payload for entry in campaign.events("selection"))
    assert len(selection["requests"]) >= 2
    assert told(run(path)) == before


class Interrupted(BaseException):
    """What a kill would be, if a process could survive it."""


def test_a_campaign_that_is_stopped_at_every_line_comes_to_the_same(
    make_decathlon: Callable[..., Path],
    make_campaign_yaml: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changes = {**CHANGES, "rounds": 3, "budget": {"currency": "cases", "per_round": 1}}
    path = make_campaign_yaml(make_decathlon(6), changes)
    undisturbed, append = run(path), Campaign.append
    waiting = {"before": True}

    def stop_once(self: Campaign, kind: str, **payload: object) -> None:
        waiting["before"] = not waiting["before"]
        if not waiting["before"]:
            raise Interrupted
        append(self, kind, **payload)
        raise Interrupted

    monkeypatch.setattr(Campaign, "append", stop_once)
    for _ in range(2 * len(undisturbed.ledger.entries())):
        with pytest.raises(Interrupted):
            run(path, "name=again")
    assert told(run(path, "name=again")) == told(undisturbed)


def test_a_campaign_ends_where_no_slab_is_left_to_ask_for(
    make_decathlon: Callable[..., Path],
    make_campaign_yaml: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The model finds something in the first slice alone: the first two slabs are all that is asked for."""

    def read(
        predictions: Sequence[Prediction],
        structures: object,
        thickness: int,
        done: Mapping[str, Sequence[Slab]],
    ) -> SlabPool:
        areas = {"liver": np.array([5, 0, 0, 0, 0, 0, 0, 0]), "spleen": np.zeros(8, np.int64)}
        return SlabPool(thickness=thickness, areas={p.case_id: areas for p in predictions}, done=done)

    monkeypatch.setattr(SlabPool, "read", staticmethod(read))
    changes = {**CHANGES, "budget": {"currency": "cases", "per_round": 1}}
    campaign = run(make_campaign_yaml(make_decathlon(6), changes))
    (selection,) = (entry.payload for entry in campaign.events("selection"))
    assert [request[2] for request in selection["requests"]] == [[[0, 1], [2, 3]]]
    finished = campaign.event("finished")
    assert finished is not None
    assert finished.payload["why"] == "no slab of the pool is left to annotate"
    assert len(campaign.events("result")) == 2, "what was annotated last was learned from and measured"
