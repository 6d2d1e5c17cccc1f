"""A mask about to go wrong, with its surroundings and their distances in millimetres."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cohort.case import Spacing
from cohort.errors import DataError
from sentinel.slices import Mask

Distance = NDArray[np.float32]
Region = tuple[slice, slice, slice]

_MIN_PAD_VOXELS = 6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subject:
    """A mask about to go wrong, with its surroundings.

    Args:
        name: of the structure.
        mask: (D, H, W), not empty.
        others: masks of the other structures, same shape.
        spacing_mm: (D, H, W).
        distance_mm: (D, H, W), to the mask's boundary: positive inside, negative outside.
    """

    name: str
    mask: Mask
    others: Mapping[str, Mask]
    spacing_mm: Spacing
    distance_mm: Distance

    @property
    def depth_mm(self) -> float:
        """Distance from the boundary of the voxel farthest inside, more than 0."""
        return float(self.distance_mm.max())

    @property
    def extent_mm(self) -> NDArray[np.float64]:
        """(3,) size of the mask's bounding box."""
        spans = [np.ptp(np.flatnonzero(self.mask.any(axis=other_axes(axis)))) + 1.0 for axis in range(3)]
        return np.asarray(np.array(spans) * np.array(self.spacing_mm), dtype=np.float64)

    @property
    def coordinates_mm(self) -> NDArray[np.float64]:
        """(D, H, W, 3) where each voxel lies."""
        axes = [np.arange(n) * size for n, size in zip(self.mask.shape, self.spacing_mm, strict=True)]
        return np.asarray(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1), dtype=np.float64)

    def with_mask(self, mask: Mask) -> "Subject":
        """The same surroundings with another mask."""
        return Subject(
            name=self.name,
            mask=mask,
            others=self.others,
            spacing_mm=self.spacing_mm,
            distance_mm=signed_distance_mm(mask, self.spacing_mm),
        )


def make_subject(name: str, mask: Mask, others: Mapping[str, Mask], spacing_mm: Spacing) -> Subject:
    """A mask with its surroundings, as the corruptions take it.

    Args:
        name: of the structure.
        mask: (D, H, W), with room around it for what grows or moves.
        others: masks of the other structures, same shape.
        spacing_mm: (D, H, W).

    Raises:
        DataError: for an empty mask, which cannot go wrong any further.
    """
    if not mask.any():
        raise DataError(f"The mask of {name!r} is empty; only a mask with voxels can be corrupted")
    distance_mm = signed_distance_mm(mask, spacing_mm)
    return Subject(name=name, mask=mask, others=others, spacing_mm=spacing_mm, distance_mm=distance_mm)


def region_around(mask: Mask) -> Region:
    """The bounding box of a mask with room of its own size (at least 6 voxels) on each side.

    Args:
        mask: (D, H, W), not empty.
    """
    bounds = []
    for axis in range(3):
        filled = np.flatnonzero(mask.any(axis=other_axes(axis)))
        first, last = int(filled[0]), int(filled[-1]) + 1
        pad = max(_MIN_PAD_VOXELS, last - first)
        bounds.append(slice(max(0, first - pad), min(mask.shape[axis], last + pad)))
    return (bounds[0], bounds[1], bounds[2])


def signed_distance_mm(mask: Mask, spacing_mm: Spacing) -> Distance:
    """Distance to the boundary of a mask, half a voxel off at most: positive inside, negative outside.

    Args:
        mask: (D, H, W); an empty one is infinitely far (-inf) everywhere.
        spacing_mm: (D, H, W).
    """
    if not mask.any():
        return np.full(mask.shape, -np.inf, dtype=np.float32)
    padded = np.pad(mask, 1)
    inside = ndimage.distance_transform_edt(padded, sampling=spacing_mm)[1:-1, 1:-1, 1:-1]
    outside = ndimage.distance_transform_edt(~mask, sampling=spacing_mm)
    return np.asarray(inside - outside, dtype=np.float32)


def other_axes(axis: int) -> tuple[int, ...]:
    """The two other axes of three."""
    return tuple(other for other in range(3) if other != axis)
