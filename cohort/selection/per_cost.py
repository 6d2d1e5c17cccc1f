"""What an annotation is expected to mend, for what it is expected to cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cohort.budget import CURRENCIES
from cohort.errors import ConfigError, SelectionError
from cohort.selection.base import FIRST_ROUND, Candidate, Priorities, RoundContext
from cohort.selection.power import shares
from cohort.selection.scores import ScoreTable
from cohort.selection.wrapper import Wrapper


@dataclass(frozen=True, slots=True, kw_only=True)
class Deficit:
    """How much DSC the predicted masks of a candidate lack, summed over its structures.

    For an estimator whose value is a DSC: a value is clipped to [0, 1]. An empty mask lacks as much as the
    worst mask of its structure; a structure that nobody has a score for does not count.
    """

    name: ClassVar[str] = "deficit"
    needs_scores: ClassVar[bool] = True
    needs_features: ClassVar[bool] = False

    def priorities(
        self,
        candidates: Sequence[Candidate],
        rng: np.random.Generator,
        context: RoundContext = FIRST_ROUND,
    ) -> Priorities:
        """Sum of 1 - predicted DSC, one per candidate, 0 or more. No draws are made."""
        filled = ScoreTable.of(candidates).filled()
        lacking: Priorities = np.where(np.isnan(filled), 0.0, 1.0 - np.clip(filled, 0.0, 1.0)).sum(axis=1)
        return lacking


@dataclass(frozen=True, slots=True, kw_only=True)
class PerCost(Wrapper):
    """The inner priority for each unit of cost.

    Args:
        inner: whose priority is a gain.
        currency: of the cost.
        from_zero: whether an inner priority of 0 is no gain; otherwise the pool's lowest priority is.

    Source: Settles, Craven and Friedland, "Active learning with real annotation costs", 2008.
    """

    label: ClassVar[str] = "per_cost"
    currency: str = "minutes"
    from_zero: bool = False

    def __post_init__(self) -> None:
        if self.currency not in CURRENCIES:
            raise ConfigError(
                f"Unknown currency {self.currency!r} of a cost; expected one of {', '.join(CURRENCIES)}"
            )

    def priorities(
        self,
        candidates: Sequence[Candidate],
        rng: np.random.Generator,
        context: RoundContext = FIRST_ROUND,
    ) -> Priorities:
        """Gain per cost, one per candidate.

        Raises:
            SelectionError: for a candidate that costs nothing.
        """
        gains = self.inner.priorities(candidates, rng, context)
        costs = np.array([candidate.cost.as_dict()[self.currency] for candidate in candidates])
        free = np.flatnonzero(costs <= 0.0)
        if free.size:
            raise SelectionError(
                f"Case {candidates[int(free[0])].case_id} is expected to cost no {self.currency}, so a gain "
                "per cost has no meaning; choose another currency"
            )
        rates: Priorities = (np.maximum(gains, 0.0) if self.from_zero else shares(gains)) / costs
        return rates
