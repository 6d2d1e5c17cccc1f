"""Cuts patches and varies them: one affine and elastic resampling per patch, intensities per batch."""

import math

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from torch import Tensor

from cohort.case import Shape, Spacing
from segmenters.config import Augmentation
from segmenters.preprocessing import PreparedCase, Voxels

_ELASTIC_POINTS = 5


def cut_patch(
    case: PreparedCase,
    start: Shape,
    patch: Shape,
    spacing_mm: Spacing,
    augmentation: Augmentation,
    padding: float,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """Cut one patch, rotated, scaled, bent and mirrored as the augmentation allows.

    Args:
        case: to cut from.
        start: first voxel of the unvaried patch, may be negative.
        patch: (D, H, W) voxels.
        spacing_mm: of the voxels, so that rotations keep shapes in millimetres.
        augmentation: what is allowed.
        padding: intensity outside the volume.
        rng: of the draws.

    Returns:
        Image (D, H, W) float32 and channels (D, H, W) uint8 of the patch; background outside the volume.
    """
    if rng.random() < augmentation.spatial_probability:
        image, channels = _warp(case, start, patch, spacing_mm, augmentation, padding, rng)
    else:
        image, channels = _crop(case.image, start, patch, padding), _crop(case.channels, start, patch, 0)
    axes = [axis for axis, allowed in enumerate(augmentation.flip) if allowed and rng.random() < 0.5]
    return (image.flip(axes), channels.flip(axes)) if axes else (image, channels)


def vary_intensity(images: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Vary contrast, brightness, gamma and noise of each image of a batch (B, 1, D, H, W)."""
    size = (len(images), 1, 1, 1, 1)

    def draw(lower: float, upper: float) -> Tensor:
        return torch.rand(size, generator=generator) * (upper - lower) + lower

    if augmentation.gamma > 0:
        low = images.amin(dim=(1, 2, 3, 4), keepdim=True)
        span = (images.amax(dim=(1, 2, 3, 4), keepdim=True) - low).clamp(min=1e-6)
        exponent = draw(-augmentation.gamma, augmentation.gamma).exp()
        images = ((images - low) / span).pow(exponent) * span + low
    if augmentation.contrast > 0:
        change = augmentation.contrast
        images = images * draw(1.0 - change, 1.0 + change) + draw(-change, change)
    if augmentation.noise > 0:
        spread = draw(0.0, augmentation.noise)
        images = images + spread * torch.randn(images.shape, generator=generator)
    return images


def _crop(volume: Voxels, start: Shape, patch: Shape, fill: float) -> Tensor:
    inside = tuple(
        slice(max(first, 0), min(first + side, size))
        for first, side, size in zip(start, patch, volume.shape, strict=True)
    )
    piece = volume[inside]
    if tuple(piece.shape) == patch:
        return piece
    result = piece.new_full(patch, fill)
    where = tuple(
        slice(part.start - first, part.stop - first) for part, first in zip(inside, start, strict=True)
    )
    result[where] = piece
    return result


def _warp(
    case: PreparedCase,
    start: Shape,
    patch: Shape,
    spacing_mm: Spacing,
    augmentation: Augmentation,
    padding: float,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    matrix = _draw_matrix(spacing_mm, augmentation, rng)
    bend = np.array([augmentation.elastic_mm / size for size in spacing_mm])
    points = rng.standard_normal((3, *(_ELASTIC_POINTS,) * 3)) * bend[:, None, None, None]
    centre = np.array(start) + (np.array(patch) - 1) / 2
    box = _reach(centre, matrix, patch, np.abs(points).max(axis=(1, 2, 3)), case.image.shape)
    grid = _sampling_grid(matrix, centre, patch, box)
    if augmentation.elastic_mm > 0:
        grid = grid + _displacement(points, patch, box)
    image = case.image[box][None, None]
    warped = functional.grid_sample(
        image - padding if padding else image,
        grid,
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    )
    channels = functional.grid_sample(
        case.channels[box][None, None].float(),
        grid,
        mode="nearest",
        padding_mode="zeros",
        align_corners=False,
    )
    return (warped[0, 0] + padding if padding else warped[0, 0]), channels[0, 0].to(torch.uint8)


def _reach(
    centre: NDArray[np.float64],
    matrix: NDArray[np.float64],
    patch: Shape,
    bend: NDArray[np.float64],
    shape: torch.Size,
) -> tuple[slice, ...]:
    """The part of the volume that a varied patch takes its voxels from, with one voxel around it."""
    extent = np.abs(matrix) @ ((np.array(patch) - 1) / 2) + bend + 1.0
    first = np.clip(np.floor(centre - extent), 0, np.array(shape) - 1).astype(int)
    last = np.clip(np.ceil(centre + extent), 0, np.array(shape) - 1).astype(int)
    return tuple(slice(int(low), int(high) + 1) for low, high in zip(first, last, strict=True))


def _draw_matrix(
    spacing_mm: Spacing, augmentation: Augmentation, rng: np.random.Generator
) -> NDArray[np.float64]:
    """(3, 3) from voxels of the patch to voxels of the volume, both about their centre, (D, H, W)."""
    matrix = np.eye(3)
    limit = math.radians(augmentation.rotation_degrees)
    for first, second in ((1, 2), (0, 2), (0, 1)):
        angle = rng.uniform(-limit, limit)
        turn = np.eye(3)
        turn[first, first] = turn[second, second] = math.cos(angle)
        turn[first, second], turn[second, first] = -math.sin(angle), math.sin(angle)
        matrix = matrix @ turn
    scale = rng.uniform(1.0 - augmentation.scale, 1.0 + augmentation.scale)
    size = np.array(spacing_mm)
    return np.asarray(matrix * scale * size[None, :] / size[:, None])


def _sampling_grid(
    matrix: NDArray[np.float64], centre: NDArray[np.float64], patch: Shape, box: tuple[slice, ...]
) -> Tensor:
    """(1, D, H, W, 3) positions in a box for `grid_sample`, whose last axis is (x, y, z) in [-1, 1]."""
    sides, sizes = np.array(patch), _sizes(box)
    linear = matrix * sides[None, :] / sizes[:, None]
    offset = (2 * (centre - [part.start for part in box]) + 1) / sizes - 1
    theta = np.concatenate([linear[::-1, ::-1], offset[::-1, None]], axis=1)
    tensor = torch.from_numpy(theta.astype(np.float32))[None]
    return functional.affine_grid(tensor, [1, 1, *patch], align_corners=False)


def _displacement(points: NDArray[np.float64], patch: Shape, box: tuple[slice, ...]) -> Tensor:
    """(1, D, H, W, 3) smooth shift through coarse points (3, ...) in voxels, in `grid_sample`'s units."""
    coarse = (points * (2.0 / _sizes(box))[:, None, None, None])[::-1].astype(np.float32)
    fine = functional.interpolate(
        torch.from_numpy(coarse)[None], size=patch, mode="trilinear", align_corners=True
    )
    return fine.permute(0, 2, 3, 4, 1)


def _sizes(box: tuple[slice, ...]) -> NDArray[np.int64]:
    return np.array([part.stop - part.start for part in box])
