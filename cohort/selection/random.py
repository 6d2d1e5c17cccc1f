"""The control that every other strategy has to beat."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cohort.seeds import derive_seed
from cohort.selection.base import Candidate, Priorities


@dataclass(frozen=True, slots=True, kw_only=True)
class Random:
    """Every order of the candidates is equally likely.

    A case's draw depends on the generator and its own id alone, so one more candidate does not reshuffle
    the others.
    """

    name: ClassVar[str] = "random"
    needs_scores: ClassVar[bool] = False

    def priorities(self, candidates: Sequence[Candidate], rng: np.random.Generator) -> Priorities:
        """Uniform draws from [0, 1), one per candidate."""
        key = int(rng.integers(2**63 - 1))
        draws = [derive_seed(key, candidate.case_id) / 2.0**63 for candidate in candidates]
        return np.array(draws, dtype=np.float64)
