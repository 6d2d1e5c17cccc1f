"""The control that every other strategy has to beat."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cohort.selection.base import FIRST_ROUND, Candidate, Priorities, RoundContext
from cohort.selection.draws import uniform


@dataclass(frozen=True, slots=True, kw_only=True)
class Random:
    """Every order of the candidates is equally likely.

    A candidate's draw depends on the generator and its own id alone, so one more candidate does not
    reshuffle the others.
    """

    name: ClassVar[str] = "random"
    needs_scores: ClassVar[bool] = False
    needs_features: ClassVar[bool] = False

    def priorities(
        self,
        candidates: Sequence[Candidate],
        rng: np.random.Generator,
        context: RoundContext = FIRST_ROUND,
    ) -> Priorities:
        """Uniform draws from [0, 1), one per candidate."""
        return uniform(candidates, rng)
