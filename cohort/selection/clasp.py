"""Class-stratified power sampling: every structure gets its turn."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cohort.errors import ConfigError
from cohort.seeds import derive_seed
from cohort.selection.base import FIRST_ROUND, Candidate, Priorities, RoundContext
from cohort.selection.draws import gumbel, ranking, ties
from cohort.selection.power import Schedule, shares
from cohort.selection.scores import ScoreTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Clasp:
    """Structures take turns to name the candidate whose mask of that structure is the worst, with noise.

    A share of the turns belongs to the structures, each in its turn; in the others the mean over all
    structures names one. Within every turn it is a draw as in `Power`, with its schedule of noise. So a small
    or rare structure is not outvoted by a large one.

    This is the idea of ClaSP PE at the level of cases. The paper queries patches of an image, ranks them by
    predictive entropy that is summed over voxels by predicted class, and shares the query between class-wise
    and overall ranking in its own proportion; here a candidate is a case (or a structure of it), the value is
    any estimator's score of that structure (predictive entropy by default, averaged over the structure's
    region), turns are taken in strict rotation, and the defaults of share and schedule are ours.

    Args:
        share: of the turns that belong to structures, 0 to 1.
        schedule: of the noise.

    Source: Lüth et al., "Finally outshining the random baseline: a simple and effective solution for active
    learning in 3D biomedical imaging", TMLR 2026.
    """

    share: float = 0.75
    schedule: Schedule = field(default_factory=Schedule)
    name: ClassVar[str] = "clasp"
    needs_scores: ClassVar[bool] = True
    needs_features: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.share <= 1.0:
            raise ConfigError(f"share is {self.share}; expected a share from 0 to 1")

    def priorities(
        self,
        candidates: Sequence[Candidate],
        rng: np.random.Generator,
        context: RoundContext = FIRST_ROUND,
    ) -> Priorities:
        """Minus the turn in which a candidate was named.

        Raises:
            SelectionError: if a score is infinite.
        """
        beta, table = self.schedule.at(context), ScoreTable.of(candidates)
        overall = -table.mean()
        key = int(rng.integers(2**63 - 1))
        lists = [ranking(_noised(overall, gumbel(candidates, rng), beta), ties(candidates, key))]
        for structure, quality in zip(table.structures, table.filled().T, strict=True):
            lists.append(self._of_structure(candidates, quality, structure, rng, beta, key))
        turns = [number for number, places in enumerate(lists) if number and places]
        turns.sort(key=lambda number: derive_seed(key, table.structures[number - 1]))
        priorities = np.zeros(len(candidates))
        for turn, place in enumerate(self._named(lists, turns, len(candidates))):
            priorities[place] = -float(turn)
        return priorities

    def _of_structure(
        self,
        candidates: Sequence[Candidate],
        quality: NDArray[np.float64],
        structure: str,
        rng: np.random.Generator,
        beta: float,
        key: int,
    ) -> list[int]:
        """Places of the candidates with this structure, the first one to annotate first."""
        known = np.flatnonzero(~np.isnan(quality))
        some = [candidates[int(place)] for place in known]
        noised = _noised(-quality[known], gumbel(some, rng, structure), beta)
        return [int(known[place]) for place in ranking(noised, ties(some, key))]

    def _named(self, lists: Sequence[list[int]], turns: Sequence[int], count: int) -> Iterator[int]:
        """Places in the order in which the lists name them, each once."""
        heads, seen = [iter(each) for each in lists], [False] * count
        number = 0
        for turn in range(10**9):
            own = turns and int((turn + 1) * self.share) > int(turn * self.share)
            which = turns[number % len(turns)] if own else 0
            number += bool(own)
            place = next((p for p in heads[which] if not seen[p]), None)
            if place is None and which:  # everybody with this structure is named
                place = next((p for p in heads[0] if not seen[p]), None)
            if place is None:
                return
            seen[place] = True
            yield place


def _noised(priorities: Priorities, noise: NDArray[np.float64], beta: float) -> Priorities:
    return beta * np.log(shares(priorities)) + noise
