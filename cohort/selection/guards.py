"""What lowest quality first must not fall for: copies, empty masks, broken scans, hopeless outliers."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cohort.errors import ConfigError
from cohort.selection.base import FIRST_ROUND, Candidate, Judged, Key, Priorities, RoundContext
from cohort.selection.basket import Basket
from cohort.selection.distances import feature_matrix, nearest, squared_distances
from cohort.selection.draws import order_of, ties
from cohort.selection.scores import ScoreTable
from cohort.selection.wrapper import Wrapper

LANDMARKS = 256
"""How far a case usually is from its nearest neighbour is measured at so many candidates."""

MOST_OUTLIERS = 256
"""So many of the candidates with the most extreme priority are looked at."""

_TO_SIGMA = 1.4826
_BLOCK = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded(Wrapper):
    """The inner strategy, with some candidates held back while others can be taken.

    A scan that is broken (constant, extreme) is never taken. In rank order, as the budget is spent:

    - a near duplicate, closer than `duplicates` to a labelled case or to one that was taken, waits;
    - candidates that are chosen only because a mask is empty (without their empty masks they would not be
      among the selected) get at most `empty_share` of the budget, since nothing known tells a missed organ
      from an absent one;
    - outliers, whose priority is beyond `outlier_bound` robust standard deviations of the pool's and whose
      distance to the nearest other case is as far beyond what is usual, get at most `outlier_share`: a scan
      like no other, on which the segmenter fails, teaches little about the others.

    What needs features is left out where candidates have none. Priorities and ranks stay those of the inner
    strategy; only what is taken changes.

    Args:
        inner: the strategy.
        duplicates: distance, where the root mean square distance to the mean of all cases is 1; 0: off.
        empty_share: of a round's budget, 0 to 1; 1: off.
        outlier_share: of a round's budget, 0 to 1; 1: off.
        outlier_bound: robust standard deviations (1.4826 times the median absolute deviation).
    """

    duplicates: float = 0.05
    empty_share: float = 0.5
    outlier_share: float = 0.25
    outlier_bound: float = 5.0

    def __post_init__(self) -> None:
        for name in ("empty_share", "outlier_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected a share from 0 to 1")
        for name in ("duplicates", "outlier_bound"):
            if not 0.0 <= getattr(self, name) < np.inf:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected a number from 0")

    @property
    def name(self) -> str:
        """That of the inner strategy."""
        return self.inner.name

    @property
    def uses_features(self) -> bool:
        """Unless both guards that look at them are off."""
        return self.needs_features or self.duplicates > 0.0 or self.outlier_share < 1.0

    def priorities(
        self,
        candidates: Sequence[Candidate],
        rng: np.random.Generator,
        context: RoundContext = FIRST_ROUND,
    ) -> Priorities:
        """Those of the inner strategy."""
        return self.inner.priorities(candidates, rng, context)

    def judged(
        self, candidates: Sequence[Candidate], rng: np.random.Generator, context: RoundContext
    ) -> Judged:
        """Those of the inner strategy, and which of the candidates that the budget would reach wait."""
        again = copy.deepcopy(rng)
        priorities = self.inner.priorities(candidates, rng, context)
        if not candidates:
            return Judged(priorities, {})
        order = [candidates[place] for place in order_of(priorities, candidates, context)]
        refused = {c.key: f"broken scan, {c.broken}" for c in candidates if c.broken}
        sound = [c for c in order if c.key not in refused]
        known = dict(zip((c.key for c in candidates), priorities.tolist(), strict=True))
        capped = {
            "chosen for an empty mask alone": (
                self.empty_share,
                self._only_empty(candidates, sound, known, again, context),
            ),
            "an outlier": (self.outlier_share, self._outliers(candidates, priorities, context)),
        }
        held = self._walk(sound, capped, context)
        return Judged(priorities, {**refused, **held}, frozenset(refused))

    def _walk(
        self,
        order: Sequence[Candidate],
        capped: Mapping[str, tuple[float, frozenset[Key]]],
        context: RoundContext,
    ) -> dict[Key, str]:
        """What is held back when the budget is spent in this order."""
        basket, held = Basket(budget=context.budget), dict[Key, str]()
        spent = dict.fromkeys(capped, 0.0)
        limit = context.budget.per_round if context.budget is not None else np.inf
        copies = _Copies(self.duplicates, context)
        for candidate in order:
            if not basket.affords(candidate):
                continue
            amount = basket.amount(candidate)
            mine = [reason for reason, (_, keys) in capped.items() if candidate.key in keys]
            used = [r for r in mine if spent[r] + amount > capped[r][0] * limit * (1.0 + 1e-9)]
            why = f"{used[0]}; the budget has no more than {capped[used[0]][0]:g} for these" if used else ""
            why = why or copies.of(candidate)
            if why:
                held[candidate.key] = why
                continue
            spent.update({reason: spent[reason] + amount for reason in mine})
            basket.take(candidate)
            copies.add(candidate)
        return held

    def _only_empty(
        self,
        candidates: Sequence[Candidate],
        order: Sequence[Candidate],
        priorities: Mapping[Key, float],
        rng: np.random.Generator,
        context: RoundContext,
    ) -> frozenset[Key]:
        """Keys of the candidates that would not be taken if their empty masks did not count."""
        if not self.inner.needs_scores or self.empty_share == 1.0:
            return frozenset()
        table = ScoreTable.of(candidates)
        missed = table.asked & np.isnan(table.values) & ~np.isnan(table.filled())
        empty = [bool(gone) for gone in np.logical_or.reduce(missed, axis=1)]
        if not any(empty):
            return frozenset()
        least = min((priorities[key] for key in Basket.filled(order, context.budget).taken), default=-np.inf)
        scored = [_without_empty(c) if gone else c for c, gone in zip(candidates, empty, strict=True)]
        alone = self.inner.priorities(scored, rng, context)
        return frozenset(
            c.key
            for c, without, gone, value in zip(candidates, scored, empty, alone, strict=True)
            if gone and (not without.scores or value < least)
        )

    def _outliers(
        self, candidates: Sequence[Candidate], priorities: Priorities, context: RoundContext
    ) -> frozenset[Key]:
        """Keys of the candidates that are extreme in priority and far from every other case."""
        if self.outlier_share == 1.0 or any(c.features is None for c in candidates):
            return frozenset()
        extreme = np.flatnonzero(_beyond(priorities, priorities, self.outlier_bound))
        if not extreme.size:
            return frozenset()
        extreme = extreme[np.argsort(-priorities[extreme], kind="stable")][:MOST_OUTLIERS]
        cases = {candidate.case_id: candidate for candidate in candidates}
        names = list(cases)
        place_of = {name: place for place, name in enumerate(names)}
        sample = np.argsort(ties(list(cases.values()), context.seed))[:LANDMARKS]
        own = [place_of[candidates[int(place)].case_id] for place in extreme]
        features = feature_matrix(list(cases.values()))
        usual = _to_nearest_other(features, names, sample.tolist(), context)
        far = _beyond(_to_nearest_other(features, names, own, context), usual, self.outlier_bound)
        return frozenset(candidates[int(place)].key for place in extreme[far])


class _Copies:
    """Finds near duplicates of labelled and taken cases, other than parts of the same case."""

    def __init__(self, threshold: float, context: RoundContext) -> None:
        self._squared = threshold**2
        self._names = sorted(context.labelled)
        self._rows = context.labelled_features

    def of(self, candidate: Candidate) -> str:
        """Which case a candidate is a copy of, in words; "" for none."""
        if candidate.features is None or self._rows is None:
            return ""
        distances = nearest(self._rows, candidate.features[None])
        close = [
            (distances[n], self._names[n])
            for n in np.flatnonzero(distances < self._squared).tolist()
            if self._names[n] != candidate.case_id
        ]
        return f"near duplicate of {min(close)[1]}" if close else ""

    def add(self, candidate: Candidate) -> None:
        """Remember a case that was taken."""
        if candidate.features is not None:
            row = candidate.features[None]
            self._names.append(candidate.case_id)
            self._rows = row if self._rows is None else np.concatenate([self._rows, row])


def _without_empty(candidate: Candidate) -> Candidate:
    found = {name: score for name, score in candidate.scores.items() if not np.isnan(score)}
    return replace(candidate, scores=found)


def _beyond(values: Priorities, usual: Priorities, bound: float) -> NDArray[np.bool_]:
    """Which values lie more robust standard deviations above the median of the usual ones than the bound."""
    middle = np.median(usual)
    sigma = _TO_SIGMA * np.median(np.abs(usual - middle))
    above: NDArray[np.bool_] = (values - middle > bound * sigma) & (sigma > 0.0)
    return above


def _to_nearest_other(
    features: NDArray[np.float32], names: Sequence[str], rows: Sequence[int], context: RoundContext
) -> Priorities:
    """(M,) distance of the cases in some rows to the nearest other case of the pool or the labelled ones."""
    found = np.empty(len(rows))
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        distances = squared_distances(features, features[list(block)])
        distances[list(block), np.arange(len(block))] = np.inf
        found[start : start + _BLOCK] = distances.min(axis=0)
    for number, row in enumerate(rows):
        others = [looks for name, looks in context.labelled.items() if name != names[row]]
        if others:
            found[number] = min(found[number], nearest(np.array(others), features[row][None]).min())
    return np.sqrt(found)
