"""The slices of a mask that a sentinel looks at: chosen, cropped, resized and normalised as published.

Image and mask are 8-bit grey values from the crop on, as in the published code: what is resized, and what the
network sees, are whole steps of 1/255.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from cohort.errors import ConfigError, DataError
from cohort.volume import Array, Grid, Volume, to_canonical

Mask = NDArray[np.bool_]
Grey = NDArray[np.uint8]

HU_WINDOW = (-200.0, 200.0)
PERCENTILES = (0.5, 99.5)
_IMAGE_MEAN, _IMAGE_STD = 0.5, 0.25
_MASK_MEAN, _MASK_STD = 0.5, 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Crop:
    """A rectangle of a slice: rows from `top` to below `bottom`, columns from `left` to below `right`."""

    top: int
    bottom: int
    left: int
    right: int

    def of(self, plane: Array) -> Array:
        """The rectangle of a (H, W) array."""
        return plane[self.top : self.bottom, self.left : self.right]


def oriented(volume: Volume, orientation: str) -> Volume:
    """The volume in the orientation that a sentinel slices in.

    Args:
        volume: image or mask.
        orientation: "canonical" (RAS+, slices run from feet to head) or "as_stored".
    """
    return to_canonical(volume) if orientation == "canonical" else volume


def stored_slices(indices: Sequence[int], grid: Grid) -> tuple[int, ...] | None:
    """Where slices of a volume in canonical orientation lie in its file.

    Args:
        indices: along the first axis of the canonical volume, from 0.
        grid: of the file.

    Returns:
        Indices along the first axis as stored, in the same order; None where that is another axis.

    >>> grid = Grid(shape=(8, 12, 16), affine=np.diag([0.5, 1.0, -3.0, 1.0]))
    >>> stored_slices((0, 2), grid)
    (7, 5)
    """
    axis, direction = nib.io_orientation(grid.affine)[2]
    if int(axis) != 2:
        return None
    last = grid.shape[0] - 1
    return tuple(index if direction > 0 else last - index for index in indices)


def grey_values(image: Array, intensity: str) -> Grey:
    """Intensities as 8-bit grey values, rounded down as published.

    Args:
        image: (D, H, W).
        intensity: "ct_hu" maps [-200, 200] HU to 0..255, "per_volume_percentile" the 0.5 to 99.5
            percentile of the volume (a volume without contrast becomes 0).

    Raises:
        ConfigError: for another intensity.
    """
    if intensity == "ct_hu":
        low, high = HU_WINDOW
    elif intensity == "per_volume_percentile":
        low, high = (float(value) for value in np.percentile(image, PERCENTILES))
    else:
        raise ConfigError(f"Unknown intensity {intensity!r}; expected 'ct_hu' or 'per_volume_percentile'")
    if high <= low:
        return np.zeros(image.shape, dtype=np.uint8)
    scaled = (np.clip(image.astype(np.float32), low, high) - np.float32(low)) / np.float32(high - low)
    grey: Grey = (np.clip(scaled, 0.0, 1.0) * np.float32(255.0)).astype(np.uint8)
    return grey


def choose_slices(mask: Mask, max_slices: int = 10) -> tuple[int, ...]:
    """Indices of the slices of a mask to score: all that hold a voxel of it, or `max_slices` evenly chosen.

    Args:
        mask: (D, H, W).
        max_slices: at most.

    Returns:
        Ascending indices along the first axis; none for an empty mask.

    >>> choose_slices(np.ones((4, 2, 2), dtype=bool), max_slices=2)
    (0, 2)
    """
    valid = np.flatnonzero(mask.any(axis=(1, 2)))
    if len(valid) > max_slices:
        valid = valid[[int(len(valid) / max_slices * i) for i in range(max_slices)]]
    return tuple(int(index) for index in valid)


def crop_around(plane: Mask, margin: tuple[int, int]) -> Crop:
    """The crop of a slice: the mask's bounding box with a margin, its shorter side grown towards a square.

    Args:
        plane: (H, W), one slice of a mask.
        margin: voxels along rows and columns, at least 1.

    Raises:
        DataError: for an empty slice, which has no bounding box.
    """
    rows, columns = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
    if not len(rows):
        raise DataError(
            "An empty slice of a mask has no bounding box; score slices that hold a voxel of the mask"
        )
    height, width = plane.shape
    top, bottom = max(0, int(rows[0]) - margin[0]), min(height, int(rows[-1]) + margin[0])
    left, right = max(0, int(columns[0]) - margin[1]), min(width, int(columns[-1]) + margin[1])
    grow = abs((bottom - top) - (right - left)) // 2
    if bottom - top < right - left:
        top, bottom = max(0, top - grow), min(height, bottom + grow)
    else:
        left, right = max(0, left - grow), min(width, right + grow)
    return Crop(top=top, bottom=bottom, left=left, right=right)


def cut_slice(planes: Sequence[Grey | Mask], crop: Crop, image_size: int) -> Tensor:
    """Cut planes out of a slice and resize all of them, bilinear with antialiasing.

    Args:
        planes: each (H, W): 8-bit images, or masks, which become 0 and 255.
        crop: where to cut.
        image_size: pixels a side.

    Returns:
        uint8 (len(planes), image_size, image_size) in 0..255.
    """
    cut = np.stack([_grey(crop.of(plane)) for plane in planes])
    resized = functional.interpolate(
        torch.from_numpy(cut)[None], size=(image_size, image_size), mode="bilinear", antialias=True
    )
    return resized[0]


def _grey(plane: Array) -> Grey:
    return plane.astype(np.uint8) * np.uint8(255) if plane.dtype == np.bool_ else plane


def normalise(slices: Tensor) -> Tensor:
    """Grey values to what the network takes.

    Args:
        slices: uint8 or float (N, 2, S, S) in 0..255, image and mask.

    Returns:
        float32 (N, 2, S, S): image (x - 0.5) / 0.25, mask (x - 0.5) / 0.5, with x in [0, 1].
    """
    mean = torch.tensor([_IMAGE_MEAN, _MASK_MEAN], device=slices.device).view(1, 2, 1, 1)
    std = torch.tensor([_IMAGE_STD, _MASK_STD], device=slices.device).view(1, 2, 1, 1)
    return (slices.float() / 255.0 - mean) / std
