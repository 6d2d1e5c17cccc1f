"""Worst predicted masks first, whichever estimator judged them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cohort.errors import SelectionError
from cohort.selection.base import Candidate, Priorities


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Priority is minus the mean quality over the structures of a case.

    This is the only place that turns quality (higher is a better mask) into priority (higher is sooner).

    A structure whose predicted mask is empty has no score. It counts as the worst score that any candidate
    has for that structure: a mask that misses its structure altogether is a bad mask, and scoring only what
    was found would send such cases to the back. Where no candidate has a score for a structure, it does not
    distinguish them and is left out; a case that is left with nothing counts as the worst case. A structure
    that is truly outside the field of view is treated the same way, since nothing that a strategy may know
    tells the two apart.
    """

    name: ClassVar[str] = "quality"
    needs_scores: ClassVar[bool] = True

    def priorities(self, candidates: Sequence[Candidate], rng: np.random.Generator) -> Priorities:
        """Minus the mean score, one per candidate; all 0 where nobody has a score. No draws are made.

        Raises:
            SelectionError: if a score is infinite.
        """
        structures = sorted({name for candidate in candidates for name in candidate.scores})
        total = np.zeros(len(candidates))
        counted = np.zeros(len(candidates))
        for structure in structures:
            asked = np.array([structure in c.scores for c in candidates])
            scores = np.array([c.scores.get(structure, np.nan) for c in candidates], dtype=np.float64)
            _check_finite(scores, candidates, structure)
            known = ~np.isnan(scores)
            if not known.any():
                continue
            total += np.where(known, scores, np.where(asked, scores[known].min(), 0.0))
            counted += asked
        judged = counted > 0
        priorities = -total / np.maximum(counted, 1.0)
        return np.where(judged, priorities, priorities[judged].max() if judged.any() else 0.0)


def _check_finite(scores: Priorities, candidates: Sequence[Candidate], structure: str) -> None:
    infinite = np.flatnonzero(np.isinf(scores))
    if infinite.size:
        raise SelectionError(
            f"Case {candidates[int(infinite[0])].case_id} has an infinite quality score for {structure!r}; "
            "expected a finite number, or NaN where there is nothing to score"
        )
