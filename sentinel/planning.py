"""Slices of many masks on their way to the network: cut once, scored in full batches, a few at a time."""

from collections import deque
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from cohort.errors import DataError, GeometryError
from cohort.volume import Array, Volume
from sentinel.config import SentinelConfig
from sentinel.slices import Grey, Mask, choose_slices, crop_around, cut_slice, grey_values, oriented

CaseMasks = tuple[Volume, Mapping[str, Mask]]
Judge = Callable[[NDArray[np.uint8], NDArray[np.int64]], NDArray[np.float32]]
"""From slices (N, 2, S, S) of structures (N,) to what is thought of each, (N, JUDGEMENTS)."""

JUDGEMENTS = 3
"""Of a slice: its score; the overlap with what the dense head drew, and the size of that, as in
`sentinel.dense.drawn_overlap`; these two are NaN without a dense head."""

DARKEST_TISSUE_HU = -150.0
"""Every CT that is not cropped to the inside of an organ has a darker voxel: air, or the rim of fat."""


def check_image(volume: Volume, intensity: str) -> None:
    """Refuse an image that no score of would mean anything.

    Args:
        volume: the image.
        intensity: what the sentinel expects, "ct_hu" or "per_volume_percentile".

    Raises:
        DataError: for another number of dimensions than three, NaN or infinite voxels, or values that cannot
            be Hounsfield units where these are expected.
    """
    array = volume.array
    if array.ndim != 3 or 0 in array.shape:
        raise DataError(f"The image has shape {array.shape}; expected three dimensions (D, H, W), none empty")
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise DataError("The image has NaN or infinite voxels; expected finite intensities: repair the scan")
    if intensity == "ct_hu" and low > DARKEST_TISSUE_HU:
        raise DataError(
            f"The image holds values from {low:.4g} to {high:.4g} and is not in Hounsfield units (no voxel "
            f"is below {DARKEST_TISSUE_HU:.0f}), but the sentinel is one for CT in HU (intensity ct_hu): "
            "give it the CT before any normalisation, or take a sentinel for this modality"
        )


def check_mask(name: str, mask: Array, volume: Volume) -> None:
    """Refuse a mask of another shape than its image.

    Raises:
        GeometryError: naming both shapes.
    """
    if mask.shape != volume.array.shape:
        raise GeometryError(
            f"The mask of {name!r} has shape {mask.shape}, but its image has shape {volume.array.shape} "
            "(D, H, W); both must lie on one grid"
        )


class SliceQueue:
    """Collects cut slices of many masks and has them scored whenever a batch is full.

    Args:
        config: how slices are cut.
        judge: scores slices.
        batch: slices that are scored at a time.
    """

    def __init__(self, config: SentinelConfig, judge: Judge, batch: int) -> None:
        self._config, self._judge, self._batch = config, judge, batch
        self._cut: deque[tuple[NDArray[np.uint8], int]] = deque()
        self._scores = np.zeros((0, JUDGEMENTS), dtype=np.float32)
        self._volume: Volume | None = None
        self._turned: tuple[Grey, tuple[int, int]] | None = None
        self.length = 0
        self.forgotten = 0

    @property
    def done(self) -> int:
        """How many of all slices have their score."""
        return self.forgotten + len(self._scores)

    def add(self, volume: Volume, mask: Mask, structure: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Cut the slices of a mask.

        Args:
            volume: the image; its grey values are kept until another one comes.
            mask: (D, H, W) on its grid.
            structure: index of the structure's embedding.

        Returns:
            Indices of the slices, and the voxels that the mask has in each; none for an empty mask.
        """
        config = self._config
        if not mask.any():
            return (), ()
        grey, margin = self._image(volume)
        stored = Volume(array=mask.astype(np.uint8), affine=volume.affine)
        turned = oriented(stored, config.orientation).array > 0
        indices = choose_slices(turned, config.max_slices)
        for index in indices:
            crop = crop_around(turned[index], margin)
            cut = cut_slice((grey[index], turned[index]), crop, config.image_size).numpy()
            self._cut.append((cut, structure))
        self.length += len(indices)
        while len(self._cut) >= self._batch:
            self._flush(self._batch)
        return indices, tuple(int(np.count_nonzero(turned[index])) for index in indices)

    def finish(self) -> None:
        """Score what is left."""
        if self._cut:
            self._flush(len(self._cut))

    def scores(self, start: int, count: int) -> NDArray[np.float32]:
        """Judgements (count, JUDGEMENTS) of slices from `start` on, counted from the first ever added."""
        return self._scores[start - self.forgotten : start - self.forgotten + count]

    def forget(self, end: int) -> None:
        """Drop the scores of all slices before `end`."""
        self._scores = self._scores[end - self.forgotten :]
        self.forgotten = end

    def _image(self, volume: Volume) -> tuple[Grey, tuple[int, int]]:
        if self._volume is not volume or self._turned is None:
            turned = oriented(volume, self._config.orientation)
            self._volume = volume
            self._turned = (
                grey_values(turned.array, self._config.intensity),
                self._config.margin_voxels(turned.spacing_mm),
            )
        return self._turned

    def _flush(self, count: int) -> None:
        taken = [self._cut.popleft() for _ in range(count)]
        slices = np.stack([cut for cut, _ in taken])
        structures = np.array([structure for _, structure in taken], dtype=np.int64)
        self._scores = np.concatenate([self._scores, self._judge(slices, structures)])
