"""Whether predicted quality differs between groups of cases: sex, age, scanner."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from cohort.errors import DataError

OVERALL = "all structures"
MIN_CASES = 5
BINS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One group of cases.

    Args:
        name: value of the column, or range of values.
        cases: with a score.
        mean: of the predicted DSC.
        median: of the predicted DSC.
    """

    name: str
    cases: int
    mean: float
    median: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupComparison:
    """Groups of one structure, and a test of whether they differ.

    Args:
        column: of the metadata.
        structure: name, or "all structures": the mean over the masks of each case.
        groups: in the order of their values.
        test: "Mann-Whitney U", "Kruskal-Wallis", or "" where none is possible.
        p: of the test, corrected after Holm over the structures; NaN where none is possible.
        left_out: cases without a value in the column, and those of groups too small to test.
    """

    column: str
    structure: str
    groups: tuple[Group, ...]
    test: str
    p: float
    left_out: int


def compare_groups(
    table: pd.DataFrame, column: str, *, value: str = "predicted_dsc"
) -> tuple[GroupComparison, ...]:
    """Compare groups of cases, overall and for each structure.

    Cases are the units: overall, a case counts once, with the mean of its masks relative to what is usual
    for each structure, so that cases with other structures in view are not taken for worse ones.

    Args:
        table: a row per mask with case_id, structure, the value and the column.
        column: of groups; numbers with many values are cut at their quartiles.
        value: to compare.

    Returns:
        "all structures" first, then each structure.

    Raises:
        DataError: for a column that is not there.
    """
    for name in ("case_id", "structure", value, column):
        if name not in table.columns:
            raise DataError(f"The table has no column {name!r}; it has {', '.join(map(str, table.columns))}")
    known = table[table[value].notna()].copy()
    by_case, order = _groups(known.groupby("case_id")[column].first())
    known["group"] = known["case_id"].map(by_case)
    usual = known.groupby("structure")[value].transform("mean")
    known["relative"] = known[value] - usual + float(known[value].mean())
    overall = known.groupby("case_id").agg(value=("relative", "mean"), group=("group", "first"))
    compared = _compare(overall["value"], overall["group"], order, column, OVERALL)
    each = [
        _compare(masks[value], masks["group"], order, column, str(name))
        for name, masks in known.groupby("structure")
    ]
    corrected = holm([found.p for found in each])
    return (
        compared,
        *(_with_p(found, p) for found, p in zip(each, corrected, strict=True)),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number; NaN stays and does not count.

    Source: Holm, "A simple sequentially rejective multiple test procedure", 1979.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    known = [i for i, p in enumerate(p_values) if not math.isnan(p)]
    corrected, largest = list(p_values), 0.0
    for rank, i in enumerate(sorted(known, key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(known) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def _groups(values: pd.Series) -> tuple[pd.Series, list[str]]:
    """The name of each case's group, and these in order; numbers with many values are cut at quartiles."""
    if pd.api.types.is_numeric_dtype(values) and values.nunique() > BINS:
        edges = np.unique(np.nanquantile(values.to_numpy(dtype=float), np.linspace(0.0, 1.0, BINS + 1)))
        place = np.clip(
            np.searchsorted(edges, values.to_numpy(dtype=float), side="right") - 1, 0, len(edges) - 2
        )
        width = len(str(len(edges)))
        names = [f"{i + 1:0{width}d}: {edges[i]:g} to {edges[i + 1]:g}" for i in range(len(edges) - 1)]
        cut = pd.Series([names[i] for i in place], index=values.index, dtype=object)
        return cut.where(values.notna(), None), names
    known = values.dropna().unique()
    if pd.api.types.is_numeric_dtype(values):
        named = {found: str(found).removesuffix(".0") for found in sorted(known)}
    else:
        named = {found: str(found) for found in sorted(known, key=str)}
    return values.map(named.get).astype(object), list(named.values())


def _compare(
    values: pd.Series, group: pd.Series, order: Sequence[str], column: str, structure: str
) -> GroupComparison:
    found = {name: values[group == name] for name in order if (group == name).any()}
    tested = [each.to_numpy(dtype=float) for each in found.values() if len(each) >= MIN_CASES]
    small = sum(len(each) for each in found.values() if len(each) < MIN_CASES)
    test, p = _test(tested)
    return GroupComparison(
        column=column,
        structure=structure,
        groups=tuple(
            Group(name=name, cases=len(each), mean=float(each.mean()), median=float(each.median()))
            for name, each in found.items()
        ),
        test=test,
        p=p,
        left_out=int(group.isna().sum()) + small,
    )


def _test(groups: Sequence[np.ndarray]) -> tuple[str, float]:
    if len(groups) < 2 or len(np.unique(np.concatenate(groups))) < 2:
        return "", math.nan
    if len(groups) == 2:
        return "Mann-Whitney U", float(stats.mannwhitneyu(groups[0], groups[1]).pvalue)
    return "Kruskal-Wallis", float(stats.kruskal(*groups).pvalue)


def _with_p(found: GroupComparison, p: float) -> GroupComparison:
    return GroupComparison(
        column=found.column,
        structure=found.structure,
        groups=found.groups,
        test=found.test,
        p=p,
        left_out=found.left_out,
    )
