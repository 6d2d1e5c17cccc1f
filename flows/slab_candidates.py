"""Slabs of the pool as candidates: which are worth a look, how good the mask is there, what they cost."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cohort.budget import Cost, CostModel
from cohort.case import Structure
from cohort.records import Prediction, QualityScore
from cohort.selection.base import Candidate
from cohort.slab_scores import score_within
from cohort.slabs import Slab, slabs_around, slabs_of
from cohort.volume import read_label_map

Areas = Mapping[str, NDArray[np.int64]]
"""Structure -> (D,) predicted voxels in each slice."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SlabPool:
    """What slabs of the pool are made from.

    Args:
        thickness: slices of a slab, 1 or more.
        areas: case id -> where the model found what.
        done: case id -> slabs that are annotated; a case that is not named has none.
    """

    thickness: int
    areas: Mapping[str, Areas]
    done: Mapping[str, Collection[Slab]]

    @classmethod
    def read(
        cls,
        predictions: Sequence[Prediction],
        structures: Sequence[Structure],
        thickness: int,
        done: Mapping[str, Collection[Slab]],
    ) -> "SlabPool":
        """Read the predicted label maps of the pool.

        Raises:
            DataError: for a label map that is missing or broken.
        """
        found = {p.case_id: areas_of(p, structures) for p in predictions}
        return cls(thickness=thickness, areas=found, done=done)

    def usual_sizes(self) -> dict[str, tuple[int, int]]:
        """Structure -> median slices and voxels over the slabs that hold it; 1 where none does."""
        found: dict[str, list[tuple[int, int]]] = {}
        for areas in self.areas.values():
            for name, area in areas.items():
                sizes = (_size(area, slab) for slab in slabs_of(len(area), self.thickness))
                found.setdefault(name, []).extend(size for size in sizes if size[0])
        return {
            name: (int(np.median([s for s, _ in sizes])), int(np.median([v for _, v in sizes])))
            if sizes
            else (1, 1)
            for name, sizes in found.items()
        }


def areas_of(prediction: Prediction, structures: Sequence[Structure]) -> Areas:
    """Predicted voxels of each structure in each slice.

    Raises:
        DataError: for a label map that is missing or broken.
    """
    labels = read_label_map(prediction.mask).array
    return {s.name: np.count_nonzero(labels == s.label, axis=(1, 2)).astype(np.int64) for s in structures}


def slab_candidates(
    whole: Candidate,
    scores: Mapping[str, QualityScore],
    pool: SlabPool,
    usual: Mapping[str, tuple[int, int]],
    costs: CostModel,
) -> Iterator[Candidate]:
    """The slabs of a case that may be annotated: near foreground, and not annotated yet.

    Args:
        whole: the case as a candidate.
        scores: structure -> of its mask.
        pool: of the case.
        usual: as `SlabPool.usual_sizes`, for structures that the model missed.
        costs: estimates minutes.

    Yields:
        In ascending order. A slab has scores of the structures that the model found in it or beside it, and
        of those that it found nowhere; without scores of slices all slabs have those of the case.
    """
    areas = {name: pool.areas[whole.case_id][name] for name in whole.structures}
    near = {
        name: frozenset(slabs_around(area > 0, pool.thickness)) for name, area in areas.items() if area.any()
    }
    found = np.logical_or.reduce([area > 0 for area in areas.values()])
    done = frozenset(pool.done.get(whole.case_id, ()))
    for slab in slabs_around(found, pool.thickness):
        if slab in done:
            continue
        judged = {
            name: score_within(score, [slab]).raw
            for name, score in scores.items()
            if not score.slice_scores or slab in near.get(name, ())
        }
        yield replace(
            whole,
            part=slab.name,
            slab=slab,
            scores=judged,
            missing={name: why for name, why in whole.missing.items() if name in judged},
            volumes_ml=_volumes_ml(whole, areas, slab),
            cost=_cost(areas, slab, usual, costs),
            further=replace(_cost(areas, slab, usual, replace(costs, minutes_per_case=0.0)), cases=0.0),
        )


def _volumes_ml(whole: Candidate, areas: Areas, slab: Slab) -> dict[str, float]:
    return {
        name: whole.volumes_ml[name] * float(area[slab.range].sum()) / max(1.0, float(area.sum()))
        for name, area in areas.items()
    }


def _cost(areas: Areas, slab: Slab, usual: Mapping[str, tuple[int, int]], costs: CostModel) -> Cost:
    """What a slab is expected to cost: one in which nothing was found has to be looked at all the same."""
    sizes = [_size(area, slab) if area.any() else _missed(usual[name], slab) for name, area in areas.items()]
    return costs.cost(
        structures=len(areas),
        slices=max(1, sum(slices for slices, _ in sizes)),
        foreground_voxels=max(1, sum(voxels for _, voxels in sizes)),
    )


def _size(area: NDArray[np.int64], slab: Slab) -> tuple[int, int]:
    """Slices and voxels of a structure in a slab."""
    inside = area[slab.range]
    return int(np.count_nonzero(inside)), int(inside.sum())


def _missed(usual: tuple[int, int], slab: Slab) -> tuple[int, int]:
    return min(usual[0], slab.thickness), usual[1]
