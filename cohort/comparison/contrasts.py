"""Two arms over paired seeds: differences, their intervals and tests, and correction for their number."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from cohort.comparison import paired
from cohort.comparison.bootstrap import Resample, interval, resample
from cohort.comparison.curves import area_weights, common_range, height_weights
from cohort.comparison.runs import ArmRuns, Values, weighted_curves
from cohort.groups import holm

Measure = Literal["area", "final", "final_nsd"]

_UNKNOWN = (math.nan, math.nan)

MEASURES: tuple[Measure, ...] = ("area", "final")
"""Of a campaign: the area under the budget curve, and the DSC where it ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """How much better an arm is than another.

    Args:
        arm: name.
        against: name of the other arm.
        measure: what was compared.
        currency: of the area's axis.
        seeds: (n,) that both arms were run with.
        differences: (n,) arm minus other arm, in DSC (or NSD).
        difference: their mean.
        lower: of the bootstrap over seeds and held-out cases, 95 %; NaN for one seed, from which no other
            seeds can be drawn.
        upper: likewise.
        t_lower: of Student's interval over seeds, 95 %; NaN for one seed.
        t_upper: likewise.
        t_p: of the paired t-test, two-sided.
        rank_p: of the signed-rank test, two-sided.
        holm_p: `t_p` corrected for the number of contrasts in its family; NaN where that was not asked for.
    """

    arm: str
    against: str
    measure: Measure
    currency: str
    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    difference: float
    lower: float
    upper: float
    t_lower: float
    t_upper: float
    t_p: float
    rank_p: float
    holm_p: float = math.nan

    @property
    def n(self) -> int:
        """Pairs."""
        return len(self.seeds)

    @property
    def won(self) -> float:
        """Share of the seeds in which the arm is the better one; a tie is half, NaN if one is unknown."""
        return float(np.mean([0.5 * (1.0 + np.sign(difference)) for difference in self.differences]))

    @property
    def ranks_can_tell(self) -> bool:
        """Whether there are enough pairs for a rank test to come below 0.05 at all."""
        return self.n >= paired.MIN_PAIRS_FOR_RANKS


def shared_seeds(first: ArmRuns, second: ArmRuns, among: Sequence[int] | None = None) -> tuple[int, ...]:
    """Seeds that both arms were run with, in order."""
    return tuple(
        seed for seed in sorted(first.seeds) if seed in second.seeds and (among is None or seed in among)
    )


def contrast(
    arm: ArmRuns,
    against: ArmRuns,
    *,
    measure: Measure,
    currency: str,
    among: Sequence[int] | None = None,
    seed: int = 0,
) -> Contrast | None:
    """Compare two arms on the seeds that both have.

    The areas of a pair are taken over the stretch of the cost axis that both of its runs cover, and the final
    values where it ends: after equal cost, also where one arm spent more a round or had more rounds. What
    other arms there are does not matter.

    Args:
        arm: the first.
        against: the second, measured on the same held-out cases.
        measure: what to compare; for "final_nsd" both runs hold NSD.
        currency: of the cost axis.
        among: seeds to take, all that both have by default.
        seed: of the bootstrap.

    Returns:
        None where no seed is shared.
    """
    seeds = shared_seeds(arm, against, among)
    if not seeds:
        return None
    first, second = arm.of_seeds(seeds), against.of_seeds(seeds)
    weights = _weights(first, second, measure, currency)
    differences = _difference(weights, first.curves(), second.curves())
    drawn = resample(len(seeds), len(first.cases), seed=seed)
    lower, upper = interval(_drawn_differences(weights, first, second, drawn)) if len(seeds) > 1 else _UNKNOWN
    t_lower, t_upper = paired.t_interval(differences.tolist())
    return Contrast(
        arm=arm.arm,
        against=against.arm,
        measure=measure,
        currency=currency,
        seeds=seeds,
        differences=tuple(float(value) for value in differences),
        difference=float(differences.mean()),
        lower=lower,
        upper=upper,
        t_lower=t_lower,
        t_upper=t_upper,
        t_p=paired.paired_t_p(differences.tolist()),
        rank_p=paired.signed_rank_p(differences.tolist()),
    )


def corrected(contrasts: Sequence[Contrast], family: int) -> tuple[Contrast, ...]:
    """The same contrasts with p of the t-test corrected after Holm.

    Args:
        contrasts: those that can be computed so far.
        family: how many were planned; those that are missing, or have no p yet, count as if they had p = 1.
    """
    p_values = [found.t_p for found in contrasts]
    missing = family - sum(not math.isnan(p) for p in p_values)
    adjusted = holm([*p_values, *[1.0] * missing])[: len(contrasts)]
    return tuple(replace(found, holm_p=p) for found, p in zip(contrasts, adjusted, strict=True))


def _weights(first: ArmRuns, second: ArmRuns, measure: Measure, currency: str) -> tuple[Values, Values]:
    """(S, R) of each arm: weights of the rounds in the measure."""
    found: tuple[list[Values], list[Values]] = ([], [])
    for both in zip(first.spent[currency], second.spent[currency], strict=True):
        lower, upper = common_range(both)
        for spent, weights in zip(both, found, strict=True):
            weights.append(
                area_weights(spent, lower, upper) if measure == "area" else height_weights(spent, upper)
            )
    return np.stack(found[0]), np.stack(found[1])


def _difference(weights: tuple[Values, Values], first: Values, second: Values) -> Values:
    """(..., S, R) curves of both arms -> (..., S) differences."""
    found: Values = (weights[0] * first).sum(axis=-1) - (weights[1] * second).sum(axis=-1)
    return found


def _drawn_differences(
    weights: tuple[Values, Values], first: ArmRuns, second: ArmRuns, drawn: Resample
) -> Values:
    curves = [weighted_curves(runs.dsc, drawn.cases) for runs in (first, second)]
    return drawn.over_seeds(_difference(weights, curves[0], curves[1]))
