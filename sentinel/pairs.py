"""Image-mask pairs of known DSC: what a sentinel learns from.

They come from masks that cross-fitted checkpoints made of labelled cases, filled up with corruptions so that
every grade of quality is there, masks that miss their structure included.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from cohort.case import Structure
from cohort.errors import ModelError
from cohort.metrics import dsc
from cohort.records import GradedMask
from cohort.seeds import generator
from cohort.volume import Volume, check_same_grid, read_image, read_label_map
from sentinel.config import Report, SentinelConfig
from sentinel.corruptions import Region, Subject, corrupt, make_subject
from sentinel.slices import Crop, Grey, Mask, choose_slices, crop_around, cut_slice, grey_values, oriented

DSC_BINS = (0.0, 1e-6, 0.3, 0.5, 0.7, 0.9, 1.0)
"""Corruptions are drawn until these bins of the mask's DSC are equally full; the first holds total misses."""

SLICES_PER_CORRUPTION = 4
_NATURAL_SHARE = 0.6
_ATTEMPTS = 4
_PUBLISHED_MARGIN, _PUBLISHED_SIZE = 20.0, 256.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pairs:
    """Slices of image and mask, each with the DSC that it should be given.

    Args:
        slices: uint8 (N, 2, S, S), image and mask.
        slice_dsc: (N,), DSC of the slice within its crop.
        volume_dsc: (N,), DSC of the whole mask that the slice is of.
        structure: (N,), index into the structures that the pairs were made for.
        mask_index: (N,), slices of one mask share it.
        natural: (N,), whether a segmenter made the mask (otherwise a corruption did).
        patient_ids: (N,), whose image it is.
    """

    slices: NDArray[np.uint8]
    slice_dsc: NDArray[np.float32]
    volume_dsc: NDArray[np.float32]
    structure: NDArray[np.int64]
    mask_index: NDArray[np.int64]
    natural: NDArray[np.bool_]
    patient_ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.slices)

    def target(self, volume_weight: float) -> NDArray[np.float32]:
        """What to predict: the slice's DSC blended with its mask's.

        Args:
            volume_weight: share of the mask's DSC, 0 to 1.
        """
        return (1.0 - volume_weight) * self.slice_dsc + volume_weight * self.volume_dsc


def make_pairs(
    graded: Sequence[GradedMask],
    structures: Sequence[Structure],
    config: SentinelConfig,
    *,
    seed: int,
    target_count: int | None = None,
    report: Report | None = None,
) -> Pairs:
    """Cut pairs out of graded masks and corruptions of them.

    Args:
        graded: masks of labelled cases; only the structures in `evaluated` give pairs.
        structures: what the label maps hold.
        config: how slices are cut, and `training_slices`, the number of pairs to make.
        seed: of the corruptions, margins and choices; a case's pairs do not depend on the other cases'
            order.
        target_count: number of pairs instead of the config's.
        report: told of the cases done.

    Returns:
        About as many pairs as asked for. A graded mask that is empty, or whose reference is, gives none; its
        reference still gives corruptions.

    Raises:
        ModelError: if not one pair can be made.
        DataError, GeometryError: for a file that is missing, broken or on another grid.
    """
    ordered = sorted(graded, key=lambda mask: (mask.case_id, mask.source))
    by_case = [list(masks) for _, masks in groupby(ordered, key=lambda mask: mask.case_id)]
    quota = math.ceil((target_count or config.training_slices) / max(1, len(by_case)))
    collected = _Collected()
    for done, masks in enumerate(by_case, start=1):
        _add_case(masks, structures, config, quota, generator(seed, "pairs", masks[0].case_id), collected)
        if report is not None:
            report(done, len(by_case), {"pairs": float(len(collected.slices))})
    return collected.pairs(len(graded))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Scene:
    """A case in the sentinel's orientation."""

    patient_id: str
    grey: Grey
    reference: NDArray[np.uint8]
    margin: tuple[int, int]
    spacing_mm: tuple[float, float, float]
    image_size: int
    max_slices: int


class _Collected:
    """Grows pair by pair."""

    def __init__(self) -> None:
        self.slices: list[NDArray[np.uint8]] = []
        self._rows: list[tuple[float, float, int, int, bool, str]] = []
        self._masks = 0
        self.bins = np.zeros(len(DSC_BINS), dtype=int)

    def add(
        self,
        scene: _Scene,
        mask: Mask,
        true: Mask,
        structure: int,
        natural: bool,
        count: int,
        rng: np.random.Generator,
    ) -> None:
        volume_dsc = dsc(mask, true)
        indices = choose_slices(mask, scene.max_slices)
        if len(indices) > count:
            indices = tuple(sorted(int(i) for i in rng.choice(indices, count, replace=False)))
        for index in indices:
            crop = crop_around(mask[index], _random_margin(mask[index], scene.margin, rng))
            cut = cut_slice(scene.grey[index], mask[index], crop, scene.image_size).numpy()
            self.slices.append(cut)
            slice_dsc = _plane_dsc(mask[index], true[index], crop)
            self._rows.append((slice_dsc, volume_dsc, structure, self._masks, natural, scene.patient_id))
        self.bins[_bin(volume_dsc)] += len(indices)
        self._masks += 1

    def pairs(self, graded: int) -> Pairs:
        if not self.slices:
            raise ModelError(
                f"Not one training pair for the sentinel came out of {graded} graded masks; expected labelled "
                "cases with at least one evaluated structure that their reference holds"
            )
        slice_dsc, volume_dsc, structure, mask_index, natural, patient_ids = zip(*self._rows, strict=True)
        return Pairs(
            slices=np.stack(self.slices),
            slice_dsc=np.array(slice_dsc, dtype=np.float32),
            volume_dsc=np.array(volume_dsc, dtype=np.float32),
            structure=np.array(structure, dtype=np.int64),
            mask_index=np.array(mask_index, dtype=np.int64),
            natural=np.array(natural, dtype=np.bool_),
            patient_ids=tuple(patient_ids),
        )


def _add_case(
    masks: list[GradedMask],
    structures: Sequence[Structure],
    config: SentinelConfig,
    quota: int,
    rng: np.random.Generator,
    collected: _Collected,
) -> None:
    scene = _read_scene(masks[0], config)
    start = len(collected.slices)
    found = list(_natural(masks, structures, scene, config))
    if found:
        each = max(1, min(config.max_slices, int(quota * _NATURAL_SHARE / len(found))))
        for index, mask, true in found:
            collected.add(scene, mask, true, index, natural=True, count=each, rng=rng)
    maps = [scene.reference, *(_label_map(mask, config) for mask in masks)]
    evaluated = frozenset.intersection(*(mask.evaluated for mask in masks))
    present = [
        i for i, s in enumerate(structures) if s.name in evaluated and (scene.reference == s.label).any()
    ]
    if present:
        left = quota - (len(collected.slices) - start)
        _fill(scene, maps, structures, present, left, rng, collected)


def _read_scene(mask: GradedMask, config: SentinelConfig) -> _Scene:
    image, reference = read_image(mask.image), read_label_map(mask.reference)
    check_same_grid(image, reference, mask.image, mask.reference)
    turned = oriented(image, config.orientation)
    return _Scene(
        patient_id=mask.patient_id,
        grey=grey_values(turned.array, config.intensity),
        reference=oriented(reference, config.orientation).array,
        margin=config.margin_voxels(turned.spacing_mm),
        spacing_mm=turned.spacing_mm,
        image_size=config.image_size,
        max_slices=config.max_slices,
    )


def _label_map(mask: GradedMask, config: SentinelConfig) -> NDArray[np.uint8]:
    found: Volume = read_label_map(mask.mask)
    return oriented(found, config.orientation).array


def _natural(
    masks: list[GradedMask], structures: Sequence[Structure], scene: _Scene, config: SentinelConfig
) -> Iterator[tuple[int, Mask, Mask]]:
    for graded in masks:
        predicted = _label_map(graded, config)
        for index, structure in enumerate(structures):
            mask, true = predicted == structure.label, scene.reference == structure.label
            if structure.name in graded.evaluated and mask.any() and true.any():
                yield index, mask, true


def _fill(
    scene: _Scene,
    maps: Sequence[NDArray[np.uint8]],
    structures: Sequence[Structure],
    present: Sequence[int],
    wanted: int,
    rng: np.random.Generator,
    collected: _Collected,
) -> None:
    """Add corruptions until the case has its quota, emptier DSC bins first."""
    subjects: dict[tuple[int, int], tuple[Subject, Region] | None] = {}
    goal = len(collected.slices) + wanted
    for _ in range(_ATTEMPTS * max(0, wanted) // SLICES_PER_CORRUPTION):
        if len(collected.slices) >= goal:
            return
        source, index = int(rng.integers(len(maps))), int(rng.choice(present))
        if (source, index) not in subjects:
            subjects[source, index] = _subject(maps[source], structures, index, scene)
        found = subjects[source, index]
        if found is None:
            continue
        subject, region = found
        mask = np.zeros(scene.reference.shape, dtype=bool)
        mask[region] = corrupt(subject, float(rng.random()), rng)
        true = scene.reference == structures[index].label
        if mask.any() and _is_wanted(dsc(mask, true), collected.bins):
            collected.add(scene, mask, true, index, natural=False, count=SLICES_PER_CORRUPTION, rng=rng)


def _subject(
    label_map: NDArray[np.uint8], structures: Sequence[Structure], index: int, scene: _Scene
) -> tuple[Subject, Region] | None:
    mask = label_map == structures[index].label
    if not mask.any():
        return None
    others: Mapping[str, Mask] = {
        s.name: label_map == s.label for s in structures if s is not structures[index]
    }
    return make_subject(structures[index].name, mask, others, scene.spacing_mm)


def _is_wanted(volume_dsc: float, bins: NDArray[np.int_]) -> bool:
    return bool(bins[_bin(volume_dsc)] <= bins[:-1].mean())


def _bin(volume_dsc: float) -> int:
    return int(np.searchsorted(DSC_BINS[1:-1], volume_dsc, side="right"))


def _random_margin(plane: Mask, margin: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
    """A margin per axis, from half of the configured one up: 10 to (256 - extent) // 2 where that is 20."""
    drawn = []
    for axis, full in enumerate(margin):
        filled = np.flatnonzero(plane.any(axis=1 - axis))
        extent = int(filled[-1]) - int(filled[0])
        low = max(1, full // 2)
        high = max(low, int((_PUBLISHED_SIZE / _PUBLISHED_MARGIN * full - extent) // 2))
        drawn.append(int(rng.integers(low, high + 1)))
    return (drawn[0], drawn[1])


def _plane_dsc(mask: Mask, true: Mask, crop: Crop) -> float:
    """DSC of a slice within its crop; the mask has voxels there, so it is defined."""
    predicted, reference = crop.of(mask), crop.of(true)
    overlap = int(np.count_nonzero(predicted & reference))
    return 2.0 * overlap / (int(np.count_nonzero(predicted)) + int(np.count_nonzero(reference)))
