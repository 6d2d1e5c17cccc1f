"""Smooth random fields that are the same in millimetres whatever grid they are sampled on."""

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]

_EXTENT_MM = 320.0
_UNIT_VARIANCE = 0.479**-1.5
"""A cubic B-spline of independent unit normals has a variance of 0.479 per axis."""


def smooth_field(
    rng: np.random.Generator, axes_mm: tuple[Field, Field, Field], wavelength_mm: float
) -> Field:
    """Random field of about zero mean and unit variance that varies over `wavelength_mm`.

    Args:
        rng: source of the B-spline coefficients; as many are drawn for every grid.
        axes_mm: voxel positions along z, y and x; beyond 320 mm from the origin the field stays constant.
        wavelength_mm: distance between B-spline nodes, greater than 0.

    Returns:
        (D, H, W) float32.
    """
    nodes = int(2 * _EXTENT_MM / wavelength_mm) + 4
    coefficients = rng.standard_normal((nodes, nodes, nodes), dtype=np.float32)
    along_z, along_y, along_x = (_spline_weights(axis, wavelength_mm, nodes) for axis in axes_mm)
    planes = np.tensordot(along_z, coefficients, axes=(1, 0))
    rows = np.matmul(along_y, planes)
    field: Field = np.matmul(rows, along_x.T) * np.float32(_UNIT_VARIANCE)
    return field


def _spline_weights(axis_mm: Field, wavelength_mm: float, nodes: int) -> Field:
    """Cubic B-spline weights of every node (columns) at every position (rows)."""
    position = (np.clip(axis_mm, -_EXTENT_MM, _EXTENT_MM) + _EXTENT_MM) / wavelength_mm + 1.0
    distance = np.abs(position[:, None] - np.arange(nodes, dtype=np.float32)[None, :])
    near = 2.0 / 3.0 - distance**2 + distance**3 / 2.0
    far = np.clip(2.0 - distance, 0.0, None) ** 3 / 6.0
    return np.asarray(np.where(distance < 1.0, near, far), dtype=np.float32)
