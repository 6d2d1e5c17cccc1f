"""Linear resampling of whole volumes between grids that cover the same space."""

import torch
from torch import Tensor

from cohort.case import Shape, Spacing

_EQUAL_SPACING = 1e-3


def resampled_shape(shape: Shape, spacing_mm: Spacing, target_mm: Spacing) -> Shape:
    """Voxels that cover the same space at another spacing, at least one along each axis.

    A spacing within 0.1 % of the target counts as equal to it.

    >>> resampled_shape((8, 12, 16), (3.0, 1.0, 0.5), (3.0, 2.0, 2.0))
    (8, 6, 4)
    """
    depth, height, width = (
        size if abs(old / new - 1.0) < _EQUAL_SPACING else max(1, round(size * old / new))
        for size, old, new in zip(shape, spacing_mm, target_mm, strict=True)
    )
    return (depth, height, width)


def resample_linear(volume: Tensor, shape: Shape) -> Tensor:
    """Resample the last three axes linearly; where an axis shrinks, voxels are averaged (no aliasing).

    Args:
        volume: (..., D, H, W), float.
        shape: new (D, H, W); first and last voxel edges stay where they are.
    """
    for axis, size in zip((-3, -2, -1), shape, strict=True):
        old = volume.shape[axis]
        if old != size:
            weights = _axis_weights(old, size).to(volume)
            volume = (volume.transpose(axis, -1) @ weights.T).transpose(axis, -1)
    return volume.contiguous()


def resample_labels(labels: Tensor, shape: Shape) -> Tensor:
    """Resample a label map: every voxel gets the label that covers most of it.

    Args:
        labels: (D, H, W), whole numbers.
        shape: new (D, H, W).
    """
    if tuple(labels.shape) == shape:
        return labels
    best = torch.full(shape, -1.0)
    result = torch.zeros(shape, dtype=labels.dtype)
    for label in torch.unique(labels).tolist():
        share = resample_linear((labels == label).float(), shape)
        result = torch.where(share > best, torch.full_like(result, label), result)
        best = torch.maximum(share, best)
    return result


def _axis_weights(old: int, new: int) -> Tensor:
    """(new, old) weights of a triangle filter whose half width is one voxel of the coarser grid."""
    scale = old / new
    centres = (torch.arange(new, dtype=torch.float64) + 0.5) * scale - 0.5
    if scale <= 1.0:
        centres = centres.clamp(0, old - 1)
    distance = (torch.arange(old, dtype=torch.float64)[None] - centres[:, None]).abs() / max(scale, 1.0)
    weights = (1.0 - distance).clamp(min=0.0)
    return weights / weights.sum(dim=1, keepdim=True)
