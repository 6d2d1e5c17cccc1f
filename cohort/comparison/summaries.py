"""One arm over its seeds: mean curves with intervals, areas, final DSC, and what it saves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cohort.comparison.bootstrap import interval, resample
from cohort.comparison.contrasts import shared_seeds
from cohort.comparison.curves import area_weights, common_range, saved
from cohort.comparison.runs import ArmRuns, Values, weighted_curves


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """A mean curve over seeds: an arm's DSC, or the difference of two arms.

    Args:
        spent: (R,) mean over seeds.
        dsc: (R,) mean over seeds.
        lower: (R,) of the bootstrap over seeds and held-out cases, 95 %.
        upper: likewise.
    """

    spent: tuple[float, ...]
    dsc: tuple[float, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmSummary:
    """An arm in numbers.

    Args:
        arm: name.
        n: seeds.
        area: mean over seeds of the area under the budget curve, as a mean DSC.
        area_sd: between seeds, NaN for one.
        area_lower: of the bootstrap over seeds and held-out cases, 95 %.
        area_upper: likewise.
        final: mean DSC of the last round.
        final_sd: between seeds, NaN for one.
        final_lower: of the bootstrap, 95 %.
        final_upper: likewise.
        spent: mean over seeds until the last round's training.
    """

    arm: str
    n: int
    area: float
    area_sd: float
    area_lower: float
    area_upper: float
    final: float
    final_sd: float
    final_lower: float
    final_upper: float
    spent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Saving:
    """What an arm saves on the way to the control's final DSC.

    Args:
        arm: name.
        control: name.
        currency: of the saving.
        n: paired seeds.
        saved: by the mean curves over seeds; minus infinity where the arm never got there.
        lower: of the bootstrap over seeds and held-out cases, 95 %; minus infinity where that many draws are.
        upper: likewise.
        reached: share of the draws in which the arm got there.
        seeds_reached: seeds in which the arm alone got to what the control had at the end of that seed.
    """

    arm: str
    control: str
    currency: str
    n: int
    saved: float
    lower: float
    upper: float
    reached: float
    seeds_reached: int


def band(runs: ArmRuns, currency: str, *, seed: int = 0) -> Band:
    """The mean curve of an arm."""
    drawn = resample(len(runs.seeds), len(runs.cases), seed=seed)
    curves = drawn.over_seeds(weighted_curves(runs.dsc, drawn.cases))
    ends = [interval(curves[:, number]) for number in range(runs.rounds)]
    return Band(
        spent=_floats(runs.spent[currency].mean(axis=0)),
        dsc=_floats(runs.curves().mean(axis=0)),
        lower=tuple(lower for lower, _ in ends),
        upper=tuple(upper for _, upper in ends),
    )


def difference_band(runs: ArmRuns, control: ArmRuns, currency: str, *, seed: int = 0) -> Band | None:
    """The mean difference of two arms' DSC round by round, on the seeds that both have; None without any.

    Both arms get the same draws, so what is hard about a seed or a case does not widen the band; for one seed
    there is none. What was spent is that of the first arm. Where one arm has more rounds, they are left out.
    """
    seeds = shared_seeds(runs, control)
    if not seeds:
        return None
    first, second = runs.of_seeds(seeds), control.of_seeds(seeds)
    drawn = resample(len(seeds), len(first.cases), seed=seed)
    rounds = min(first.rounds, second.rounds)
    sampled = [weighted_curves(each.dsc[:, :rounds], drawn.cases) for each in (first, second)]
    curves = drawn.over_seeds(sampled[0] - sampled[1]) if len(seeds) > 1 else np.full((1, rounds), np.nan)
    ends = [interval(curves[:, number]) for number in range(rounds)]
    return Band(
        spent=_floats(first.spent[currency].mean(axis=0)[:rounds]),
        dsc=_floats((first.curves()[:, :rounds] - second.curves()[:, :rounds]).mean(axis=0)),
        lower=tuple(lower for lower, _ in ends),
        upper=tuple(upper for _, upper in ends),
    )


def ranges(arms: Sequence[ArmRuns], currency: str) -> dict[int, tuple[float, float]]:
    """Seed -> stretch of the cost axis that all arms of that seed cover."""
    spent: dict[int, list[Values]] = {}
    for runs in arms:
        for seed, curve in zip(runs.seeds, runs.spent[currency], strict=True):
            spent.setdefault(seed, []).append(curve)
    return {seed: common_range(curves) for seed, curves in sorted(spent.items())}


def summary(
    runs: ArmRuns, currency: str, within: Mapping[int, tuple[float, float]], *, seed: int = 0
) -> ArmSummary:
    """An arm's area and final DSC.

    Args:
        runs: of the arm.
        currency: of the cost axis.
        within: seed -> range of the axis to take the area over.
        seed: of the bootstrap.
    """
    weights = np.stack(
        [
            area_weights(spent, *within[number])
            for number, spent in zip(runs.seeds, runs.spent[currency], strict=True)
        ]
    )
    curves = runs.curves()
    areas, finals = (weights * curves).sum(axis=1), curves[:, -1]
    drawn = resample(len(runs.seeds), len(runs.cases), seed=seed)
    sampled = weighted_curves(runs.dsc, drawn.cases)
    area_lower, area_upper = interval(drawn.over_seeds((weights * sampled).sum(axis=2)))
    final_lower, final_upper = interval(drawn.over_seeds(sampled[:, :, -1]))
    return ArmSummary(
        arm=runs.arm,
        n=len(runs.seeds),
        area=float(areas.mean()),
        area_sd=_sd(areas),
        area_lower=area_lower,
        area_upper=area_upper,
        final=float(finals.mean()),
        final_sd=_sd(finals),
        final_lower=final_lower,
        final_upper=final_upper,
        spent=float(runs.spent[currency][:, -1].mean()),
    )


def saving(runs: ArmRuns, control: ArmRuns, currency: str, *, seed: int = 0) -> Saving | None:
    """What an arm saves, on the seeds that both have; None where there is none.

    Curves are averaged over seeds round by round first, because single runs are too rough for the place where
    two of them cross.
    """
    seeds = shared_seeds(runs, control)
    if not seeds:
        return None
    first, second = runs.of_seeds(seeds), control.of_seeds(seeds)
    costs = (first.spent[currency], second.spent[currency])
    curves = (first.curves(), second.curves())
    drawn = resample(len(seeds), len(first.cases), seed=seed)
    mean_costs = [drawn.over_seeds(np.broadcast_to(cost, (len(drawn.seeds), *cost.shape))) for cost in costs]
    mean_curves = [drawn.over_seeds(weighted_curves(each.dsc, drawn.cases)) for each in (first, second)]
    found = np.array(
        [
            saved(a_spent, a_dsc, c_spent, c_dsc)
            for a_spent, a_dsc, c_spent, c_dsc in zip(
                mean_costs[0], mean_curves[0], mean_costs[1], mean_curves[1], strict=True
            )
        ]
    )
    lower, upper = interval(found)
    each = [saved(costs[0][s], curves[0][s], costs[1][s], curves[1][s]) for s in range(len(seeds))]
    means = [values.mean(axis=0) for values in (costs[0], curves[0], costs[1], curves[1])]
    return Saving(
        arm=runs.arm,
        control=control.arm,
        currency=currency,
        n=len(seeds),
        saved=saved(means[0], means[1], means[2], means[3]),
        lower=lower,
        upper=upper,
        reached=float(np.isfinite(found[~np.isnan(found)]).mean()),
        seeds_reached=int(np.isfinite(each).sum()),
    )


def overlap(first: Sequence[str], second: Sequence[str]) -> float:
    """Share of cases that two selections have in common, of all that either chose; NaN for none.

    >>> overlap(["a", "b"], ["b", "c"])
    0.3333333333333333
    """
    either = set(first) | set(second)
    return len(set(first) & set(second)) / len(either) if either else float("nan")


def _sd(values: Values) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")


def _floats(values: Values) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
