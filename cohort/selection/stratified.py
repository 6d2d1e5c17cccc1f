"""Random within strata of predicted content, so that a draw looks like the pool."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from cohort.errors import ConfigError
from cohort.seeds import derive_seed
from cohort.selection.base import FIRST_ROUND, Candidate, Priorities, RoundContext, Strategy
from cohort.selection.draws import ranking, ties
from cohort.selection.random import Random
from cohort.selection.wrapper import Wrapper

Stratum = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stratified(Wrapper):
    """Takes from every stratum of the pool in turn; within a stratum the inner strategy decides.

    Strata are made of what the segmenter predicts, never of a reference: which structures it found, and
    whether they are small, middling or large beside the pool's median. A pattern of structures that few
    candidates show joins the other rare ones. Any beginning of the order has each stratum's share of it.

    Args:
        inner: ranks within a stratum.
        sizes: how many classes of size, 1 or more.
        rare: a pattern of structures with less than this share of the pool is rare, 0 to 1.
        allocation: "proportional" to the stratum's share of the pool, or "equal".

    Source: proportional allocation, Cochran, "Sampling techniques", 1977, chapter 5.
    """

    label: ClassVar[str] = "stratified"
    inner: Strategy = field(default_factory=Random)
    sizes: int = 3
    rare: float = 0.05
    allocation: Literal["proportional", "equal"] = "proportional"

    def __post_init__(self) -> None:
        if self.sizes < 1 or not 0.0 <= self.rare <= 1.0:
            raise ConfigError(
                f"Strata of {self.sizes} sizes with patterns rare below {self.rare} make no sense; expected "
                "1 size or more and a share from 0 to 1"
            )
        if self.allocation not in ("proportional", "equal"):
            raise ConfigError(f"allocation is {self.allocation!r}; expected proportional or equal")

    def priorities(
        self,
        candidates: Sequence[Candidate],
        rng: np.random.Generator,
        context: RoundContext = FIRST_ROUND,
    ) -> Priorities:
        """Minus a candidate's place in its stratum, as a share of the stratum, from a random start."""
        inner = self.inner.priorities(candidates, rng, context)
        key = int(rng.integers(2**63 - 1))
        members: dict[Stratum, list[int]] = defaultdict(list)
        for place, stratum in enumerate(strata(candidates, sizes=self.sizes, rare=self.rare)):
            members[stratum].append(place)
        priorities = np.zeros(len(candidates))
        for stratum, places in members.items():
            order = ranking(inner[places], ties([candidates[place] for place in places], key))
            start = derive_seed(key, "start", *stratum) / 2.0**63
            size = len(places) if self.allocation == "proportional" else 1
            priorities[np.array(places)[order]] = -(np.arange(len(places)) + start) / size
        return priorities


def strata(candidates: Sequence[Candidate], *, sizes: int, rare: float) -> list[Stratum]:
    """The stratum of each candidate: the structures that were found in it, and their size.

    Args:
        candidates: with `volumes_ml`.
        sizes: how many classes of size.
        rare: patterns below this share of the candidates count as one.
    """
    patterns = [_pattern(candidate) for candidate in candidates]
    count = Counter(patterns)
    common = {pattern for pattern, number in count.items() if number >= rare * len(candidates)}
    size = _relative_sizes(candidates)
    edges = np.quantile(size, np.arange(1, sizes) / sizes) if len(size) else size
    classes = np.searchsorted(edges, size, side="left").tolist()
    return [
        (str(number), *(pattern if pattern in common else ("rare",)))
        for number, pattern in zip(classes, patterns, strict=True)
    ]


def _pattern(candidate: Candidate) -> Stratum:
    found = sorted(name for name, volume in candidate.volumes_ml.items() if volume > 0.0)
    if candidate.slab is not None:  # slabs with the same structures are alike, wherever they lie
        return ("slab", *found)
    return ("part", candidate.part, *found) if candidate.part else ("case", *found)


def _relative_sizes(candidates: Sequence[Candidate]) -> NDArray[np.float64]:
    """Mean logarithm of a candidate's volumes over the pool's medians; 0 where nothing was found."""
    volumes: dict[str, list[float]] = defaultdict(list)
    for candidate in candidates:
        for name, volume in candidate.volumes_ml.items():
            if volume > 0.0:
                volumes[name].append(volume)
    medians = {name: float(np.median(found)) for name, found in volumes.items()}
    sizes = np.zeros(len(candidates))
    for place, candidate in enumerate(candidates):
        found = sorted((name, volume) for name, volume in candidate.volumes_ml.items() if volume > 0.0)
        if found:
            sizes[place] = np.mean([np.log(volume / medians[name]) for name, volume in found])
    return sizes
