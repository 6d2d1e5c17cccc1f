"""Monotone maps from raw scores to DSC: a line, or a curve through the means of bins."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

Values = NDArray[np.float64]
Knots = tuple[tuple[float, float], ...]
"""(raw, DSC), raw ascending: straight between them, and on beyond the ends as between the outermost two."""

MASKS_PER_BIN = 15
MAX_BINS = 12
MIN_BINS = 4
_DIGITS = 6


def fit_line(raw: Values, dsc: Values, weight: Values) -> Knots:
    """Weighted least squares with a slope of at least 0, as two knots one unit apart.

    >>> line = fit_line(np.array([0.0, 1.0, 2.0]), np.array([0.1, 0.3, 0.5]), np.ones(3))
    >>> [round(value, 3) for knot in line for value in knot]
    [0.0, 0.1, 1.0, 0.3]
    """
    share = weight / weight.sum()
    raw_mean, dsc_mean = float(share @ raw), float(share @ dsc)
    variance = float(share @ (raw - raw_mean) ** 2)
    slope = 0.0
    if variance > 1e-12:
        slope = max(0.0, float(share @ ((raw - raw_mean) * (dsc - dsc_mean))) / variance)
    intercept = dsc_mean - slope * raw_mean
    return ((0.0, intercept), (1.0, intercept + slope))


def fit_curve(raw: Values, dsc: Values, weight: Values) -> Knots | None:
    """Means of bins of about equally many masks, made monotone; None for too few masks to make four bins.

    Where a score tells good masks from bad ones, but not by the same amount everywhere, a line is wrong in
    the middle or at the ends; the curve follows.

    Args:
        raw: (N,) scores.
        dsc: (N,), measured.
        weight: (N,), above 0.
    """
    bins = min(MAX_BINS, len(raw) // MASKS_PER_BIN)
    if bins < MIN_BINS:
        return None
    _, value, count = np.unique(np.round(raw, _DIGITS), return_inverse=True, return_counts=True)
    before = np.cumsum(count) - count  # equal scores share a bin
    found, place = np.unique((before * bins // len(raw))[value], return_inverse=True)
    if len(found) < MIN_BINS:
        return None
    total = np.bincount(place, weights=weight)
    centre = np.bincount(place, weights=weight * raw) / total
    mean = np.bincount(place, weights=weight * dsc) / total
    risen = IsotonicRegression().fit_transform(centre, mean, sample_weight=total)
    return tuple(zip(centre.tolist(), np.asarray(risen, dtype=float).tolist(), strict=True))


def along(knots: Sequence[tuple[float, float]], raw: Values) -> Values:
    """DSC of scores, clamped to [0, 1].

    Args:
        knots: at least two.
        raw: (N,).

    >>> along(((0.0, 0.2), (1.0, 0.4), (2.0, 0.8)), np.array([-0.5, 0.5, 2.25, 9.0])).round(2).tolist()
    [0.1, 0.3, 0.9, 1.0]
    """
    x, y = np.asarray(knots, dtype=float).T
    place = np.clip(np.searchsorted(x, raw, side="right") - 1, 0, len(x) - 2)
    slope = (y[place + 1] - y[place]) / (x[place + 1] - x[place])
    found: Values = np.clip(y[place] + slope * (raw - x[place]), 0.0, 1.0)
    return found
