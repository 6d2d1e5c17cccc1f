"""From a case's files to what a network sees: canonical orientation, one spacing, normalised intensities."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cohort.case import Shape, Spacing, Structure
from cohort.errors import ModelError
from cohort.records import TrainingCase
from cohort.slabs import slices_in
from cohort.volume import (
    Grid,
    Volume,
    check_same_grid,
    read_grid,
    read_image,
    read_label_map,
    to_canonical,
)
from segmenters.config import SegmenterConfig
from segmenters.resampling import resample_labels, resample_linear, resampled_shape

IGNORED = 255
"""Channel of voxels that the annotation says nothing of: no loss, no metric and no centre of a patch."""

PERCENTILES = (0.5, 99.5)
_MAX_PLACES = 4096


Places = Tensor | NDArray[np.int32]
"""(N, 3) voxels."""


class Voxels(Protocol):
    """A volume (D, H, W) that boxes are read from: a tensor, or a file that is larger than memory."""

    @property
    def shape(self) -> torch.Size:
        """(D, H, W)."""

    def __getitem__(self, box: tuple[slice, ...], /) -> Tensor:
        """The voxels of a box."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PreparedCase:
    """A training case in memory, or on disk and read box by box.

    Args:
        case_id: of the case.
        image: (D, H, W) float32, normalised.
        channels: (D, H, W) uint8, 0 for background or unknown, `IGNORED` outside of annotated slices, else
            the network's channel.
        known: (C,) bool, the channels that the annotation answers for; background always.
        places: channel -> (N, 3) voxels of it, to centre patches on; only channels that occur.
        pseudo: whether a model made the labels.
        weight: (C,) float32, how much the labels of each channel count in the loss; None counts all fully.
        annotated: (N, 3) voxels of annotated slices, to centre patches on that would be cut anywhere else;
            None where all slices are annotated.
    """

    case_id: str
    image: Voxels
    channels: Voxels
    known: Tensor
    places: Mapping[int, Places]
    pseudo: bool = False
    weight: Tensor | None = None
    annotated: Places | None = None


def trained_structures(
    cases: Sequence[TrainingCase], structures: Sequence[Structure]
) -> tuple[Structure, ...]:
    """The structures that at least one case annotates, in the order of the cohort.

    Raises:
        ModelError: without cases, without annotated structures, or for one that the cohort does not have.
    """
    if not cases:
        raise ModelError("There is no training case; label at least one case before training")
    known = {structure.name for structure in structures}
    for case in cases:
        strange = sorted(case.annotated - known)
        if strange:
            raise ModelError(
                f"Training case {case.case_id} annotates {strange}, which is not among the structures "
                f"{sorted(known)}; declare it or leave it out"
            )
    seen = frozenset[str]().union(*(case.annotated for case in cases))
    if not seen:
        raise ModelError(
            f"None of the {len(cases)} training cases annotates a structure; nothing can be learned from them"
        )
    return tuple(structure for structure in structures if structure.name in seen)


def median_spacing_mm(cases: Sequence[TrainingCase]) -> Spacing:
    """Median voxel size of the cases in canonical (D, H, W), from their headers."""
    sizes = [to_canonical_spacing(case) for case in cases]
    depth, height, width = (float(size) for size in np.median(np.array(sizes), axis=0))
    return (depth, height, width)


def to_canonical_spacing(case: TrainingCase) -> Spacing:
    """Voxel size of a case's image in canonical (D, H, W)."""
    affine = read_grid(case.image).affine
    turned = to_canonical(Volume(array=np.zeros((1, 1, 1), dtype=np.uint8), affine=affine))
    return turned.spacing_mm


def normalise(image: NDArray[np.float32], config: SegmenterConfig) -> NDArray[np.float32]:
    """Scale intensities as the config says.

    Args:
        image: (D, H, W), HU for "ct_hu".
        config: says how.

    Returns:
        For "ct_hu" [-1, 1]; for "per_volume_percentile" mean 0 and standard deviation 1. A constant image
        becomes zeros there.
    """
    if config.intensity == "ct_hu":
        lower, upper = config.window_hu
        scaled = np.clip(image, lower, upper)
        scaled -= lower
        scaled *= 2.0 / (upper - lower)
        scaled -= 1.0
        return np.asarray(scaled, dtype=np.float32)
    low, high = np.percentile(image, PERCENTILES)
    values = np.clip(image, low, high).astype(np.float64)
    spread = float(values.std())
    values -= values.mean()
    values /= max(spread, 1e-8)
    return np.asarray(values, dtype=np.float32)


def padding_value(config: SegmenterConfig) -> float:
    """What lies outside the volume: air for "ct_hu", the mean for "per_volume_percentile"."""
    return -1.0 if config.intensity == "ct_hu" else 0.0


def prepare_image(stored: Volume, spacing_mm: Spacing, config: SegmenterConfig) -> Tensor:
    """A stored image as the network sees it: (D, H, W) float32, canonical, at a spacing, normalised."""
    canonical = to_canonical(stored)
    image = torch.from_numpy(normalise(canonical.array, config))
    return resample_linear(image, working_shape(canonical, spacing_mm))


def working_shape(canonical: Volume, spacing_mm: Spacing) -> Shape:
    """Shape of a canonical volume at the network's spacing."""
    depth, height, width = canonical.array.shape
    return resampled_shape((depth, height, width), canonical.spacing_mm, spacing_mm)


def prepare_training_case(
    case: TrainingCase,
    trained: Sequence[Structure],
    structures: Sequence[Structure],
    spacing_mm: Spacing,
    config: SegmenterConfig,
    rng: np.random.Generator,
) -> PreparedCase:
    """Read and prepare a training case.

    Args:
        case: to read.
        trained: structures with a channel, in the order of the channels from 1.
        structures: of the cohort, whose labels the label map may hold.
        spacing_mm: (D, H, W) that the network works at.
        config: of the segmenter.
        rng: draws the remembered voxels of large structures.

    Raises:
        DataError: if a file is missing or broken, a label is not declared, or an annotated slab reaches
            beyond the volume.
        GeometryError: if the label map does not lie on the image's grid.
    """
    grid, image = _read_prepared(case, spacing_mm, config)
    channels = _read_channels(case, grid, trained, structures, spacing_mm)
    return PreparedCase(
        case_id=case.case_id,
        image=image,
        channels=channels,
        known=torch.tensor([True, *(structure.name in case.annotated for structure in trained)]),
        places=places_of(channels, rng),
        pseudo=case.pseudo,
        weight=channel_weights(case, trained),
        annotated=annotated_places(channels, rng) if case.slabs else None,
    )


def _read_prepared(case: TrainingCase, spacing_mm: Spacing, config: SegmenterConfig) -> tuple[Grid, Tensor]:
    """The image's grid, and the prepared image; the stored one leaves memory before the labels come."""
    stored = read_image(case.image)
    depth, height, width = stored.array.shape
    return Grid(shape=(depth, height, width), affine=stored.affine), prepare_image(stored, spacing_mm, config)


def _read_channels(
    case: TrainingCase,
    grid: Grid,
    trained: Sequence[Structure],
    structures: Sequence[Structure],
    spacing_mm: Spacing,
) -> Tensor:
    labels = read_label_map(case.label_map, frozenset(s.label for s in structures))
    check_same_grid(grid, labels, case.image, case.label_map)
    table = np.zeros(256, dtype=np.uint8)
    for channel, structure in enumerate(trained, start=1):
        if structure.name in case.annotated:
            table[structure.label] = channel
    found = table[labels.array]
    if case.slabs:
        found[~slices_in(case.slabs, len(found))] = IGNORED
    canonical = to_canonical(Volume(array=found, affine=grid.affine))
    return resample_labels(torch.from_numpy(canonical.array), working_shape(canonical, spacing_mm))


def channel_weights(case: TrainingCase, trained: Sequence[Structure]) -> Tensor | None:
    """How much the labels of each channel count, (C,) float32 in (0, 1]; None where all count fully.

    Background is what no annotated structure claims, so it counts as their mean does.
    """
    if all(weight == 1.0 for weight in case.weights.values()):
        return None
    own = [case.weights.get(structure.name, 1.0) for structure in trained]
    annotated = [w for w, structure in zip(own, trained, strict=True) if structure.name in case.annotated]
    return torch.tensor([math.fsum(annotated) / len(annotated), *own], dtype=torch.float32)


def places_of(channels: Tensor, rng: np.random.Generator) -> dict[int, Places]:
    """Channel -> (N, 3) voxels of it, a random part of those of a large structure."""
    flat = channels.numpy().ravel()
    places: dict[int, Places] = {}
    last = int(np.where(flat == IGNORED, 0, flat).max())
    for channel in range(1, last + 1):
        voxels = np.flatnonzero(flat == channel)
        if len(voxels) > 0:
            places[channel] = _some(voxels, channels, rng)
    return places


def annotated_places(channels: Tensor, rng: np.random.Generator) -> Places:
    """(N, 3) voxels that the annotation answers for, background too, a random part of many.

    None (N = 0) where an annotated slab is so thin that it is lost at the network's spacing.
    """
    return _some(np.flatnonzero(channels.numpy().ravel() != IGNORED), channels, rng)


def _some(voxels: NDArray[np.intp], channels: Tensor, rng: np.random.Generator) -> Places:
    if len(voxels) > _MAX_PLACES:
        voxels = voxels[np.sort(rng.choice(len(voxels), _MAX_PLACES, replace=False))]
    at = np.stack(np.unravel_index(voxels, tuple(channels.shape)), axis=1)
    return torch.from_numpy(at.astype(np.int32))
