"""The scores of candidates as a table."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cohort.errors import SelectionError
from cohort.selection.base import Candidate


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScoreTable:
    """Quality per candidate and structure.

    Args:
        structures: names of the columns, sorted.
        values: (N, S) raw quality; NaN where there is none.
        asked: (N, S) whether the structure was asked for: NaN is then an empty mask.
    """

    structures: tuple[str, ...]
    values: NDArray[np.float64]
    asked: NDArray[np.bool_]

    @classmethod
    def of(cls, candidates: Sequence[Candidate]) -> "ScoreTable":
        """The table of some candidates.

        Raises:
            SelectionError: if a score is infinite.
        """
        names = sorted(set[str]().union(*(candidate.scores for candidate in candidates)))
        column = {name: number for number, name in enumerate(names)}
        values = np.full((len(candidates), len(names)), np.nan)
        asked = np.zeros(values.shape, dtype=np.bool_)
        columns = [column[name] for candidate in candidates for name in candidate.scores]
        rows = np.repeat(np.arange(len(candidates)), [len(candidate.scores) for candidate in candidates])
        values[rows, columns] = [score for c in candidates for score in c.scores.values()]
        asked[rows, columns] = True
        infinite = np.argwhere(np.isinf(values))
        if infinite.size:
            row, place = (int(index) for index in infinite[0])
            raise SelectionError(
                f"Case {candidates[row].case_id} has an infinite quality score for {names[place]!r}; "
                "expected a finite number, or NaN where there is nothing to score"
            )
        return cls(structures=tuple(names), values=values, asked=asked)

    def filled(self) -> NDArray[np.float64]:
        """(N, S) scores with the worst one of the structure for each empty mask.

        NaN where a structure was not asked for, and where no candidate has a score for it, so that it does
        not distinguish them.
        """
        scored = self.asked & ~np.isnan(self.values)
        worst = np.where(scored, self.values, np.inf).min(axis=0, initial=np.inf)
        worst = np.where(np.isfinite(worst), worst, np.nan)
        return np.where(scored, self.values, np.where(self.asked, worst, np.nan))

    def mean(self) -> NDArray[np.float64]:
        """(N,) mean of the filled scores; the worst mean for a candidate without any, 0 where all are."""
        filled = self.filled()
        counted = ~np.isnan(filled)
        count = counted.sum(axis=1)
        means = np.where(counted, filled, 0.0).sum(axis=1) / np.maximum(count, 1)
        judged = count > 0
        return np.where(judged, means, means[judged].min() if judged.any() else 0.0)
