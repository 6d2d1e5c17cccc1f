"""Everything that a comparison's report says, computed from its tables. No pictures and no HTML here."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, permutations

import numpy as np
import pandas as pd

from cohort.comparison.contrasts import MEASURES, Contrast, contrast, corrected
from cohort.comparison.runs import ArmRuns
from cohort.comparison.summaries import ArmSummary, Saving, overlap, ranges, saving, summary
from flows.comparison_config import ComparisonConfig
from flows.comparison_tables import Tables, arm_runs, read_groups

SHOWN_CURRENCIES = ("cases", "structures", "slices", "minutes")
"""Currencies that the report has curves over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupFindings:
    """The arms on one group of the held-out cases.

    Args:
        name: of the group.
        runs: arm -> its runs, measured on the group's cases.
        alike: the same on the seeds that every arm has, see `Findings.alike`.
        summaries: of each arm.
        contrasts: of each arm with the control; exploratory, so not corrected.
    """

    name: str
    runs: Mapping[str, ArmRuns]
    alike: Mapping[str, ArmRuns]
    summaries: tuple[ArmSummary, ...]
    contrasts: tuple[Contrast, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a comparison found.

    Args:
        runs: arm -> its finished runs.
        alike: the same on the seeds that every arm has; all runs where there is no such seed.
        primary: the declared contrast, area and final DSC, corrected after Holm for the two; empty where none
            was declared or no pair is there.
        secondary: every other arm with the control, corrected after Holm.
        family: how many of these were planned.
        summaries: currency -> each arm.
        savings: each arm in each currency.
        pairwise: a row for each ordered pair of arms: share of seeds won, mean difference of areas, n.
        overlap: a row for each pair of arms: share of selected cases in common, mean over seeds, n.
        groups: of held-out cases; empty where the config names none.
    """

    runs: Mapping[str, ArmRuns]
    alike: Mapping[str, ArmRuns]
    primary: tuple[Contrast, ...]
    secondary: tuple[Contrast, ...]
    family: int
    summaries: Mapping[str, tuple[ArmSummary, ...]]
    savings: tuple[Saving, ...]
    pairwise: pd.DataFrame
    overlap: pd.DataFrame
    groups: tuple[GroupFindings, ...]


def declared_runs(findings: Findings) -> dict[str, ArmRuns]:
    """The two arms of the primary contrast on the seeds that it has so far; empty without any."""
    if not findings.primary:
        return {}
    first = findings.primary[0]
    return {arm: findings.runs[arm].of_seeds(first.seeds) for arm in (first.against, first.arm)}


def find(config: ComparisonConfig, tables: Tables) -> Findings:
    """Compute everything that the finished units can say."""
    runs, secondary = arm_runs(tables, config.arms), config.secondary_arms()
    family = len(secondary) * len(MEASURES)
    return Findings(
        runs=runs,
        alike=_alike(runs),
        primary=corrected(_primary(config, runs), len(MEASURES)),
        secondary=corrected(_with_control(config, runs, secondary), family),
        family=family,
        summaries={currency: _summaries(runs, currency) for currency in SHOWN_CURRENCIES},
        savings=_savings(config, runs),
        pairwise=_pairwise(config, runs),
        overlap=_overlap(tables.selections, list(runs)),
        groups=_groups(config, runs),
    )


def contrast_table(findings: Findings) -> pd.DataFrame:
    """All contrasts, a row each."""
    rows = [
        {"declared": declared, **contrast_row(each)}
        for declared, found in (("primary", findings.primary), ("secondary", findings.secondary))
        for each in found
    ]
    rows += [
        {"declared": f"exploratory: {group.name}", **contrast_row(each)}
        for group in findings.groups
        for each in group.contrasts
    ]
    return pd.DataFrame(rows)


def summary_table(findings: Findings) -> pd.DataFrame:
    """All arms in all currencies, a row each."""
    rows = [
        {"currency": currency, **asdict(each)}
        for currency, found in findings.summaries.items()
        for each in found
    ]
    return pd.DataFrame(rows)


def saving_table(findings: Findings) -> pd.DataFrame:
    """What each arm saves in each currency, a row each; minus infinity is "never got there"."""
    return pd.DataFrame([asdict(each) for each in findings.savings])


def contrast_row(found: Contrast) -> dict[str, object]:
    """A contrast as a row of a table."""
    values = asdict(found)
    values["seeds"] = " ".join(map(str, found.seeds))
    values["differences"] = " ".join(f"{value:.6f}" for value in found.differences)
    return {**values, "n": found.n, "won": found.won}


def _alike(runs: Mapping[str, ArmRuns]) -> dict[str, ArmRuns]:
    shared = set.intersection(*(set(each.seeds) for each in runs.values())) if runs else set()
    return {arm: each.of_seeds(sorted(shared)) if shared else each for arm, each in runs.items()}


def _primary(config: ComparisonConfig, runs: Mapping[str, ArmRuns]) -> tuple[Contrast, ...]:
    declared = config.primary
    if declared is None or declared.arm not in runs or declared.against not in runs:
        return ()
    found = (
        contrast(
            runs[declared.arm],
            runs[declared.against],
            measure=measure,
            currency=config.currency,
            among=config.primary_seeds,
        )
        for measure in MEASURES
    )
    return tuple(each for each in found if each is not None)


def _with_control(
    config: ComparisonConfig, runs: Mapping[str, ArmRuns], arms: Iterable[str]
) -> tuple[Contrast, ...]:
    """Contrasts of those of some arms that have finished runs, in each measure."""
    control = runs.get(config.control)
    if control is None:
        return ()
    found = (
        contrast(runs[arm], control, measure=measure, currency=config.axis(arm, config.control))
        for arm in arms
        if arm in runs
        for measure in MEASURES
    )
    return tuple(each for each in found if each is not None)


def _summaries(runs: Mapping[str, ArmRuns], currency: str) -> tuple[ArmSummary, ...]:
    within = ranges(list(runs.values()), currency)
    return tuple(summary(each, currency, within) for each in runs.values())


def _savings(config: ComparisonConfig, runs: Mapping[str, ArmRuns]) -> tuple[Saving, ...]:
    control = runs.get(config.control)
    if control is None:
        return ()
    found = (
        saving(each, control, currency)
        for arm, each in runs.items()
        if arm != config.control
        for currency in SHOWN_CURRENCIES
    )
    return tuple(each for each in found if each is not None)


def _pairwise(config: ComparisonConfig, runs: Mapping[str, ArmRuns]) -> pd.DataFrame:
    rows = []
    for first, second in permutations(runs, 2):
        currency = config.axis(first, second)
        found = contrast(runs[first], runs[second], measure="area", currency=currency)
        if found is not None:
            rows.append(
                {
                    "arm": first,
                    "against": second,
                    "won": found.won,
                    "difference": found.difference,
                    "n": found.n,
                }
            )
    return pd.DataFrame(rows, columns=["arm", "against", "won", "difference", "n"])


def _overlap(selections: pd.DataFrame, arms: Sequence[str]) -> pd.DataFrame:
    chosen: dict[tuple[str, int], list[str]] = {}
    if not selections.empty:
        for row in selections.itertuples():
            chosen.setdefault((str(row.arm), int(str(row.seed))), []).append(str(row.case_id))
    rows = []
    for first, second in combinations(arms, 2):
        shared = [
            overlap(cases, chosen[second, seed])
            for (arm, seed), cases in chosen.items()
            if arm == first and (second, seed) in chosen
        ]
        if shared:
            rows.append(
                {"arm": first, "against": second, "overlap": float(np.mean(shared)), "n": len(shared)}
            )
    return pd.DataFrame(rows, columns=["arm", "against", "overlap", "n"])


def _groups(config: ComparisonConfig, runs: Mapping[str, ArmRuns]) -> tuple[GroupFindings, ...]:
    if config.groups is None or not runs:
        return ()
    cases = next(iter(runs.values())).cases
    return tuple(_group(config, runs, name, ids) for name, ids in read_groups(config.groups, cases).items())


def _group(
    config: ComparisonConfig, runs: Mapping[str, ArmRuns], name: str, cases: Iterable[str]
) -> GroupFindings:
    wanted = tuple(cases)
    part = {arm: each.of_cases(wanted) for arm, each in runs.items()}
    return GroupFindings(
        name=name,
        runs=part,
        alike=_alike(part),
        summaries=_summaries(part, config.currency),
        contrasts=_with_control(config, part, [arm for arm in part if arm != config.control]),
    )
