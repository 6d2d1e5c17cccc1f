"""Cases that are unlike those that are labelled, and cases that many others are like."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cohort.errors import ConfigError
from cohort.selection.base import FIRST_ROUND, Candidate, Features, Priorities, RoundContext
from cohort.selection.distances import (
    CHUNK,
    farthest_first,
    feature_matrix,
    nearest,
    squared_distances,
)
from cohort.selection.draws import ranking, ties
from cohort.selection.power import shares
from cohort.selection.wrapper import Wrapper

MOST_TAKEN = 2000
"""So many candidates are taken one after the other; those after them go by their distance alone."""

LANDMARKS = 512
"""The density of a pool is measured at so many of its candidates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreSet:
    """The candidate that is farthest from every labelled and every taken case, again and again.

    Priority is the distance to the nearest of these at the time when a candidate is taken, which never
    grows; so the order is the one of the k-centre greedy algorithm. Without a labelled case the first is
    drawn.

    Source: Sener and Savarese, "Active learning for convolutional neural networks: a core-set approach",
    ICLR 2018, algorithm 1.
    """

    name: ClassVar[str] = "core_set"
    needs_scores: ClassVar[bool] = False
    needs_features: ClassVar[bool] = True

    def priorities(
        self,
        candidates: Sequence[Candidate],
        rng: np.random.Generator,
        context: RoundContext = FIRST_ROUND,
    ) -> Priorities:
        """Distance when taken, one per candidate, 0 or more."""
        features = feature_matrix(candidates)
        hashes = _hashes(candidates, rng)
        distances = nearest(features, context.labelled_features)
        order, reached = farthest_first(features, distances, hashes, min(context.wanted, MOST_TAKEN))
        reached = np.where(np.isfinite(reached), reached, 0.0)
        if order:
            reached[order[0]] = reached.max() + (not context.labelled)
        return np.sqrt(reached)


@dataclass(frozen=True, slots=True, kw_only=True)
class Diverse(Wrapper):
    """The best by the inner strategy, spread out: farthest from each other and the labelled first.

    The first `factor` times as many candidates as the budget affords are reordered as in `CoreSet`, each
    distance multiplied by the candidate's share of the inner priority; the others follow in inner order.

    Args:
        inner: says what is worth annotating.
        factor: how many candidates stand for each that can be taken, 1 or more.

    Source: the filter of Zhdanov, "Diverse mini-batch active learning", 2019, with k-centre in place of
    k-means.
    """

    label: ClassVar[str] = "diverse"
    factor: float = 4.0

    def __post_init__(self) -> None:
        if not 1.0 <= self.factor < np.inf:
            raise ConfigError(f"factor is {self.factor}; expected a number from 1")

    @property
    def needs_features(self) -> bool:
        """Always: they tell how far apart two candidates are."""
        return True

    def priorities(
        self,
        candidates: Sequence[Candidate],
        rng: np.random.Generator,
        context: RoundContext = FIRST_ROUND,
    ) -> Priorities:
        """Minus the place in the order, one per candidate."""
        inner = self.inner.priorities(candidates, rng, context)
        ranked = ranking(inner, _hashes(candidates, rng))
        count = min(len(candidates), round(self.factor * context.wanted), MOST_TAKEN)
        first, rest = ranked[:count], ranked[count:]
        weights = shares(inner)[first]
        some = feature_matrix([candidates[place] for place in first])
        order = _weighted_farthest(some, weights, nearest(some, context.labelled_features))
        priorities = np.empty(len(candidates))
        priorities[[first[place] for place in order] + rest] = -np.arange(len(candidates))
        return priorities


@dataclass(frozen=True, slots=True, kw_only=True)
class Representative(Wrapper):
    """The inner priority, times how many cases of the pool a candidate is like.

    The density of the pool around a candidate is the mean of a Gaussian kernel at up to 512 of its
    candidates, as wide as their median distance. A scan that nothing resembles teaches about nothing else.

    Args:
        inner: says what is worth annotating.
        weight: power of the density; 0 leaves the inner priority alone.

    Source: information density, Settles and Craven, "An analysis of active learning strategies for sequence
    labeling tasks", EMNLP 2008, section 3.4.
    """

    label: ClassVar[str] = "representative"
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.weight < np.inf:
            raise ConfigError(f"representativeness is {self.weight}; expected a number from 0")

    @property
    def needs_features(self) -> bool:
        """Unless it has no weight."""
        return self.weight > 0.0 or self.inner.needs_features

    def priorities(
        self,
        candidates: Sequence[Candidate],
        rng: np.random.Generator,
        context: RoundContext = FIRST_ROUND,
    ) -> Priorities:
        """Share of the inner priority times density to the power of the weight, in [0, 1]."""
        inner = shares(self.inner.priorities(candidates, rng, context))
        if self.weight == 0.0 or not candidates:
            return inner
        hashes = _hashes(candidates, rng)
        features = feature_matrix(candidates)
        landmarks = features[np.argsort(hashes)[:LANDMARKS]]
        between = squared_distances(landmarks, landmarks)
        width = float(np.median(between[~np.eye(len(between), dtype=np.bool_)])) if len(between) > 1 else 0.0
        if width == 0.0:
            return inner
        density = np.concatenate(
            [
                np.exp(-squared_distances(features[start : start + CHUNK], landmarks) / width).mean(axis=1)
                for start in range(0, len(features), CHUNK)
            ]
        )
        return inner * density**self.weight


def _weighted_farthest(features: Features, weights: Priorities, distances: Priorities) -> list[int]:
    """Places by falling distance times weight, the distances to all that were placed before."""
    finite = distances[np.isfinite(distances)]
    left = np.where(np.isfinite(distances), distances, finite.max() if finite.size else 1.0)
    open_rows = np.ones(len(features), dtype=np.bool_)
    order: list[int] = []
    for _ in range(len(features)):
        urgent = np.where(open_rows, np.sqrt(left) * weights, -1.0)
        row = int(np.argmax(urgent))
        order.append(row)
        open_rows[row] = False
        left = np.minimum(left, nearest(features, features[row][None]))
    return order


def _hashes(candidates: Sequence[Candidate], rng: np.random.Generator) -> NDArray[np.int64]:
    return ties(candidates, int(rng.integers(2**63 - 1)))
