"""Worst predicted masks first, whichever estimator judged them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

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
        scores, asked = _matrix(candidates)
        scored = asked & ~np.isnan(scores)
        worst = np.where(scored, scores, np.inf).min(axis=0, initial=np.inf)
        counted = asked & np.isfinite(worst)
        filled = np.where(scored, scores, worst)
        total = np.where(counted, filled, 0.0).sum(axis=1)
        count = counted.sum(axis=1)
        priorities = -total / np.maximum(count, 1)
        judged = count > 0
        return np.where(judged, priorities, priorities[judged].max() if judged.any() else 0.0)


def _matrix(candidates: Sequence[Candidate]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scores (candidates, structures), and whether the structure was asked for."""
    names = sorted(set[str]().union(*(candidate.scores for candidate in candidates)))
    column = {name: number for number, name in enumerate(names)}
    scores = np.full((len(candidates), len(names)), np.nan)
    asked = np.zeros(scores.shape, dtype=np.bool_)
    for row, candidate in enumerate(candidates):
        columns = [column[name] for name in candidate.scores]
        scores[row, columns] = list(candidate.scores.values())
        asked[row, columns] = True
    infinite = np.argwhere(np.isinf(scores))
    if infinite.size:
        row, place = (int(index) for index in infinite[0])
        raise SelectionError(
            f"Case {candidates[row].case_id} has an infinite quality score for {names[place]!r}; expected a "
            "finite number, or NaN where there is nothing to score"
        )
    return scores, asked
