"""The grid that a patient is painted on: warped coordinates, anti-aliased painting, distances to shapes.

Coordinates are patient millimetres: x grows to the patient's left, y to the back, z to the head.
Distances are negative inside a shape and in millimetres near its surface.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from cohort.case import Shape, Spacing
from cohort.phantom.fields import Field, smooth_field
from cohort.phantom.patient import Patient
from cohort.volume import Array

Point = tuple[float, float, float]

AIR_HU = -1000.0
FAT_HU = -105.0
_RIPPLES = 3
_RIPPLE_MM = 26.0
_MARGIN_MM = 9.0
_LONG_AXIS_MM = 1000.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Region:
    """A box of the canvas; painting it paints the canvas.

    Args:
        image: HU.
        labels: label map.
        x: patient coordinate of every voxel in mm, warped; `y` and `z` likewise.
        y: see `x`.
        z: see `x`.
        height_mm: scanner y of every row, which is where gravity points.
        ripples: smooth fields of about unit variance that make surfaces and tissue uneven.
        cavity: distance to the wall of the abdominal cavity.
        lung: distance to the lungs.
        edge_mm: width of the ramp from outside to inside, about one voxel.
    """

    image: Field
    labels: Array
    x: Field
    y: Field
    z: Field
    height_mm: Field
    ripples: tuple[Field, ...]
    cavity: Field
    lung: Field
    edge_mm: float

    def crop(self, box: tuple[slice, slice, slice]) -> "Region":
        """The same views, cut to a box of voxels."""
        return Region(
            image=self.image[box],
            labels=self.labels[box],
            x=self.x[box],
            y=self.y[box],
            z=self.z[box],
            height_mm=self.height_mm[:, box[1], :],
            ripples=tuple(ripple[box] for ripple in self.ripples),
            cavity=self.cavity[box],
            lung=self.lung[box],
            edge_mm=self.edge_mm,
        )

    def paint(self, distance: Field, hu: Field | float, label: int | None = None) -> None:
        """Cover what is there, with a ramp of one voxel at the surface.

        Args:
            distance: to the shape, negative inside, broadcastable to the region.
            hu: of the shape.
            label: written where the distance is negative; 0 clears, None leaves the label map alone.
        """
        cover = np.clip(0.5 - distance / self.edge_mm, 0.0, 1.0)
        self.image[...] += cover * (hu - self.image)
        if label is not None:
            self.labels[distance < 0] = label

    def ripple(self, *amplitudes_mm: float) -> Field:
        """Sum of the random fields, each times its amplitude."""
        terms = [field * a for field, a in zip(self.ripples, amplitudes_mm, strict=False) if a]
        return reduce(np.add, terms) if terms else np.zeros_like(self.image)


class Canvas:
    """A whole grid, filled with air."""

    def __init__(self, shape: Shape, spacing_mm: Spacing, patient: Patient) -> None:
        axes = _centred_axes(shape, spacing_mm)
        self._axes = axes
        self._patient = patient
        cosine, sine = _rotation(patient)
        z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
        shift_x, shift_y, shift_z = patient.shift_mm
        warps = [patient.warp_mm * smooth_field(patient.rng("warp", i), axes, 85.0) for i in range(3)]
        self._reach_mm = [float(np.abs(warp).max()) for warp in warps]
        ripples = [smooth_field(patient.rng("ripple", i), axes, _RIPPLE_MM) for i in range(_RIPPLES)]
        far = np.full(shape, 1e3, dtype=np.float32)
        self.whole = Region(
            image=np.full(shape, AIR_HU, dtype=np.float32),
            labels=np.zeros(shape, dtype=np.uint8),
            x=cosine * (x - shift_x) + sine * (y - shift_y) + warps[0],
            y=cosine * (y - shift_y) - sine * (x - shift_x) + warps[1],
            z=(z - shift_z) / np.float32(patient.length) + warps[2],
            height_mm=y - np.float32(shift_y),
            ripples=tuple(ripples),
            cavity=far,
            lung=far.copy(),
            edge_mm=float(spacing_mm[1] + spacing_mm[2]) / 2.0,
        )

    def around(self, *points: Point, reach_mm: float | Point) -> Region:
        """The box that holds all points and what lies within reach of them.

        Args:
            points: (x, y, z) in patient mm.
            reach_mm: to every side, or along x, y and z.
        """
        reach = (reach_mm,) * 3 if isinstance(reach_mm, float) else reach_mm
        corners = np.asarray(points, dtype=np.float64)
        lower, upper = corners.min(axis=0) - reach, corners.max(axis=0) + reach
        centre, half = (lower + upper) / 2.0, (upper - lower) / 2.0 + _MARGIN_MM
        cosine, sine = _rotation(self._patient)
        turn = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, self._patient.length]])
        centre = turn @ centre + self._patient.shift_mm
        half = np.abs(turn) @ (half + self._reach_mm)
        slices = [
            slice(
                int(np.searchsorted(axis, centre[i] - half[i])),
                int(np.searchsorted(axis, centre[i] + half[i])),
            )
            for axis, i in zip(self._axes, (2, 1, 0), strict=True)
        ]
        return self.whole.crop((slices[0], slices[1], slices[2]))


def ellipsoid(region: Region, centre: Point, semi: Point, turn_deg: float = 0.0) -> Field:
    """Distance to an ellipsoid.

    Args:
        region: where to compute it.
        centre: (x, y, z) in mm.
        semi: half axes along x, y and z in mm; 1000 or more makes a cylinder.
        turn_deg: about the z axis, from x towards y.
    """
    angle = np.deg2rad(turn_deg)
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    from_x, from_y = region.x - np.float32(centre[0]), region.y - np.float32(centre[1])
    offsets = [cosine * from_x + sine * from_y, cosine * from_y - sine * from_x]
    sizes = list(semi[:2])
    if semi[2] < _LONG_AXIS_MM:
        offsets.append(region.z - np.float32(centre[2]))
        sizes.append(semi[2])
    tiny = 1e-6
    scaled = [offset / np.float32(size) for offset, size in zip(offsets, sizes, strict=True)]
    steep = [part / np.float32(size) for part, size in zip(scaled, sizes, strict=True)]
    k = np.sqrt(reduce(np.add, [part * part for part in scaled]) + np.float32(tiny))
    slope = np.sqrt(reduce(np.add, [part * part for part in steep]) + np.float32(tiny / max(sizes) ** 2))
    return np.asarray(k * (k - 1.0) / slope, dtype=np.float32)


def tube(region: Region, points: Sequence[Point], radii: Sequence[float]) -> Field:
    """Distance to a tube along a line of points, with a radius at each of them."""
    links = zip(points[:-1], points[1:], radii[:-1], radii[1:], strict=True)
    return reduce(np.minimum, [_cone(region, *link) for link in links])


def smooth_union(first: Field, second: Field, blend_mm: float) -> Field:
    """Union of two shapes whose seam is rounded over `blend_mm`."""
    gap = np.clip(blend_mm - np.abs(first - second), 0.0, None)
    union: Field = np.minimum(first, second) - gap * gap / (4.0 * blend_mm)
    return union


def carve(shape: Field, tool: Field, blend_mm: float) -> Field:
    """The shape without the tool, with an edge rounded over `blend_mm`."""
    return -smooth_union(-shape, tool, blend_mm)


def _cone(region: Region, start: Point, end: Point, start_mm: float, end_mm: float) -> Field:
    along = np.asarray(end, dtype=np.float32) - np.asarray(start, dtype=np.float32)
    from_x, from_y, from_z = region.x - start[0], region.y - start[1], region.z - start[2]
    length = max(float(along @ along), 1e-6)
    part = np.clip((from_x * along[0] + from_y * along[1] + from_z * along[2]) / length, 0.0, 1.0)
    from_x = from_x - part * along[0]
    from_y = from_y - part * along[1]
    from_z = from_z - part * along[2]
    distance: Field = np.sqrt(from_x * from_x + from_y * from_y + from_z * from_z)
    distance -= start_mm + part * (end_mm - start_mm)
    return distance


def _rotation(patient: Patient) -> tuple[np.float32, np.float32]:
    angle = np.deg2rad(patient.turn_deg)
    return np.float32(np.cos(angle)), np.float32(np.sin(angle))


def _centred_axes(shape: Shape, spacing_mm: Spacing) -> tuple[Field, Field, Field]:
    z, y, x = (
        ((np.arange(size) - (size - 1) / 2.0) * step).astype(np.float32)
        for size, step in zip(shape, spacing_mm, strict=True)
    )
    return z, y, x
