"""Noise on priorities, so that a batch is not many times the same hard case."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cohort.errors import ConfigError
from cohort.selection.base import FIRST_ROUND, Candidate, Priorities, RoundContext
from cohort.selection.draws import gumbel
from cohort.selection.wrapper import Wrapper


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A number that goes geometrically from its start in the first round that selects to its end in the last.

    >>> Schedule(start=1.0, end=4.0).at(RoundContext(round=1, rounds=3))
    2.0
    """

    start: float = 1.0
    end: float = 8.0

    def __post_init__(self) -> None:
        if not (0.0 < self.start < np.inf and 0.0 < self.end < np.inf):
            raise ConfigError(
                f"beta goes from {self.start} to {self.end}; expected two finite numbers above 0"
            )

    def at(self, context: RoundContext) -> float:
        """Its value in a round."""
        return float(self.start * (self.end / self.start) ** context.progress)


@dataclass(frozen=True, slots=True, kw_only=True)
class Power(Wrapper):
    """Draws without replacement, in proportion to the inner priority to the power beta.

    Adding Gumbel noise to beta times the logarithm of a score and sorting is such a draw. Scores are inner
    priorities above the lowest one of the pool, as shares of the highest (see `shares`), so it does not
    matter what zero means to an estimator. A small beta is near random, a large one near the inner order.

    Args:
        inner: the strategy whose priorities are scattered.
        schedule: of beta: small while little is labelled, larger later.

    Source: Kirsch et al., "Stochastic batch acquisition: a simple baseline for deep active learning", TMLR
    2023, table 1 (power acquisition).
    """

    label: ClassVar[str] = "power"
    schedule: Schedule = field(default_factory=Schedule)

    def priorities(
        self,
        candidates: Sequence[Candidate],
        rng: np.random.Generator,
        context: RoundContext = FIRST_ROUND,
    ) -> Priorities:
        """beta log(score) + Gumbel noise, one per candidate."""
        inner = self.inner.priorities(candidates, rng, context)
        return self.schedule.at(context) * np.log(shares(inner)) + gumbel(candidates, rng)


def shares(priorities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Priorities as shares of the distance from the lowest to the highest one of the pool.

    Args:
        priorities: (N,), finite.

    Returns:
        (N,) in (0, 1], in the same order; 1 / N is added before scaling, so that the least urgent can be
        drawn too. All 1 where all are alike.

    >>> shares(np.array([-0.9, -0.5, -0.7, -0.9])).round(6).tolist()
    [0.2, 1.0, 0.6, 0.2]
    """
    if not len(priorities):
        return priorities
    low, high = priorities.min(), priorities.max()
    if not high - low > 0.0:
        return np.ones_like(priorities)
    least = 1.0 / len(priorities)
    found: NDArray[np.float64] = ((priorities - low) / (high - low) + least) / (1.0 + least)
    return found
