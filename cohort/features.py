"""What an image looks like, in a few hundred numbers without a model: how alike cases are, at a glance."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cohort.errors import DataError
from cohort.volume import Volume, read_image, to_canonical

VERSION = 1
"""Of the numbers: files of another version are made again."""

BINS = 32
SIDE = 8
EXTREME = 1e6
COMPONENTS = 32

_WIDTHS = (BINS, SIDE**3, 6)
LENGTH = sum(_WIDTHS)
"""Numbers per image: a histogram, a thumbnail, and three extents and spacings."""

_PERCENTILES = (0.5, 99.5)

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageFeatures:
    """Numbers of one image.

    Args:
        values: (LENGTH,), each in about [0, 1] or a logarithm of millimetres.
        broken: why nobody can annotate the scan, "" for one that is sound.
    """

    values: Vectors
    broken: str = ""


def read_features(path: Path) -> ImageFeatures:
    """The features of an image file; one that cannot be read is broken, and all its numbers are 0."""
    try:
        return image_features(read_image(path))
    except DataError as error:
        return ImageFeatures(values=np.zeros(LENGTH, dtype=np.float32), broken=f"cannot be read: {error}")


def image_features(image: Volume) -> ImageFeatures:
    """Intensity histogram, coarse thumbnail, extent and spacing of an image.

    Args:
        image: (D, H, W) as stored, finite.

    Returns:
        Intensities are scaled so that the 0.5 and 99.5 percentiles are 0 and 1, since those of MR have no
        unit. The histogram is of square roots of shares, so that distances are Hellinger's. The thumbnail
        is the mean of 8 x 8 x 8 blocks in canonical orientation. A constant image, and one with an intensity
        beyond a million, is broken.
    """
    canonical = to_canonical(image)
    array = canonical.array.astype(np.float32)
    low, high = (float(value) for value in np.percentile(array, _PERCENTILES))
    scaled = np.clip((array - low) / (high - low), 0.0, 1.0) if high > low else np.zeros_like(array)
    counts = np.histogram(scaled, bins=BINS, range=(0.0, 1.0))[0]
    spacing_mm = np.array(canonical.spacing_mm)
    size = np.log(np.concatenate([spacing_mm * array.shape, spacing_mm]))
    values = np.concatenate([np.sqrt(counts / array.size), _thumbnail(scaled).ravel(), size])
    return ImageFeatures(values=values.astype(np.float32), broken=_broken(array))


def embed(features: Vectors, components: int = COMPONENTS) -> Vectors:
    """Features of many cases as coordinates in which distances mean how alike two cases are.

    Every number is centred and scaled to unit variance, each of the three groups (histogram, thumbnail, size)
    weighs the same, and the principal components that explain most are kept.

    Args:
        features: (N, LENGTH).
        components: how many coordinates to keep at most.

    Returns:
        (N, C), scaled so that the root mean square distance to the mean is 1 (0 where all cases are alike).
        The same for the same rows in any order, up to rounding.
    """
    spread = features.std(axis=0, dtype=np.float64)
    live = spread > 1e-6
    centred = np.zeros(features.shape)
    centred[:, live] = (features[:, live] - features[:, live].mean(axis=0, dtype=np.float64)) / spread[live]
    weights = np.repeat([1.0 / np.sqrt(width) for width in _WIDTHS], _WIDTHS)
    return principal(centred * weights, components)


def principal(centred: NDArray[np.float64], components: int = COMPONENTS) -> Vectors:
    """Coordinates (N, C) of centred rows (N, F) along their principal components, scaled as in `embed`."""
    values, axes = np.linalg.eigh(centred.T @ centred)
    kept = np.argsort(values)[::-1][: min(components, len(centred), centred.shape[1])]
    axes = axes[:, kept]
    largest = np.abs(axes).argmax(axis=0)
    axes = axes * np.sign(axes[largest, np.arange(axes.shape[1])])
    coordinates = centred @ axes
    scale = np.sqrt(np.square(coordinates).sum(axis=1).mean()) if len(coordinates) else 0.0
    return np.asarray(coordinates / scale if scale > 0.0 else coordinates, dtype=np.float32)


def embed_any(features: Sequence[NDArray[np.floating]], components: int = COMPONENTS) -> Vectors:
    """Features of another origin, (F,) each, as coordinates: unit variance, then principal components."""
    table = np.array(features, dtype=np.float64)
    spread = table.std(axis=0)
    live = spread > 1e-6 * max(float(np.abs(table).max(initial=0.0)), 1e-12)
    return principal((table[:, live] - table[:, live].mean(axis=0)) / spread[live], components)


def _thumbnail(scaled: NDArray[np.float32]) -> NDArray[np.float64]:
    """(8, 8, 8) means of blocks; an axis shorter than that repeats its voxels."""
    blocks = scaled.astype(np.float64)
    for axis, length in enumerate(scaled.shape):
        starts = np.arange(SIDE) * length // SIDE
        counts = np.maximum(np.diff([*starts, length]), 1)
        shape = [SIDE if a == axis else 1 for a in range(3)]
        blocks = np.add.reduceat(blocks, starts, axis=axis) / counts.reshape(shape)
    return blocks


def _broken(array: NDArray[np.float32]) -> str:
    low, high = float(array.min()), float(array.max())
    if low == high:
        return f"constant: every voxel is {low:g}"
    largest = max(abs(low), abs(high))
    return f"extreme: an intensity of {largest:g}" if largest > EXTREME else ""
