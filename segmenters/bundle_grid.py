"""Between the grid that a bundle works on and that of an image, by their affines alone.

Arrays here are (X, Y, Z), MONAI's order; affines are NIfTI's, from voxel (x, y, z) to world millimetres.
"""

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from cohort.case import Shape, Spacing
from cohort.volume import Affine

_SAME_GRID = 1e-4


def onto_grid(values: Tensor, source: Affine, target: Affine, shape: Shape) -> Tensor:
    """Resample linearly; what lies outside of the source is 0.

    Args:
        values: (X, Y, Z) float32.
        source: affine of `values`.
        target: affine of the result.
        shape: (X, Y, Z) of the result.
    """
    between = np.linalg.inv(source) @ target
    if tuple(values.shape) == shape and np.allclose(between, np.eye(4), atol=_SAME_GRID):
        return values
    found = ndimage.affine_transform(
        values.numpy(), between[:3, :3], between[:3, 3], output_shape=shape, order=1, mode="grid-constant"
    )
    return torch.from_numpy(np.asarray(found, dtype=np.float32))


def most_probable_on_grid(prob: Tensor, source: Affine, target: Affine, shape: Shape) -> NDArray[np.uint8]:
    """The most probable channel of every voxel of another grid, the first one outside of the source.

    Args:
        prob: (C, X, Y, Z) float32, background first.
        source: affine of `prob`.
        target: affine of the result.
        shape: (X, Y, Z) of the result.

    Returns:
        (X, Y, Z); channels are resampled one at a time, so memory holds three volumes.
    """
    highest = onto_grid(prob[0], source, target, shape)
    winner = torch.zeros(shape, dtype=torch.uint8)
    for channel in range(1, len(prob)):
        candidate = onto_grid(prob[channel], source, target, shape)
        winner[candidate > highest] = channel
        highest = torch.maximum(highest, candidate)
    return winner.numpy()


def channels_on_grid(channels: NDArray[np.uint8], source: Affine, target: Affine, shape: Shape) -> Tensor:
    """Resample a map of channels: every voxel gets the one that covers most of it.

    Args:
        channels: (X, Y, Z).
        source: affine of `channels`.
        target: affine of the result.
        shape: (X, Y, Z) of the result.
    """
    best = torch.zeros(shape)
    result = torch.zeros(shape, dtype=torch.uint8)
    for channel in np.unique(channels).tolist():
        share = onto_grid(torch.from_numpy((channels == channel).astype(np.float32)), source, target, shape)
        result[share > best] = channel
        best = torch.maximum(best, share)
    return result


def grid_spacing(affine: Affine) -> Spacing:
    """Voxel size in (X, Y, Z)."""
    x, y, z = (float(size) for size in np.sqrt((affine[:3, :3] ** 2).sum(axis=0)))
    return (x, y, z)


def shape_of(values: Tensor) -> Shape:
    """(X, Y, Z) of the last three axes."""
    return cast(Shape, tuple(values.shape[-3:]))
