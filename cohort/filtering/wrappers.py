"""Filters around other filters: as many masks of each structure, and weights by quality."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import rankdata

from cohort.errors import ConfigError
from cohort.filtering.base import Filter, Needs, Weights, score_value
from cohort.records import QualityScore
from cohort.seeds import derive_seed

By = Literal["predicted_dsc", "rank"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Balanced:
    """Keeps no more than so many masks of any structure as of the one with the fewest that are kept.

    Without it a threshold fills the training set with the easy structures. A structure of which the inner
    filter keeps nothing is left out of the count.

    Args:
        inner: decides first.
        ratio: most masks of a structure, relative to the fewest, 1 or more.
    """

    inner: Filter
    ratio: float = 1.0

    def __post_init__(self) -> None:
        if not self.ratio >= 1.0:
            raise ConfigError(f"balance is {self.ratio}; expected 1 or more")

    @property
    def needs(self) -> Needs:
        """What the inner filter needs."""
        return self.inner.needs

    @property
    def rule(self) -> str:
        """What is kept."""
        return f"{self.inner.rule}, at most {self.ratio:g} times as many of any structure as of the rarest"

    def weights(self, scores: Sequence[QualityScore], rng: np.random.Generator) -> Weights:
        """The inner filter's weights, 0 for the worst of structures of which too many are kept."""
        weights = self.inner.weights(scores, rng)
        key = int(rng.integers(2**63 - 1))
        kept: dict[str, list[int]] = {}
        for index in np.flatnonzero(weights > 0.0).tolist():
            kept.setdefault(scores[index].structure, []).append(index)
        most = int(self.ratio * min((len(indices) for indices in kept.values()), default=0))

        def order(index: int) -> tuple[float, int]:
            score = scores[index]
            value = 0.0 if self.needs == "nothing" else score_value(score, self.needs)
            return -value, derive_seed(key, score.case_id, score.structure)

        for indices in kept.values():
            weights[sorted(indices, key=order)[most:]] = 0.0
        return weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighted:
    """Weights the masks that are kept by their quality, so that a doubtful one teaches less.

    Args:
        inner: decides what is kept.
        by: "predicted_dsc" takes that as weight; "rank" the rank among the kept masks of the same structure,
            for an estimator that only ranks: the best has 1, the others fall evenly towards `lowest`.
        lowest: smallest weight of a mask that is kept, in (0, 1].
    """

    inner: Filter
    by: By = "predicted_dsc"
    lowest: float = 0.1

    def __post_init__(self) -> None:
        if not 0.0 < self.lowest <= 1.0:
            raise ConfigError(f"lowest_weight is {self.lowest}; expected above 0 and up to 1")
        if self.by == "rank" and self.inner.needs == "nothing":
            raise ConfigError("weights are by rank, but the filter reads no score to rank by")

    @property
    def needs(self) -> Needs:
        """What the inner filter needs, or the predicted DSC where that is more."""
        return (
            "predicted_dsc"
            if self.by == "predicted_dsc" and self.inner.needs != "lower"
            else self.inner.needs
        )

    @property
    def rule(self) -> str:
        """What is kept, and that it is weighted."""
        by = "predicted DSC" if self.by == "predicted_dsc" else "rank"
        return f"{self.inner.rule}, weighted by {by}"

    def weights(self, scores: Sequence[QualityScore], rng: np.random.Generator) -> Weights:
        """The inner filter's weights times the quality of each mask."""
        kept = self.inner.weights(scores, rng)
        quality = self._by_rank(scores, kept) if self.by == "rank" else _predicted(scores)
        return kept * np.clip(quality, self.lowest, 1.0)

    def _by_rank(self, scores: Sequence[QualityScore], kept: Weights) -> Weights:
        found = np.ones(len(scores))
        for name in {score.structure for score in scores}:
            own = [i for i in np.flatnonzero(kept > 0.0).tolist() if scores[i].structure == name]
            values = np.array([score_value(scores[i], self.inner.needs) for i in own])
            better = rankdata(-values, method="min") - 1.0
            found[own] = 1.0 - (1.0 - self.lowest) * better / max(1, len(own) - 1)
        return found


def _predicted(scores: Sequence[QualityScore]) -> Weights:
    return np.array([score.predicted_dsc for score in scores], dtype=np.float64)
