"""From what is thought of the slices of a mask to one score."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def aggregate(judged: NDArray[np.float32], sizes: Sequence[int], aggregation: str) -> float:
    """A mask's score from what is thought of its slices.

    Args:
        judged: (N, 3), N at least 1: score, overlap with what was drawn, and size of that, the last two
            relative to the mask's size in the slice.
        sizes: voxels of the mask in each slice.
        aggregation: "mean" of the scores; "area" to weigh each slice by its size; "dense" for the DSC of all
            slices together with what was drawn, leaving out those too small to compare, or the mean where
            all are.

    >>> judged = np.array([[0.5, 0.5, 1.0], [0.8, 1.0, 1.5]], dtype=np.float32)
    >>> [round(aggregate(judged, [100, 200], name), 3) for name in ("mean", "area", "dense")]
    [0.65, 0.7, 0.714]
    """
    scores, overlap, drawn = judged.astype(float).T
    weights = np.asarray(sizes, dtype=float)
    if aggregation == "dense" and not np.isnan(overlap).all():
        known = ~np.isnan(overlap)
        own = weights[known]
        return float(2.0 * (own @ overlap[known]) / (own @ (1.0 + drawn[known])))
    if aggregation == "area":
        return float(weights @ scores / weights.sum())
    return math.fsum(scores) / len(scores)
