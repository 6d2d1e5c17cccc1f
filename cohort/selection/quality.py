"""Worst predicted masks first, whichever estimator judged them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cohort.selection.base import FIRST_ROUND, Candidate, Priorities, RoundContext
from cohort.selection.scores import ScoreTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Priority is minus the mean quality over the structures of a candidate.

    A structure whose predicted mask is empty has no score. It counts as the worst score that any candidate
    has for that structure: a mask that misses its structure altogether is a bad mask, and scoring only what
    was found would send such cases to the back. Where no candidate has a score for a structure, it does not
    distinguish them and is left out; a case that is left with nothing counts as the worst case. A structure
    that is truly outside the field of view is treated the same way, since nothing that a strategy may know
    tells the two apart; `Guarded` limits what that may cost.
    """

    name: ClassVar[str] = "quality"
    needs_scores: ClassVar[bool] = True
    needs_features: ClassVar[bool] = False

    def priorities(
        self,
        candidates: Sequence[Candidate],
        rng: np.random.Generator,
        context: RoundContext = FIRST_ROUND,
    ) -> Priorities:
        """Minus the mean score, one per candidate; all 0 where nobody has a score. No draws are made.

        Raises:
            SelectionError: if a score is infinite.
        """
        return -ScoreTable.of(candidates).mean()
