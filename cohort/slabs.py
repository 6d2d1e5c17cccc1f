"""Slabs: consecutive axial slices of a case, which can be annotated without the rest of it.

Slices are counted from 0 along the first axis of the (D, H, W) array as stored.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cohort.errors import DataError
from cohort.volume import Array

_NAME = re.compile(r"slices (\d+)-(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Slab:
    """Consecutive slices, both ends included.

    Args:
        first: index of the first slice, from 0.
        last: index of the last slice, at least `first`.

    Raises:
        DataError: for a slab without a slice, or one that begins before the volume.

    >>> Slab(first=12, last=15).name
    'slices 12-15'
    """

    first: int
    last: int

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.last:
            raise DataError(f"A slab from slice {self.first} to {self.last} holds none; expected 0 or later")

    @property
    def name(self) -> str:
        """As people read it, and as the part of a candidate."""
        return f"slices {self.first}-{self.last}"

    @property
    def thickness(self) -> int:
        """Number of slices, 1 or more."""
        return self.last - self.first + 1

    @property
    def range(self) -> slice:
        """Its slices, to index the first axis of an array."""
        return slice(self.first, self.last + 1)

    @classmethod
    def named(cls, name: str) -> "Slab":
        """The slab of a name.

        Raises:
            DataError: for text of another form than `name` gives.

        >>> Slab.named("slices 0-3")
        Slab(first=0, last=3)
        """
        found = _NAME.fullmatch(name)
        if found is None:
            raise DataError(f"{name!r} names no slab; expected text such as 'slices 12-15'")
        return cls(first=int(found[1]), last=int(found[2]))


def slabs_of(depth: int, thickness: int) -> tuple[Slab, ...]:
    """Divide a case into slabs; the last one may be thinner.

    Args:
        depth: number of slices, 1 or more.
        thickness: slices of a slab, 1 or more.

    Raises:
        DataError: for a depth or thickness below 1.

    >>> [slab.name for slab in slabs_of(10, 4)]
    ['slices 0-3', 'slices 4-7', 'slices 8-9']
    """
    if depth < 1 or thickness < 1:
        raise DataError(f"{depth} slices cannot be divided into slabs of {thickness}; both must be 1 or more")
    firsts = range(0, depth, thickness)
    return tuple(Slab(first=first, last=min(first + thickness, depth) - 1) for first in firsts)


def slabs_around(found: NDArray[np.bool_], thickness: int) -> tuple[Slab, ...]:
    """The slabs that are worth an annotator's look: those with foreground, and one more on either side.

    What a model misses at the ends of a structure lies in the slabs that touch it.

    Args:
        found: (D,), whether a slice holds foreground.
        thickness: slices of a slab, 1 or more.

    Returns:
        In ascending order; all slabs where nothing was found.

    >>> found = np.array([False] * 9 + [True] + [False] * 10)
    >>> [slab.name for slab in slabs_around(found, 4)]
    ['slices 4-7', 'slices 8-11', 'slices 12-15']
    """
    slabs = slabs_of(len(found), thickness)
    held = [bool(found[slab.range].any()) for slab in slabs]
    if not any(held):
        return slabs
    return tuple(slab for number, slab in enumerate(slabs) if any(held[max(0, number - 1) : number + 2]))


def slices_in(slabs: Iterable[Slab], depth: int) -> NDArray[np.bool_]:
    """Which slices of a volume lie in some slabs.

    Args:
        slabs: in any order.
        depth: number of slices of the volume.

    Returns:
        (depth,) bool.

    Raises:
        DataError: for a slab that reaches beyond the volume.
    """
    covered = np.zeros(depth, dtype=np.bool_)
    for slab in slabs:
        if slab.last >= depth:
            raise DataError(f"{slab.name} reach beyond a volume of {depth} slices; count them from 0")
        covered[slab.range] = True
    return covered


def cropped(array: Array, slabs: Collection[Slab]) -> Array:
    """The slices of a volume that lie in some slabs, put together; the whole volume for no slabs.

    Args:
        array: (D, H, W).
        slabs: that count; none: all slices count.

    Raises:
        DataError: for a slab that reaches beyond the volume.
    """
    return array[slices_in(slabs, len(array))] if slabs else array


def within(inside: Array, outside: Array | int, slabs: Collection[Slab]) -> Array:
    """One label map in some slabs, another one elsewhere.

    Args:
        inside: (D, H, W).
        outside: (D, H, W), or one label for all voxels.
        slabs: in which `inside` counts; none: everywhere.

    Raises:
        DataError: for a slab that reaches beyond the volume.
    """
    if not slabs:
        return inside
    found: Array = np.where(slices_in(slabs, len(inside))[:, None, None], inside, outside)
    return found.astype(inside.dtype)


def union(first: Collection[Slab], second: Collection[Slab]) -> tuple[Slab, ...]:
    """All slabs of both in ascending order, each once; none, which is the whole case, if one is that.

    >>> one, other = Slab(first=0, last=3), Slab(first=8, last=11)
    >>> union((other,), (one, other)) == (one, other), union((one,), ())
    (True, ())
    """
    return tuple(sorted({*first, *second})) if first and second else ()


def bounds(slabs: Iterable[Slab]) -> list[list[int]]:
    """First and last slice of each slab, as JSON has them."""
    return [[slab.first, slab.last] for slab in slabs]


def from_bounds(values: Iterable[Sequence[int]]) -> tuple[Slab, ...]:
    """From what `bounds` gave.

    Raises:
        DataError: for bounds of no slab.
    """
    return tuple(Slab(first=first, last=last) for first, last in values)
