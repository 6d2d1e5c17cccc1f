"""What the finished campaigns of a comparison hold, as tidy tables: one row an observation."""

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from cohort.budget import CURRENCIES
from cohort.comparison.runs import ArmRuns
from cohort.errors import CampaignError, DataError
from cohort.volume import write_bytes
from flows import campaign as campaigns
from flows import rounds
from flows.campaign import Campaign
from flows.comparison_config import Unit, pairs_arms

Metric = Literal["dsc", "nsd"]

NO_GROUP = "not named"
_SAME_EVERYWHERE = ("dataset_sha256", "held_out", "structures")
_SAME_FOR_A_SEED = ("start", "pool")
OTHER_SETTINGS = "made with another configuration"
"""State of a unit that differs in a key that pairs arms, and so is in no table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """The tables of a comparison; each begins with `arm` and `seed`.

    Args:
        units: a row a unit: state, `reads_references`, rounds measured and planned, why it ended, hash of
            round 0's checkpoint, what made it, and what its configuration says differently now.
        rounds: a row a measured round: what was spent in every currency, DSC and NSD.
        results: a row a round, held-out case and structure: DSC and NSD.
        selections: a row a selected case: round and rank.
        trials: a row a round in which the estimator was on trial: how its values agreed with revealed DSC.
        filters: a row a generation of a semi-supervised training: what its filter kept, of how many cases,
            and how good that is.
    """

    units: pd.DataFrame
    rounds: pd.DataFrame
    results: pd.DataFrame
    selections: pd.DataFrame
    trials: pd.DataFrame
    filters: pd.DataFrame


def read_tables(units: Sequence[Unit]) -> Tables:
    """Read every finished unit, unless it was made with another value of a key that pairs arms.

    Raises:
        CampaignError: for campaigns that are not paired: other data, held-out cases, structures, or another
            start.
    """
    found = {unit.name: _opened(unit) for unit in units}
    changes = {unit.name: campaigns.changes(unit.config) for unit in units}
    finished = [
        (unit, each)
        for unit in units
        if (each := found[unit.name]) and each.event("finished") and not _is_no_pair(changes[unit.name])
    ]
    _check_paired(finished)
    return Tables(
        units=_table([_unit_row(unit, found[unit.name], changes[unit.name]) for unit in units]),
        rounds=_gathered(finished, _round_rows),
        results=_gathered(finished, _result_rows),
        selections=_gathered(finished, _selection_rows),
        trials=_gathered(finished, _trial_rows),
        filters=_gathered(finished, _filter_rows),
    )


def arm_runs(tables: Tables, arms: Iterable[str], metric: Metric = "dsc") -> dict[str, ArmRuns]:
    """The runs of each arm that has finished some, cut to the rounds that every run of the arm has.

    Args:
        tables: of the comparison.
        arms: names, in the order to give them in.
        metric: what was measured.
    """
    if tables.rounds.empty:
        return {}
    counts = tables.rounds.groupby(["arm", "seed"], sort=False)["round"].nunique()
    cases = tuple(dict.fromkeys(tables.results["case_id"]))
    structures = tuple(dict.fromkeys(tables.results["structure"]))
    number = {str(arm): int(found.min()) for arm, found in counts.groupby(level="arm")}
    return {arm: _runs(tables, arm, metric, number[arm], cases, structures) for arm in arms if arm in number}


def read_groups(path: Path, cases: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Group -> the held-out cases in it, in the order of the cases.

    Args:
        path: of a table with the columns `case_id` and `group`.
        cases: ids of the held-out cases; one without a group is in "not named".

    Raises:
        DataError: for a table that is missing, lacks a column or names a case twice.
    """
    try:
        table = pd.read_csv(path, dtype=str)
    except (OSError, ValueError) as error:
        raise DataError(f"The table of groups {path} cannot be read: {error}") from error
    missing = [name for name in ("case_id", "group") if name not in table.columns]
    if missing:
        raise DataError(f"The table of groups {path} has no column {', '.join(missing)}")
    if table["case_id"].duplicated().any():
        twice = sorted(set(table.loc[table["case_id"].duplicated(), "case_id"]))
        raise DataError(f"The table of groups {path} names cases twice: {', '.join(twice[:5])}")
    named = dict(zip(table["case_id"], table["group"].fillna(NO_GROUP), strict=True))
    groups: dict[str, list[str]] = {}
    for case_id in cases:
        groups.setdefault(str(named.get(case_id, NO_GROUP)), []).append(case_id)
    return {name: tuple(groups[name]) for name in sorted(groups)}


def write_tables(folder: Path, tables: Mapping[str, pd.DataFrame]) -> None:
    """Write each table as CSV and as Parquet, atomically; those of an earlier report go."""
    for path in [*folder.glob("*.csv"), *folder.glob("*.parquet")]:
        if path.stem not in tables:
            path.unlink()
    for name, table in tables.items():
        write_bytes(folder / f"{name}.csv", table.to_csv(index=False).encode())
        buffer = io.BytesIO()
        table.to_parquet(buffer, index=False)
        write_bytes(folder / f"{name}.parquet", buffer.getvalue())


def _opened(unit: Unit) -> Campaign | None:
    if not (unit.folder / campaigns.CONFIG).is_file():
        return None
    return campaigns.open_campaign(unit.folder)


def _is_no_pair(changes: Sequence[str]) -> bool:
    """Whether a unit was made with another value of a key that pairs arms."""
    return any(pairs_arms(change.split(":")[0]) for change in changes)


def _check_paired(finished: Sequence[tuple[Unit, Campaign]]) -> None:
    first: dict[tuple[str, int | None], tuple[str, Any]] = {}
    for unit, campaign in finished:
        begun = _start(campaign)
        for keys, seed in ((_SAME_EVERYWHERE, None), (_SAME_FOR_A_SEED, unit.seed)):
            for key in keys:
                name, value = first.setdefault((key, seed), (unit.name, begun[key]))
                if value != begun[key]:
                    raise CampaignError(
                        f"{name} and {unit.name} cannot be compared: {key} differs between their ledgers; "
                        "run the one with the wrong data again, in an empty folder"
                    )


def _start(campaign: Campaign) -> Mapping[str, Any]:
    begun = campaign.event("start")
    if begun is None:
        raise CampaignError(f"The ledger of {campaign.folder} has no start; restore it from a copy")
    return begun.payload


def _unit_row(unit: Unit, campaign: Campaign | None, changes: Sequence[str]) -> dict[str, Any]:
    started = campaign is not None and campaign.event("start") is not None
    begun = _start(campaign) if campaign is not None and started else {}
    results = campaign.events("result") if campaign is not None else []
    ended = campaign.event("finished") if campaign is not None else None
    return {
        "arm": unit.arm,
        "seed": unit.seed,
        "campaign": unit.name,
        "state": _state(campaign, changes),
        "changed": "; ".join(changes),
        "reads_references": unit.reads_references,
        "rounds": len(results),
        "planned": unit.rounds,
        "ended": str(ended.payload.get("why", "")) if ended is not None else "",
        "round_zero_sha256": str(results[0].payload.get("checkpoint_sha256", "")) if results else "",
        "dataset": begun.get("dataset", ""),
        "dataset_sha256": begun.get("dataset_sha256", ""),
        "config_sha256": begun.get("config_sha256", ""),
        "code_version": begun.get("code_version", ""),
    }


def _state(campaign: Campaign | None, changes: Sequence[str]) -> str:
    if campaign is None:
        return "not started"
    return OTHER_SETTINGS if _is_no_pair(changes) else campaigns.state(campaign)


def _gathered(
    finished: Sequence[tuple[Unit, Campaign]], rows: Callable[[Campaign], Iterable[dict[str, Any]]]
) -> pd.DataFrame:
    return _table(
        [{"arm": unit.arm, "seed": unit.seed, **row} for unit, campaign in finished for row in rows(campaign)]
    )


def _table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=None if rows else ["arm", "seed"])


def _round_rows(campaign: Campaign) -> Iterable[dict[str, Any]]:
    for entry in campaign.events("result"):
        found = entry.payload
        yield {
            "round": found["round"],
            "labelled_cases": found["labelled_cases"],
            **{currency: found["budget"][currency] for currency in CURRENCIES},
            "dsc": found["dsc"],
            "nsd": found["nsd"],
        }


def _result_rows(campaign: Campaign) -> Iterable[dict[str, Any]]:
    for entry in campaign.events("result"):
        number = entry.payload["round"]
        paths = sorted(campaign.round_folder(number).glob(f"evaluate-*/{rounds.RESULTS}"))
        if not paths:
            raise CampaignError(
                f"Round {number} of {campaign.folder} has a result, but its table {rounds.RESULTS} is gone; "
                "restore it from a copy"
            )
        for result in rounds.read_results(paths[-1]):
            yield {
                "round": number,
                "case_id": result.case_id,
                "structure": result.structure,
                "dsc": result.dsc,
                "nsd": result.nsd,
            }


def _selection_rows(campaign: Campaign) -> Iterable[dict[str, Any]]:
    for entry in campaign.events("selection"):
        found = entry.payload
        for rank, case_id in enumerate(found["selected"], start=1):
            yield {
                "round": found["round"],
                "rank": rank,
                "case_id": case_id,
                "strategy": found.get("used_strategy", found["strategy"]),
                "fell_back": found.get("used_strategy", found["strategy"]) != found["strategy"],
            }


def _trial_rows(campaign: Campaign) -> Iterable[dict[str, Any]]:
    for entry in campaign.events("trial"):
        found = entry.payload["estimator"]
        if found:
            yield {"round": entry.payload["round"], **found}


def _filter_rows(campaign: Campaign) -> Iterable[dict[str, Any]]:
    promoted = {e.payload["round"]: e.payload["masks"] for e in campaign.events("promotion")}
    for entry in campaign.events("trial"):
        if "filter" in entry.payload:
            number = entry.payload["round"]
            cases = {mask["case_id"] for mask in promoted.get(number, ())}
            yield {"round": number, "kept_cases": float(len(cases)), **entry.payload["filter"]}


def _runs(
    tables: Tables, arm: str, metric: str, number: int, cases: tuple[str, ...], structures: tuple[str, ...]
) -> ArmRuns:
    spent = tables.rounds[(tables.rounds["arm"] == arm) & (tables.rounds["round"] < number)]
    seeds = tuple(int(seed) for seed in dict.fromkeys(spent["seed"]))
    measured = tables.results[(tables.results["arm"] == arm) & (tables.results["round"] < number)]
    places = [
        measured[column].map({name: place for place, name in enumerate(names)}).to_numpy()
        for column, names in (("seed", seeds), ("case_id", cases), ("structure", structures))
    ]
    found = np.full((len(seeds), number, len(cases), len(structures)), np.nan)
    found[places[0], measured["round"].to_numpy(), places[1], places[2]] = measured[metric].to_numpy()
    return ArmRuns(
        arm=arm,
        seeds=seeds,
        cases=cases,
        structures=structures,
        spent={
            currency: spent.pivot(index="seed", columns="round", values=currency).loc[list(seeds)].to_numpy()
            for currency in CURRENCIES
        },
        dsc=found,
    )
