"""Tests and intervals of paired differences, one difference a seed."""

import math
from collections.abc import Sequence
from itertools import product

import numpy as np
from scipy import stats

from cohort.comparison.runs import Values
from cohort.seeds import generator

MIN_PAIRS_FOR_RANKS = 6
"""With fewer pairs the smallest possible p of a two-sided rank test, 2 / 2^n, is above 0.05."""

_EXACT_PAIRS = 16
_DRAWS = 20_000


def paired_t_p(differences: Sequence[float]) -> float:
    """Two-sided p of the paired t-test.

    Returns:
        NaN for fewer than two differences, or where all are the same and not 0; 1 where all are 0.
    """
    values = np.asarray(differences, dtype=np.float64)
    if len(values) < 2:
        return math.nan
    if float(np.ptp(values)) == 0.0:
        return 1.0 if values[0] == 0.0 else math.nan
    statistic = float(values.mean()) / (float(values.std(ddof=1)) / math.sqrt(len(values)))
    return float(2.0 * stats.t.sf(abs(statistic), len(values) - 1))


def t_interval(differences: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Interval of the mean difference over seeds, from Student's distribution; NaN for fewer than two."""
    values = np.asarray(differences, dtype=np.float64)
    if len(values) < 2:
        return math.nan, math.nan
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    half = float(stats.t.ppf(0.5 + level / 2.0, len(values) - 1)) * error
    return float(values.mean()) - half, float(values.mean()) + half


def signed_rank_p(differences: Sequence[float], seed: int = 0) -> float:
    """Two-sided p of Wilcoxon's signed-rank test, from all ways to flip signs.

    Differences of 0 are dropped, equal ones share their rank. With more than 16 pairs, 20,000 flips are
    drawn.

    Args:
        differences: one a pair.
        seed: of the draws.

    Returns:
        NaN for no difference at all, or where one is NaN; 1 where all are 0. The smallest value is 2 / 2^n.

    Source: Wilcoxon, "Individual comparisons by ranking methods", 1945.

    >>> signed_rank_p([0.1, 0.2, 0.3, 0.4])
    0.125
    """
    values = np.asarray(differences, dtype=np.float64)
    if not len(values) or bool(np.isnan(values).any()):
        return math.nan
    values = values[values != 0.0]
    if not len(values):
        return 1.0
    ranks = stats.rankdata(np.abs(values))
    observed = abs(float(ranks @ np.sign(values)))
    totals = np.abs(_flips(len(values), seed) @ ranks)
    at_least = int((totals >= observed - 1e-9).sum())
    if len(values) <= _EXACT_PAIRS:
        return at_least / len(totals)
    return (at_least + 1) / (len(totals) + 1)


def _flips(number: int, seed: int) -> Values:
    """Signs of `number` differences: all of them, or draws."""
    if number <= _EXACT_PAIRS:
        return np.array(list(product((-1.0, 1.0), repeat=number)))
    drawn = generator(seed, "sign flips").choice((-1.0, 1.0), size=(_DRAWS, number))
    return np.asarray(drawn, dtype=np.float64)
