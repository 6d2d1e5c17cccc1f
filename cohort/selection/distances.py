"""Distances between the features of cases, in pieces that fit into memory."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cohort.selection.base import Candidate, Features

CHUNK = 4096

Distances = NDArray[np.float64]


def feature_matrix(candidates: Sequence[Candidate]) -> Features:
    """(N, F) features of candidates that all have them."""
    found = [candidate.features for candidate in candidates if candidate.features is not None]
    return np.array(found, dtype=np.float32) if found else np.zeros((0, 0), dtype=np.float32)


def squared_distances(features: Features, others: Features) -> Distances:
    """(N, M) squared distances, 0 or more, exact to rounding; use few others: all of them are in memory."""
    found = np.empty((len(features), len(others)))
    points = others.astype(np.float64)
    lengths = np.square(points).sum(axis=1)
    for start in range(0, len(features), CHUNK):
        rows = features[start : start + CHUNK].astype(np.float64)
        squares = np.square(rows).sum(axis=1)[:, None] + lengths - 2.0 * (rows @ points.T)
        found[start : start + CHUNK] = np.maximum(squares, 0.0)
    return found


def nearest(features: Features, others: Features | None) -> Distances:
    """(N,) squared distance to the nearest of the others; infinite where there is none."""
    smallest = np.full(len(features), np.inf)
    for other in () if others is None else others:
        np.minimum(smallest, _to_one(features, other), out=smallest)
    return smallest


def farthest_first(
    features: Features, distances: Distances, hashes: NDArray[np.int64], count: int
) -> tuple[list[int], Distances]:
    """Take the row that is farthest from everything taken, again and again.

    Args:
        features: (N, F).
        distances: (N,) squared, to what is taken already; infinite where nothing is.
        hashes: (N,) decide between rows that are equally far, the smaller is first.
        count: how many to take.

    Returns:
        The rows in the order in which they were taken, and for each row its squared distance to everything
        that was taken before it (for one that was not taken, to all that were).

    Source: Gonzalez, "Clustering to minimize the maximum intercluster distance", 1985; as a core-set, Sener
    and Savarese, ICLR 2018, algorithm 1.
    """
    left = distances.copy()
    reached = distances.copy()
    open_rows = np.ones(len(features), dtype=np.bool_)
    order: list[int] = []
    for _ in range(min(count, len(features))):
        tied = np.flatnonzero(open_rows & (left == left[open_rows].max()))
        row = int(tied[np.argmin(hashes[tied])])
        order.append(row)
        open_rows[row] = False
        reached[row] = left[row]
        np.minimum(left, _to_one(features, features[row]), out=left)
    reached[open_rows] = left[open_rows]
    return order, reached


def _to_one(features: Features, other: Features) -> Distances:
    """(N,) squared distances to one row; each depends on the two rows alone, not on their neighbours."""
    found = np.empty(len(features))
    for start in range(0, len(features), CHUNK):
        difference = features[start : start + CHUNK] - other
        found[start : start + CHUNK] = np.square(difference, dtype=np.float64).sum(axis=1)
    return found
