"""Ways in which a mask goes wrong, each from slight to severe, on label maps, with a seeded generator.

They fill the grades of quality that a few cross-fitted checkpoints do not reach, above all masks that miss
their structure altogether.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cohort.case import Spacing
from cohort.errors import DataError
from sentinel.slices import Mask

Distance = NDArray[np.float32]
Region = tuple[slice, slice, slice]

_SIDES = {"left": "right", "right": "left"}
_MIN_PAD_VOXELS = 6
_MISS_ATTEMPTS = 20


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

    def with_mask(self, mask: Mask) -> "Subject":
        """The same surroundings with another mask."""
        return Subject(
            name=self.name,
            mask=mask,
            others=self.others,
            spacing_mm=self.spacing_mm,
            distance_mm=signed_distance_mm(mask, self.spacing_mm),
        )


def make_subject(
    name: str, mask: Mask, others: Mapping[str, Mask], spacing_mm: Spacing
) -> tuple[Subject, Region]:
    """Cut a mask and its surroundings out of a volume, with room around it of its own size on each side.

    Args:
        name: of the structure.
        mask: (D, H, W).
        others: masks of the other structures, same shape.
        spacing_mm: (D, H, W).

    Returns:
        The subject, and where it lies in the volume.

    Raises:
        DataError: for an empty mask, which cannot go wrong any further.
    """
    if not mask.any():
        raise DataError(f"The mask of {name!r} is empty; only a mask with voxels can be corrupted")
    region = _region(mask)
    inside = np.ascontiguousarray(mask[region])
    around = {
        other: np.ascontiguousarray(voxels[region]) for other, voxels in others.items() if other != name
    }
    subject = Subject(
        name=name,
        mask=inside,
        others=around,
        spacing_mm=spacing_mm,
        distance_mm=signed_distance_mm(inside, spacing_mm),
    )
    return subject, region


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
    along = _coordinates_mm(subject) @ _direction(rng)
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
    offset = _direction(rng) * severity * _extent_mm(subject.mask, subject.spacing_mm) * 0.8
    return _moved(subject.mask, np.rint(offset / subject.spacing_mm).astype(int))


def shift_slices(subject: Subject, severity: float, rng: np.random.Generator) -> Mask:
    """Move all slices beyond a random one within their plane."""
    filled = np.flatnonzero(subject.mask.any(axis=(1, 2)))
    start = int(rng.choice(filled))
    offset = _direction(rng) * severity * _extent_mm(subject.mask, subject.spacing_mm)
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
        [np.ptp(np.flatnonzero(subject.mask.any(axis=_other_axes(axis)))) + 1 for axis in range(3)]
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


def _region(mask: Mask) -> Region:
    bounds = []
    for axis in range(3):
        filled = np.flatnonzero(mask.any(axis=_other_axes(axis)))
        first, last = int(filled[0]), int(filled[-1]) + 1
        pad = max(_MIN_PAD_VOXELS, last - first)
        bounds.append(slice(max(0, first - pad), min(mask.shape[axis], last + pad)))
    return (bounds[0], bounds[1], bounds[2])


def _other_axes(axis: int) -> tuple[int, ...]:
    return tuple(other for other in range(3) if other != axis)


def _coordinates_mm(subject: Subject) -> NDArray[np.float64]:
    axes = [
        np.arange(size) * spacing
        for size, spacing in zip(subject.mask.shape, subject.spacing_mm, strict=True)
    ]
    return np.asarray(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1), dtype=np.float64)


def _extent_mm(mask: Mask, spacing_mm: Spacing) -> NDArray[np.float64]:
    spans = [np.ptp(np.flatnonzero(mask.any(axis=_other_axes(axis)))) + 1.0 for axis in range(3)]
    return np.asarray(np.array(spans) * np.array(spacing_mm), dtype=np.float64)


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
    coordinates = _coordinates_mm(subject)
    balls = np.zeros_like(subject.mask)
    for _ in range(int(rng.integers(1, 4))):
        centre = centres[int(rng.integers(len(centres)))] * np.array(subject.spacing_mm)
        radius = (0.3 + 2.0 * severity * rng.random()) * subject.depth_mm
        balls |= ((coordinates - centre) ** 2).sum(axis=-1) <= radius**2
    return balls
