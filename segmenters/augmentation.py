"""Cuts patches and varies them: one affine and elastic resampling per patch, intensities per batch."""

import math

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from torch import Tensor

from cohort.case import Shape, Spacing
from segmenters.config import Augmentation
from segmenters.preprocessing import PreparedCase

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


def _crop(volume: Tensor, start: Shape, patch: Shape, fill: float) -> Tensor:
    inside = tuple(
        slice(max(first, 0), min(first + side, size))
        for first, side, size in zip(start, patch, volume.shape, strict=True)
    )
    piece = volume[inside]
    if tuple(piece.shape) == patch:
        return piece
    result = volume.new_full(patch, fill)
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
    grid = _sampling_grid(matrix, start, patch, (case.image.shape[0], *case.image.shape[1:3]))
    if augmentation.elastic_mm > 0:
        grid = grid + _displacement(case.image.shape, patch, spacing_mm, augmentation.elastic_mm, rng)
    image = case.image[None, None] - padding if padding else case.image[None, None]
    warped = functional.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    channels = functional.grid_sample(
        case.channels[None, None].float(), grid, mode="nearest", padding_mode="zeros", align_corners=False
    )
    return (warped[0, 0] + padding if padding else warped[0, 0]), channels[0, 0].to(torch.uint8)


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


def _sampling_grid(matrix: NDArray[np.float64], start: Shape, patch: Shape, shape: Shape) -> Tensor:
    """(1, D, H, W, 3) positions for `grid_sample`, whose last axis is (x, y, z) in [-1, 1]."""
    sides, sizes = np.array(patch), np.array(shape)
    centre = np.array(start) + (sides - 1) / 2
    linear = matrix * sides[None, :] / sizes[:, None]
    offset = (2 * centre + 1) / sizes - 1
    theta = np.concatenate([linear[::-1, ::-1], offset[::-1, None]], axis=1)
    tensor = torch.from_numpy(theta.astype(np.float32))[None]
    return functional.affine_grid(tensor, [1, 1, *patch], align_corners=False)


def _displacement(
    shape: torch.Size, patch: Shape, spacing_mm: Spacing, elastic_mm: float, rng: np.random.Generator
) -> Tensor:
    """(1, D, H, W, 3) smooth random shift, in `grid_sample`'s units."""
    coarse = torch.from_numpy(rng.standard_normal((1, 3, *(_ELASTIC_POINTS,) * 3)).astype(np.float32))
    unit = [2.0 * elastic_mm / (s * n) for s, n in zip(spacing_mm, shape, strict=True)][::-1]
    fine = functional.interpolate(coarse, size=patch, mode="trilinear", align_corners=True)
    return fine.permute(0, 2, 3, 4, 1) * torch.tensor(unit)
