"""Curves of DSC over what was spent: the area below them, and what it took to reach a DSC."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from cohort.comparison.runs import Values
from cohort.errors import ConfigError


def common_range(curves: Sequence[Values]) -> tuple[float, float]:
    """The stretch of the cost axis that all curves cover: the latest beginning, the earliest end.

    Args:
        curves: of each, (R,) what was spent until each round, growing.

    >>> common_range([np.array([4.0, 8.0, 12.0]), np.array([4.0, 9.0, 11.0])])
    (4.0, 11.0)
    """
    return max(float(spent[0]) for spent in curves), min(float(spent[-1]) for spent in curves)


def area_weights(spent: Values, lower: float, upper: float) -> Values:
    """Weights of the rounds in the area under a curve, normalised by the length of the axis.

    Between rounds the curve is a straight line (trapezoid rule), also where the range ends between two
    rounds. The weights add up to 1, so the area reads as a mean DSC over the money spent.

    Args:
        spent: (R,) until each round, growing; two rounds may have spent the same.
        lower: where the range begins, not before `spent[0]`.
        upper: where it ends, not after `spent[-1]`.

    Returns:
        (R,) of which the product with DSC is the area. A range without length gives the curve's height there.

    Raises:
        ConfigError: for a range that the curve does not cover.

    >>> area_weights(np.array([4.0, 8.0, 12.0]), 4.0, 12.0).tolist()
    [0.25, 0.5, 0.25]
    """
    if not spent[0] <= lower <= upper <= spent[-1]:
        raise ConfigError(
            f"The range {lower:g} to {upper:g} is not within what was spent, {spent[0]:g} to {spent[-1]:g}"
        )
    if upper == lower:
        return height_weights(spent, lower)
    weights: Values = np.zeros(len(spent))
    for place, (begin, end) in enumerate(pairwise(spent.tolist())):
        first, last = max(begin, lower), min(end, upper)
        if first >= last:
            continue
        share = ((first + last) / 2.0 - begin) / (end - begin)  # of the later round in the mean height
        weights[place] += (last - first) * (1.0 - share)
        weights[place + 1] += (last - first) * share
    return weights / (upper - lower)


def height_weights(spent: Values, place: float) -> Values:
    """Weights of the rounds in the curve's height at one place of the axis.

    Args:
        spent: (R,) until each round, growing; of rounds that spent the same the last one counts.
        place: from `spent[0]` to `spent[-1]`.

    Returns:
        (R,) that add up to 1.

    >>> height_weights(np.array([4.0, 8.0, 12.0]), 9.0).tolist()
    [0.0, 0.75, 0.25]
    """
    return np.array([float(np.interp(place, spent, row)) for row in np.eye(len(spent))])


def spent_to_reach(spent: Values, dsc: Values, target: float) -> float:
    """What was spent when the best DSC so far first reached a target.

    The best so far is taken because DSC goes up and down from round to round; between rounds it is a straight
    line.

    Args:
        spent: (R,) until each round, growing.
        dsc: (R,).
        target: DSC.

    Returns:
        `spent[0]` for a target that the first round reaches; infinity for one that no round reaches.

    >>> spent_to_reach(np.array([4.0, 8.0, 12.0]), np.array([0.70, 0.65, 0.80]), 0.75)
    10.0
    """
    best = np.maximum.accumulate(dsc)
    reached = np.flatnonzero(best >= target)
    if not len(reached):
        return math.inf
    after = int(reached[0])
    if after == 0:
        return float(spent[0])
    share = (target - best[after - 1]) / (best[after] - best[after - 1])
    return float(spent[after - 1] + share * (spent[after] - spent[after - 1]))


def saved(spent: Values, dsc: Values, control_spent: Values, control_dsc: Values) -> float:
    """What an arm saves on the way to the control's final DSC.

    Both arms are asked when their best DSC so far first reached it, so a control that passed its own final
    DSC before its last round is not made to look dearer than it was.

    Returns:
        In the currency of the axis; negative where the arm took more, minus infinity where it never came
        there.
    """
    target = float(control_dsc[-1])
    return spent_to_reach(control_spent, control_dsc, target) - spent_to_reach(spent, dsc, target)
