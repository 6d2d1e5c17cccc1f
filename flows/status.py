"""Where a campaign stands, from its ledger: as plain values, and as a table for people."""

import shlex
from typing import Any

from rich.table import Table

from flows.campaign import Campaign, failure, state
from flows.console import DEFAULT_ROOT
from flows.portable import placed
from sentinel.estimators.registry import estimator_entry


def status(campaign: Campaign) -> dict[str, Any]:
    """What `sentinel-loop status --json` prints.

    Returns:
        "campaign", "state", "waits_for", "reads_references" (what chose cases or pseudo-labels read
        references that only annotation could reveal, so that this is an upper bound) and "rounds", each with
        "round", "labelled_cases", "budget", "dsc", "nsd", "pseudo_labels" (cases, masks and weight, where a
        campaign has any), "selected" (case ids in rank order, empty for the last round) and "estimator" (its
        agreement with the DSC that annotation revealed, empty where nothing was scored).
    """
    rounds = []
    for result in campaign.events("result"):
        found = result.payload
        number = found["round"]
        selection, trial = campaign.event("selection", number), campaign.event("trial", number)
        rounds.append(
            {
                "round": number,
                "labelled_cases": found["labelled_cases"],
                "budget": found["budget"],
                "dsc": found["dsc"],
                "nsd": found["nsd"],
                "selected": selection.payload["selected"] if selection else [],
                "estimator": trial.payload["estimator"] if trial else {},
                **({"pseudo_labels": found["pseudo_labels"]} if "pseudo_labels" in found else {}),
            }
        )
    current = state(campaign)
    return {
        "campaign": campaign.name,
        "state": current,
        "failure": failure(campaign.folder) if current == "failed" else None,
        "waits_for": _waits_for(campaign, current),
        "reads_references": _reads_references(campaign),
        "rounds": rounds,
    }


def named(campaign: Campaign) -> str:
    """A campaign as a command takes it: its name, and where it lies unless that is where a command looks."""
    where = campaign.folder.parent
    root = "" if where == DEFAULT_ROOT else f" --campaigns-root {shlex.quote(str(where))}"
    return f"{shlex.quote(campaign.name)}{root}"


def table(found: dict[str, Any]) -> Table:
    """The rounds of a campaign, for a terminal."""
    shown = Table(title=f"{found['campaign']}: {found['state']}", title_justify="left", header_style="bold")
    for name in ("round", "labelled", "minutes", "DSC", "NSD"):
        shown.add_column(name, justify="right", no_wrap=True)
    pseudo = any("pseudo_labels" in row for row in found["rounds"])
    selects = not pseudo or any(row["selected"] for row in found["rounds"])  # a training never does
    if pseudo:
        shown.add_column("pseudo labels", justify="right")
    if selects:
        shown.add_column("selected")
    shown.add_column("estimator")
    for row in found["rounds"]:
        masks = [str(row["pseudo_labels"]["masks"])] if "pseudo_labels" in row else []
        shown.add_row(
            str(row["round"]),
            str(row["labelled_cases"]),
            f"{row['budget']['minutes']:.0f}",
            _number(row["dsc"]),
            _number(row["nsd"]),
            *masks,
            *([_first(row["selected"])] if selects else []),
            _trial(row["estimator"]),
        )
    if found["reads_references"]:
        shown.caption = "Reads references of cases that nobody annotated: an upper bound, in simulation only."
        shown.caption_justify = "left"
    return shown


def _reads_references(campaign: Campaign) -> bool:
    estimators = (entry.payload.get("estimator") for entry in campaign.events("selection"))
    return any(name is not None and estimator_entry(name).reads_references for name in estimators) or any(
        entry.payload.get("reads_references") for entry in campaign.events("promotion")
    )


def _first(case_ids: list[str], number: int = 2) -> str:
    """The first ids, and how many more."""
    more = len(case_ids) - number
    return ", ".join(case_ids[:number]) + (f" and {more} more" if more > 0 else "") or "-"


def _waits_for(campaign: Campaign, current: str) -> str:
    """What has to happen before a campaign in some state can go on."""
    if current == "awaiting annotation":
        return placed(campaign.ledger.entries()[-1].payload["waits_for"], campaign.folder)
    if current == "all is back":
        return f"you to go on, all annotations are back: sentinel-loop resume {named(campaign)}"
    if current in ("failed", "interrupted"):
        return "the command that started it: run it again and the campaign goes on where it was"
    return ""


def _trial(estimator: dict[str, Any]) -> str:
    if not estimator:
        return "-"
    shown = [
        f"{name} {estimator[name]:.2f}"
        for name in ("spearman", "pearson", "mae")
        if estimator.get(name) is not None
    ]
    return ", ".join([*shown, f"n {estimator['n']}"])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
