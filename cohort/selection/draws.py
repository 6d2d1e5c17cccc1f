"""Random numbers that belong to a candidate, wherever it stands and whoever stands beside it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cohort.seeds import derive_seed
from cohort.selection.base import Candidate, RoundContext


def uniform(candidates: Sequence[Candidate], rng: np.random.Generator) -> NDArray[np.float64]:
    """Draws from [0, 1), one per candidate.

    A candidate's draw depends on the generator and its own key alone, so one more candidate does not change
    those of the others.
    """
    key = int(rng.integers(2**63 - 1))
    draws = [derive_seed(key, *candidate.key) / 2.0**63 for candidate in candidates]
    return np.array(draws, dtype=np.float64)


def gumbel(candidates: Sequence[Candidate], rng: np.random.Generator, *names: str) -> NDArray[np.float64]:
    """Draws from the standard Gumbel distribution, one per candidate, each its own as in `uniform`."""
    key = derive_seed(int(rng.integers(2**63 - 1)), *names)
    draws = np.minimum((ties(candidates, key) + 0.5) / 2.0**63, 1.0 - 2.0**-53)
    noise: NDArray[np.float64] = -np.log(-np.log(draws))
    return noise


def ties(candidates: Sequence[Candidate], key: int) -> NDArray[np.int64]:
    """(N,) a hash of each candidate, from 0 to 2^63, which decides between equals; the smaller is first.

    Source: the finaliser of splitmix64, Steele, Lea and Flood, "Fast splittable pseudorandom number
    generators", 2014.
    """
    mixed = np.fromiter((c.identity for c in candidates), dtype=np.uint64, count=len(candidates))
    mixed ^= np.uint64(derive_seed(key, "ties"))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed ^= mixed >> np.uint64(shift)
        mixed *= np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(1)).astype(np.int64)


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
    hashes = [derive_seed(context.seed, "tie", context.round, *candidate.key) for candidate in candidates]
    return ranking(priorities, np.array(hashes, dtype=np.int64))
