"""Ways in which a mask goes wrong, each from slight to severe, on label maps, with a seeded generator.

They fill the grades of quality that a few cross-fitted checkpoints do not reach, above all masks that miss
their structure altogether.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cohort.case import Spacing
from cohort.errors import DataError
from sentinel.slices import Mask
from sentinel.subjects import Distance, Region, Subject, make_subject, other_axes, region_around

MAX_VOXELS = 500_000
"""A structure whose surroundings have more voxels is corrupted on a coarser grid."""

_SIDES = {"left": "right", "right": "left"}
_MISS_ATTEMPTS = 20


def erode(subject: Subject, severity: float, rng: np.random.Generator) -> Mask:
    """Take a layer off all around."""
    return subject.distance_mm > severity * subject.depth_mm


def dilate(subject: Subject, severity: float, rng: np.random.Generator) -> Mask:
    """Add a layer all around."""
    return subject.distance_mm > -1.5 * severity * subject.depth_mm


def jitter_boundary(subject: Subject, severity: float, rng: np.random.Generator) -> Mask:
    """Move the boundary in and out by a smooth random field."""
    reach = subject.depth_mm * rng.uniform(0.4, 1.5)
    return subject.distance_mm > 1.2 * severity * subject.depth_mm * _smooth_noise(subject, reach, rng)


def smooth_away(subject: Subject, severity: float, rng: np.random.Generator) -> Mask:
    """Blur the mask and threshold it, as an undertrained network does: thin parts go."""
    sigma = [2.0 * severity * subject.depth_mm / spacing for spacing in subject.spacing_mm]
    blurred = ndimage.gaussian_filter(subject.mask.astype(np.float32), sigma)
    return np.asarray(blurred > rng.uniform(0.3, 0.6) * blurred.max())


def lose_part(subject: Subject, severity: float, rng: np.random.Generator) -> Mask:
    """Lose one of several components, or all on one side of a random plane."""
    labelled, count = ndimage.label(subject.mask)
    if count > 1 and rng.random() < 0.5:
        others: Mask = subject.mask & (labelled != rng.integers(1, count + 1))
        return others
    along = subject.coordinates_mm @ _direction(rng)
    height = np.quantile(along[subject.mask], 0.95 * severity)
    kept: Mask = subject.mask & (along >= height)
    return kept


def lose_slices(subject: Subject, severity: float, rng: np.random.Generator) -> Mask:
    """Lose slices at one end of the first axis."""
    filled = np.flatnonzero(subject.mask.any(axis=(1, 2)))
    lost = min(len(filled) - 1, max(1, round(severity * len(filled))))
    kept = subject.mask.copy()
    kept[filled[:lost] if rng.random() < 0.5 else filled[len(filled) - lost :]] = False
    return kept


def shift(subject: Subject, severity: float, rng: np.random.Generator) -> Mask:
    """Move the whole mask."""
    offset = _direction(rng) * severity * subject.extent_mm * 0.8
    return _moved(subject.mask, np.rint(offset / subject.spacing_mm).astype(int))


def shift_slices(subject: Subject, severity: float, rng: np.random.Generator) -> Mask:
    """Move all slices beyond a random one within their plane."""
    filled = np.flatnonzero(subject.mask.any(axis=(1, 2)))
    start = int(rng.choice(filled))
    offset = _direction(rng) * severity * subject.extent_mm
    offset[0] = 0.0
    moved = _moved(subject.mask, np.rint(offset / subject.spacing_mm).astype(int))
    return np.concatenate([subject.mask[:start], moved[start:]])


def punch_holes(subject: Subject, severity: float, rng: np.random.Generator) -> Mask:
    """Take balls out of the mask."""
    balls = _balls(subject, subject.mask, severity, rng)
    return subject.mask & ~balls


def leak(subject: Subject, severity: float, rng: np.random.Generator) -> Mask:
    """Run over into a neighbour, or into whatever lies beyond the boundary."""
    reach = (0.3 + 3.0 * severity) * subject.depth_mm
    near = [other for other in subject.others.values() if (other & (subject.distance_mm > -reach)).any()]
    if near and rng.random() < 0.7:
        neighbour = near[int(rng.integers(len(near)))]
        return subject.mask | (neighbour & (subject.distance_mm > -reach))
    shell = subject.mask & (subject.distance_mm <= 1.01 * min(subject.spacing_mm))
    return subject.mask | _balls(subject, shell if shell.any() else subject.mask, severity, rng)


def add_islands(subject: Subject, severity: float, rng: np.random.Generator) -> Mask:
    """Add false components away from the mask."""
    outside = subject.distance_mm < -subject.depth_mm
    if not outside.any():
        return dilate(subject, severity, rng)
    return subject.mask | _balls(subject, outside, severity, rng)


def wrong_structure(subject: Subject, severity: float, rng: np.random.Generator) -> Mask:
    """Take another structure for this one; where there is no other, miss altogether."""
    present = [other for other in subject.others.values() if other.any()]
    if not present:
        return miss(subject, severity, rng)
    return present[int(rng.integers(len(present)))].copy()


def swap_sides(subject: Subject, severity: float, rng: np.random.Generator) -> Mask:
    """Take the structure of the other side; where there is none, mirror the mask along the last axis."""
    words = subject.name.replace("_", " ").split()
    counterpart = sorted(_SIDES.get(word, word) for word in words)
    for name, other in subject.others.items():
        if sorted(name.replace("_", " ").split()) == counterpart and other.any():
            return other.copy()
    return subject.mask[:, :, ::-1].copy()


def miss(subject: Subject, severity: float, rng: np.random.Generator) -> Mask:
    """Put the mask where the structure is not; where there is no room for that, take a shell around it."""
    extent = np.array(
        [np.ptp(np.flatnonzero(subject.mask.any(axis=other_axes(axis)))) + 1 for axis in range(3)]
    )
    for _ in range(_MISS_ATTEMPTS):
        offset = np.rint(_direction(rng) * extent * rng.uniform(0.8, 1.6)).astype(int)
        moved = _moved(subject.mask, offset)
        if moved.any() and not (moved & subject.mask).any():
            return moved
    return (subject.distance_mm < 0.0) & (subject.distance_mm > -1.5 * subject.depth_mm)


Corruption = Callable[[Subject, float, np.random.Generator], Mask]

CORRUPTIONS: Mapping[str, Corruption] = MappingProxyType(
    {
        "erode": erode,
        "dilate": dilate,
        "jitter_boundary": jitter_boundary,
        "smooth_away": smooth_away,
        "lose_part": lose_part,
        "lose_slices": lose_slices,
        "shift": shift,
        "shift_slices": shift_slices,
        "punch_holes": punch_holes,
        "leak": leak,
        "add_islands": add_islands,
        "wrong_structure": wrong_structure,
        "swap_sides": swap_sides,
        "miss": miss,
    }
)
"""All corruptions: (subject, severity in 0..1, generator) -> mask of the same shape, which may be empty."""


def corrupt(subject: Subject, severity: float, rng: np.random.Generator) -> Mask:
    """Corrupt a mask in one way, sometimes in two.

    Args:
        subject: the mask.
        severity: 0 (slight) to 1 (severe).
        rng: decides how.

    Returns:
        (D, H, W) as the subject's mask; may be empty.
    """
    names = sorted(CORRUPTIONS)
    mask = CORRUPTIONS[names[int(rng.integers(len(names)))]](subject, severity, rng)
    if rng.random() < 0.3 and mask.any():
        again = CORRUPTIONS[names[int(rng.integers(len(names)))]]
        mask = again(subject.with_mask(mask), severity * rng.random(), rng)
    return mask


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Corrupter:
    """Draws corruptions of one structure of a label map, on every n-th voxel where the structure is large.

    Args:
        region: of the label map, outside of which no corruption has a voxel.
        mask: (D, H, W) of the region, the structure.
        subject: the same on every `stride`-th voxel.
        stride: at least 1.
    """

    region: Region
    mask: Mask
    subject: Subject
    stride: int

    @classmethod
    def of(
        cls, name: str, labels: NDArray[np.uint8], names: Mapping[str, int], spacing_mm: Spacing
    ) -> "Corrupter":
        """A corrupter of a structure.

        Args:
            name: of the structure, one of `names`.
            labels: (D, H, W) label map.
            names: of all its structures -> their labels.
            spacing_mm: (D, H, W).

        Raises:
            DataError: if the label map does not hold the structure.
        """
        everywhere = labels == names[name]
        if not everywhere.any():
            raise DataError(f"The mask of {name!r} is empty; only a mask with voxels can be corrupted")
        region = region_around(everywhere)
        mask = everywhere[region]
        stride = max(1, math.ceil((mask.size / MAX_VOXELS) ** (1.0 / 3.0)))
        coarse, thinned = _thinned(mask, stride), labels[region][::stride, ::stride, ::stride]
        others = {other: thinned == label for other, label in names.items() if other != name}
        spacing = (spacing_mm[0] * stride, spacing_mm[1] * stride, spacing_mm[2] * stride)
        return cls(
            region=region, mask=mask, subject=make_subject(name, coarse, others, spacing), stride=stride
        )

    def draw(self, rng: np.random.Generator) -> Mask:
        """A random corruption of random severity: (D, H, W) of the region, may be empty."""
        corrupted = corrupt(self.subject, float(rng.random()), rng)
        if self.stride == 1:
            return corrupted
        changed = corrupted != self.subject.mask
        for axis, size in enumerate(self.mask.shape):
            changed = np.repeat(changed, self.stride, axis=axis).take(range(size), axis=axis)
            corrupted = np.repeat(corrupted, self.stride, axis=axis).take(range(size), axis=axis)
        return np.where(changed, corrupted, self.mask)


def _thinned(mask: Mask, stride: int) -> Mask:
    """Every n-th voxel of a mask, or where that leaves none, one voxel of it."""
    thinned = mask[::stride, ::stride, ::stride].copy()
    if not thinned.any():
        thinned[tuple(int(i) // stride for i in np.argwhere(mask)[0])] = True
    return thinned


def _direction(rng: np.random.Generator) -> NDArray[np.float64]:
    vector = rng.standard_normal(3)
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-9))


def _moved(mask: Mask, offset: NDArray[np.int_]) -> Mask:
    moved = np.zeros_like(mask)
    source, target = [], []
    for step, size in zip(offset.tolist(), mask.shape, strict=True):
        source.append(slice(max(0, -step), max(0, min(size, size - step))))
        target.append(slice(max(0, step), max(0, min(size, size + step))))
    moved[tuple(target)] = mask[tuple(source)]
    return moved


def _smooth_noise(subject: Subject, reach_mm: float, rng: np.random.Generator) -> Distance:
    noise = rng.standard_normal(subject.mask.shape, dtype=np.float32)
    smooth = ndimage.gaussian_filter(noise, [reach_mm / spacing for spacing in subject.spacing_mm])
    return np.asarray(smooth / max(float(smooth.std()), 1e-9), dtype=np.float32)


def _balls(subject: Subject, where: Mask, severity: float, rng: np.random.Generator) -> Mask:
    """Balls around random voxels of `where`, about as large as the mask is thick."""
    centres = np.argwhere(where)
    coordinates = subject.coordinates_mm
    balls = np.zeros_like(subject.mask)
    for _ in range(int(rng.integers(1, 4))):
        centre = centres[int(rng.integers(len(centres)))] * np.array(subject.spacing_mm)
        radius = (0.3 + 2.0 * severity * rng.random()) * subject.depth_mm
        balls |= ((coordinates - centre) ** 2).sum(axis=-1) <= radius**2
    return balls
