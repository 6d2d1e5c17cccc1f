"""Image-mask pairs of known DSC: what a sentinel learns from.

They come from masks that cross-fitted checkpoints made of labelled cases, filled up with corruptions so that
every grade of quality is there, masks that miss their structure included.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from cohort.case import Structure
from cohort.errors import ModelError
from cohort.records import GradedMask
from cohort.seeds import generator
from sentinel.config import Report, SentinelConfig
from sentinel.corruptions import Corrupter
from sentinel.scenes import Labels, Scene, read_prediction, read_scene
from sentinel.slices import Mask, choose_slices, crop_around, cut_slice
from sentinel.subjects import Region, region_around

DSC_EDGES = (1e-6, 0.3, 0.5, 0.7, 0.9)
"""Between them lie the grades of a mask's DSC that corruptions fill about equally, misses lowest."""

SLICES_PER_CORRUPTION = 4
_NATURAL_SHARE = 0.6
_ATTEMPTS = 4
_PUBLISHED_MARGIN, _PUBLISHED_SIZE = 20.0, 256.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pairs:
    """Slices of image and mask, each with the DSC that it should be given.

    Args:
        slices: uint8 (N, 2, S, S), image and mask.
        references: uint8 (N, S, S), the reference of the structure in the same crops.
        slice_dsc: (N,), DSC of the slice within its crop.
        volume_dsc: (N,), DSC of the whole mask that the slice is of.
        sizes: (N,), voxels of the mask in the slice.
        structure: (N,), index into the structures that the pairs were made for.
        mask_index: (N,), slices of one mask share it.
        natural: (N,), whether a segmenter made the mask (otherwise a corruption did).
        patient_ids: (N,), whose image it is.
    """

    slices: NDArray[np.uint8]
    references: NDArray[np.uint8]
    slice_dsc: NDArray[np.float32]
    volume_dsc: NDArray[np.float32]
    sizes: NDArray[np.int64]
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
        seed: of the corruptions, margins and choices; the order of `graded` does not matter.
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
    collected = _Collected(config)
    for done, masks in enumerate(by_case, start=1):
        rng = generator(seed, "pairs", masks[0].case_id)
        _CasePairs(masks, structures, config, rng, collected).collect(quota)
        if report is not None:
            report(done, len(by_case), {"pairs": float(len(collected.slices))})
    return collected.pairs(len(graded))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Candidate:
    """A mask of known DSC: its voxels within a region, and what it is of."""

    mask: Mask
    region: Region
    structure: int
    label: int
    natural: bool


class _Collected:
    """Grows pair by pair."""

    def __init__(self, config: SentinelConfig) -> None:
        self.slices: list[NDArray[np.uint8]] = []
        self._references: list[NDArray[np.uint8]] = []
        self._rows: list[tuple[float, float, int, int, int, bool, str]] = []
        self._config = config
        self._masks = 0
        self._grades = np.zeros(len(DSC_EDGES) + 1, dtype=int)

    def wants(self, volume_dsc: float) -> bool:
        """Whether masks of this grade are rarer than the average of all but the best grade."""
        return bool(self._grades[_grade(volume_dsc)] <= self._grades[:-1].mean())

    def add(self, scene: Scene, found: _Candidate, count: int, rng: np.random.Generator) -> None:
        volume_dsc = scene.dsc(found.mask, found.region, found.label)
        chosen = choose_slices(found.mask, self._config.max_slices)
        if len(chosen) > count:
            chosen = tuple(sorted(int(i) for i in rng.choice(chosen, count, replace=False)))
        for within in chosen:
            index = found.region[0].start + within
            plane = np.zeros(scene.reference.shape[1:], dtype=bool)
            plane[found.region[1:]] = found.mask[within]
            crop = crop_around(plane, _random_margin(plane, scene.margin, rng))
            reference = scene.reference[index] == found.label
            cut = cut_slice((scene.grey[index], plane, reference), crop, self._config.image_size).numpy()
            self.slices.append(cut[:2])
            self._references.append(cut[2])
            slice_dsc = scene.plane_dsc(plane, index, crop, found.label)
            size = int(np.count_nonzero(plane))
            self._rows.append(
                (slice_dsc, volume_dsc, size, found.structure, self._masks, found.natural, scene.patient_id)
            )
        self._grades[_grade(volume_dsc)] += len(chosen)
        self._masks += 1

    def pairs(self, graded: int) -> Pairs:
        if not self.slices:
            raise ModelError(
                f"Not one training pair for the sentinel came out of {graded} graded masks; expected "
                "labelled cases with at least one evaluated structure that their reference holds"
            )
        slice_dsc, volume_dsc, sizes, structure, mask_index, natural, patient_ids = zip(
            *self._rows, strict=True
        )
        return Pairs(
            slices=np.stack(self.slices),
            references=np.stack(self._references),
            slice_dsc=np.array(slice_dsc, dtype=np.float32),
            volume_dsc=np.array(volume_dsc, dtype=np.float32),
            sizes=np.array(sizes, dtype=np.int64),
            structure=np.array(structure, dtype=np.int64),
            mask_index=np.array(mask_index, dtype=np.int64),
            natural=np.array(natural, dtype=np.bool_),
            patient_ids=tuple(patient_ids),
        )


class _CasePairs:
    """Makes the pairs of one case."""

    def __init__(
        self,
        masks: Sequence[GradedMask],
        structures: Sequence[Structure],
        config: SentinelConfig,
        rng: np.random.Generator,
        collected: _Collected,
    ) -> None:
        self._structures, self._config, self._rng, self._collected = structures, config, rng, collected
        self._scene = read_scene(masks[0], config)
        self._predicted = [read_prediction(mask, config) for mask in masks]
        evaluated = frozenset.intersection(*(mask.evaluated for mask in masks))
        held = [bool(self._scene.sizes[s.label]) for s in structures]
        self._present = [i for i, s in enumerate(structures) if s.name in evaluated and held[i]]

    def collect(self, quota: int) -> None:
        """Add the case's own masks, then corruptions until its quota is reached."""
        start = len(self._collected.slices)
        masks = len(self._predicted) * len(self._present)
        each = max(1, min(self._config.max_slices, int(quota * _NATURAL_SHARE / max(1, masks))))
        for labels in self._predicted:
            for index in self._present:
                self._add_natural(labels, index, each)
        if self._present:
            self._add_corruptions(start + quota)

    def _add_natural(self, labels: Labels, index: int, count: int) -> None:
        label = self._structures[index].label
        mask = labels == label
        if mask.any():
            region = region_around(mask)
            found = _Candidate(mask=mask[region], region=region, structure=index, label=label, natural=True)
            self._collected.add(self._scene, found, count, self._rng)

    def _add_corruptions(self, goal: int) -> None:
        corrupters: dict[tuple[int, int], Corrupter | None] = {}
        maps = [self._scene.reference, *self._predicted]
        for _ in range(_ATTEMPTS * max(0, goal - len(self._collected.slices)) // SLICES_PER_CORRUPTION):
            if len(self._collected.slices) >= goal:
                return
            source, index = int(self._rng.integers(len(maps))), int(self._rng.choice(self._present))
            if (source, index) not in corrupters:
                corrupters[source, index] = self._corrupter(maps[source], index)
            corrupter = corrupters[source, index]
            if corrupter is not None:
                self._add_corrupted(corrupter, index)

    def _add_corrupted(self, corrupter: Corrupter, index: int) -> None:
        label, region = self._structures[index].label, corrupter.region
        mask = corrupter.draw(self._rng)
        if mask.any() and self._collected.wants(self._scene.dsc(mask, region, label)):
            found = _Candidate(mask=mask, region=region, structure=index, label=label, natural=False)
            self._collected.add(self._scene, found, SLICES_PER_CORRUPTION, self._rng)

    def _corrupter(self, labels: Labels, index: int) -> Corrupter | None:
        names = {structure.name: structure.label for structure in self._structures}
        own = self._structures[index]
        if not (labels == own.label).any():
            return None
        return Corrupter.of(own.name, labels, names, self._scene.spacing_mm)


def _grade(volume_dsc: float) -> int:
    return int(np.searchsorted(DSC_EDGES, volume_dsc, side="right"))


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
