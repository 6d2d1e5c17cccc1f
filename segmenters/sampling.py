"""Which patch to train on next: mostly centred on a structure, every structure equally often."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

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

    A patch that is centred on a structure draws the structure first, then a case that has it: so a structure
    that few cases annotate is seen as often as one that all do. Cases (of a structure, and of all) come in
    shuffled rounds, so that each is used equally often.

    Args:
        cases: to cut from.
        patch: (D, H, W) voxels.
        foreground_fraction: share of patches that are centred on a structure, where any case has one.
        rng: of the draws.
    """
    channels = sorted({channel for case in cases for channel in case.places})
    holders = [[index for index, case in enumerate(cases) if channel in case.places] for channel in channels]
    by_channel = [_rounds(indices, rng) for indices in holders]
    anywhere = _rounds(list(range(len(cases))), rng)
    while True:
        if channels and rng.random() < foreground_fraction:
            drawn = int(rng.integers(len(channels)))
            index = next(by_channel[drawn])
            centre = _voxel(cases[index].places[channels[drawn]], rng)
            yield Spot(case=index, start=_start(cases[index], patch, centre, rng))
        else:
            index = next(anywhere)
            yield Spot(case=index, start=_start(cases[index], patch, None, rng))


def _rounds(indices: Sequence[int], rng: np.random.Generator) -> Iterator[int]:
    while True:
        for position in rng.permutation(len(indices)):
            yield indices[int(position)]


def _voxel(places: Tensor, rng: np.random.Generator) -> Shape:
    depth, height, width = (int(index) for index in places[int(rng.integers(len(places)))])
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
