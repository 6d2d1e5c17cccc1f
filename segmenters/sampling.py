"""Which patch to train on next: every case in turn, mostly centred on a structure, rare ones more often."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cohort.case import Shape
from segmenters.preprocessing import PreparedCase


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """Where a patch is cut.

    Args:
        case: index of the training case.
        start: first voxel (D, H, W) of the patch; negative where the patch reaches over the volume's edge.
    """

    case: int
    start: Shape


def spots(
    cases: Sequence[PreparedCase], patch: Shape, foreground_fraction: float, rng: np.random.Generator
) -> Iterator[Spot]:
    """An endless stream of patches.

    Cases come in shuffled rounds, so that each is used equally often. Within a case the structure to centre
    on is drawn with a weight of one over the number of cases that have it.

    Args:
        cases: to cut from.
        patch: (D, H, W) voxels.
        foreground_fraction: share of patches that are centred on a structure, where the case has one.
        rng: of the draws.
    """
    frequency = Counter(channel for case in cases for channel in case.places)
    while True:
        for index in rng.permutation(len(cases)):
            case = cases[int(index)]
            centred = rng.random() < foreground_fraction and bool(case.places)
            centre = _structure_voxel(case, frequency, rng) if centred else None
            yield Spot(case=int(index), start=_start(case, patch, centre, rng))


def _structure_voxel(case: PreparedCase, frequency: Counter[int], rng: np.random.Generator) -> Shape:
    channels = sorted(case.places)
    weights = np.array([1.0 / frequency[channel] for channel in channels])
    channel = channels[int(rng.choice(len(channels), p=weights / weights.sum()))]
    voxels = case.places[channel]
    depth, height, width = (int(index) for index in voxels[int(rng.integers(len(voxels)))])
    return (depth, height, width)


def _start(case: PreparedCase, patch: Shape, centre: Shape | None, rng: np.random.Generator) -> Shape:
    starts = []
    for axis, (size, side) in enumerate(zip(case.image.shape, patch, strict=True)):
        if size <= side:
            starts.append(-((side - size) // 2))
        elif centre is None:
            starts.append(int(rng.integers(size - side + 1)))
        else:
            starts.append(int(np.clip(centre[axis] - side // 2, 0, size - side)))
    depth, height, width = starts
    return (depth, height, width)
