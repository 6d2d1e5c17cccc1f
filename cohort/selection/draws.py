"""Random numbers that belong to a candidate, wherever it stands and whoever stands beside it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cohort.seeds import derive_seed
from cohort.selection.base import Candidate, RoundContext

_SMALLEST = 2.0**-64


def uniform(candidates: Sequence[Candidate], rng: np.random.Generator, *names: str) -> NDArray[np.float64]:
    """Draws from [0, 1), one per candidate.

    A candidate's draw depends on the generator, its own key and the names alone, so one more candidate does
    not change those of the others.
    """
    key = int(rng.integers(2**63 - 1))
    draws = [derive_seed(key, *candidate.key, *names) / 2.0**63 for candidate in candidates]
    return np.array(draws, dtype=np.float64)


def gumbel(candidates: Sequence[Candidate], rng: np.random.Generator, *names: str) -> NDArray[np.float64]:
    """Draws from the standard Gumbel distribution, one per candidate, as `uniform`."""
    draws = np.clip(uniform(candidates, rng, *names), _SMALLEST, 1.0 - 2.0**-53)
    return -np.log(-np.log(draws))


def ties(candidates: Sequence[Candidate], key: int, *names: str | int) -> NDArray[np.int64]:
    """(N,) a hash of each candidate, which decides between equals; the smaller is first."""
    return np.array([derive_seed(key, *names, *c.key) for c in candidates], dtype=np.int64)


def ranking(priorities: NDArray[np.float64], hashes: NDArray[np.int64]) -> list[int]:
    """Places by falling priority, equals by rising hash.

    >>> ranking(np.array([0.5, 0.9, 0.5]), np.array([7, 8, 6]))
    [1, 2, 0]
    """
    order: list[int] = np.lexsort((hashes, -priorities)).tolist()
    return order


def order_of(
    priorities: NDArray[np.float64], candidates: Sequence[Candidate], context: RoundContext
) -> list[int]:
    """Places in the order in which a round takes them: by falling priority, equals by a seeded hash."""
    return ranking(priorities, ties(candidates, context.seed, "tie", context.round))
