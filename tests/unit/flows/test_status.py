import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from rich.console import Console

from cohort.annotation import Request
from flows import campaign as campaigns
from flows.annotation_work import note_waiting
from flows.campaign import Campaign
from flows.config import load_config
from flows.intake import Taken
from flows.status import named, status, table


@pytest.fixture
def campaign(make_campaign_yaml: Callable[..., Path]) -> Campaign:
    return campaigns.create_or_open(load_config(make_campaign_yaml("scans")))


def add_result(campaign: Campaign, number: int, dsc: float | None) -> None:
    campaign.append(
        "result",
        round=number,
        labelled_cases=3 + 2 * number,
        budget={"cases": 3.0, "minutes": 12.6},
        dsc=dsc,
        nsd=0.5,
        dsc_per_structure={"liver": dsc},
        nsd_per_structure={"liver": 0.5},
    )


def shown(campaign: Campaign) -> str:
    console = Console(file=io.StringIO(), width=120)
    with console.capture() as written:
        console.print(table(status(campaign)))
    return written.get()


def test_a_campaign_that_has_just_begun(campaign: Campaign) -> None:
    found = status(campaign)
    assert found["campaign"] == "tiny"
    assert found["state"] == "interrupted"
    assert found["waits_for"].startswith("the command that started it: run it again")
    assert found["rounds"] == []
    assert "tiny: interrupted" in shown(campaign)


def test_each_round_with_what_followed_it(campaign: Campaign) -> None:
    add_result(campaign, 0, 0.25)
    campaign.append("selection", round=0, selected=["c", "a", "b", "d"])
    agreement = {"pearson": None, "spearman": 0.5, "mae": 0.125, "bias": 0.1, "n": 8, "missing": 1}
    campaign.append("trial", round=0, estimator=agreement)
    add_result(campaign, 1, 0.75)
    campaign.append("finished", why="all rounds are done")

    found = status(campaign)
    assert (found["state"], found["waits_for"]) == ("finished", "")
    first, last = found["rounds"]
    assert first == {
        "round": 0,
        "labelled_cases": 3,
        "budget": {"cases": 3.0, "minutes": 12.6},
        "dsc": 0.25,
        "nsd": 0.5,
        "selected": ["c", "a", "b", "d"],
        "estimator": agreement,
    }
    assert (last["selected"], last["estimator"]) == ([], {})

    text = shown(campaign)
    assert "0.250" in text
    assert "c, a and 2 more" in text
    assert "spearman 0.50, mae 0.12, n 8" in text
    assert "pearson" not in text
    assert " 13 " in text, "minutes without decimals"


def test_a_round_in_which_nothing_could_be_measured(campaign: Campaign) -> None:
    add_result(campaign, 0, None)
    found = status(campaign)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert "0.500" in shown(campaign)


def test_two_selected_cases_are_both_shown(campaign: Campaign) -> None:
    add_result(campaign, 0, 0.1)
    campaign.append("selection", round=0, selected=["b", "a"])
    assert "b, a" in shown(campaign)
    assert "more" not in shown(campaign)


def test_what_people_have_to_do(campaign: Campaign) -> None:
    add_result(campaign, 0, 0.25)
    campaign.append("awaiting", round=0, waits_for="label maps in done: a.nii.gz")
    found = status(campaign)
    assert (found["state"], found["waits_for"]) == (
        "awaiting annotation",
        "label maps in done: a.nii.gz",
    )


def test_what_people_have_to_do_is_told_for_where_the_campaign_lies(campaign: Campaign) -> None:
    @dataclass
    class Away:
        folder: Path

        def waits_for(self, requests: Sequence[Request]) -> str:
            return f"{requests[0].case_id} in {self.folder.resolve() / 'done'}"

    campaign.append("start")
    taken = Taken(
        let_in=(),
        refused={},
        skipped={},
        unsettled={"a": f"{campaign.folder}/a.nii.gz is strange"},
        open=(Request(case_id="a", structures=("liver",)),),
    )
    reason = "{campaign}/done/a.nii.gz has no liver"
    campaign.append("refused", round=0, case_id="a", reason=reason, path="quarantine/a_1.nii.gz")
    told = note_waiting(campaign, 0, Away(campaign.folder), taken)  # type: ignore[arg-type]
    assert told.count(str(campaign.folder)) == 4
    assert status(campaign)["waits_for"] == told
    moved = campaigns.open_campaign(campaign.folder.rename(campaign.folder.with_name("moved")))
    assert status(moved)["waits_for"] == told.replace(str(campaign.folder), str(moved.folder))
    before = moved.ledger.entries()
    taken = replace(taken, unsettled={"a": f"{moved.folder}/a.nii.gz is strange"})
    note_waiting(moved, 0, Away(moved.folder), taken)  # type: ignore[arg-type]
    assert moved.ledger.entries() == before


def test_all_that_people_had_to_do_is_back(campaign: Campaign) -> None:
    campaign.append("start", structures=[{"name": "liver", "label": 1}])
    campaign.append("selection", round=0, selected=["a"])
    campaign.append("awaiting", round=0, waits_for="label maps in done: a.nii.gz")
    campaign.append("skip", round=0, case_id="a", reason="motion")
    found = status(campaign)
    assert found["state"] == "all is back"
    root = f"--campaigns-root {campaign.folder.parent}"
    assert found["waits_for"].endswith(f"all annotations are back: sentinel-loop resume tiny {root}")


def test_a_campaign_is_named_as_commands_find_it(campaign: Campaign) -> None:
    assert named(replace(campaign, folder=Path("campaigns") / "tiny")) == "tiny"
    assert named(replace(campaign, folder=Path("my scans") / "tiny")) == "tiny --campaigns-root 'my scans'"


@pytest.mark.parametrize(
    ("event", "payload", "reads"),
    [
        ("selection", {"estimator": "oracle", "selected": ["a"]}, True),
        ("selection", {"estimator": "entropy", "selected": ["a"]}, False),
        ("selection", {"estimator": None, "selected": ["a"]}, False),
        ("promotion", {"estimator": "oracle", "reads_references": True, "masks": []}, True),
        ("promotion", {"estimator": "sentinel", "reads_references": False, "masks": []}, False),
    ],
)
def test_an_upper_bound_is_called_one(
    campaign: Campaign, event: str, payload: dict[str, object], reads: bool
) -> None:
    add_result(campaign, 0, 0.25)
    campaign.append(event, round=0, **payload)
    assert status(campaign)["reads_references"] is reads
    assert ("an upper bound" in shown(campaign)) is reads


def test_a_training_without_annotators_has_no_column_of_what_they_are_asked(campaign: Campaign) -> None:
    add_result(campaign, 0, 0.25)
    assert "selected" in shown(campaign)
    pseudo_labels = {"cases": 3, "masks": 7, "weight": 7.0}
    campaign.append(
        "result", **{**campaign.events("result")[0].payload, "round": 1}, pseudo_labels=pseudo_labels
    )
    assert "selected" not in shown(campaign)
    assert "pseudo labels" in shown(campaign)
    campaign.append("selection", round=1, estimator="entropy", selected=["b"])
    assert "selected" in shown(campaign)
