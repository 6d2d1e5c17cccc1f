"""Which patch to train on: mostly centred on a structure, every structure equally often."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from cohort.case import Shape
from cohort.seeds import derive_seed, generator
from segmenters.preprocessing import Places, PreparedCase

_REMEMBERED_ROUNDS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """Where a patch is cut.

    Args:
        case: index of the training case.
        start: first voxel (D, H, W) of the patch; negative where the patch reaches over the volume's edge.
    """

    case: int
    start: Shape


class Sampler:
    """Says where the patch of any number is cut, whatever was asked before.

    A patch that is centred on a structure gets the structure first, then a case that has it: so a structure
    that few cases annotate is seen as often as one that all do. A patch that is cut anywhere in a case is
    centred on an annotated slice where only some are. Structures, the cases of each, and all cases
    for the patches that are cut anywhere come in shuffled rounds, so that each is used equally often.

    Args:
        cases: to cut from.
        patch: (D, H, W) voxels.
        foreground_fraction: share of patches that are centred on a structure, where any case has one.
        seed: of the shuffles.
    """

    def __init__(
        self, cases: Sequence[PreparedCase], patch: Shape, foreground_fraction: float, seed: int
    ) -> None:
        self._cases, self._patch, self._seed = cases, patch, seed
        self._channels = sorted({channel for case in cases for channel in case.places})
        self._holders = {
            channel: [index for index, case in enumerate(cases) if channel in case.places]
            for channel in self._channels
        }
        self._share = (foreground_fraction if self._channels else 0.0).as_integer_ratio()
        self._order = lru_cache(maxsize=_REMEMBERED_ROUNDS)(self._shuffled)

    def spot(self, number: int, rng: np.random.Generator) -> Spot:
        """Where a patch is cut.

        Args:
            number: of the patch in the whole training, from 0.
            rng: of the patch alone; draws the voxel within the case.
        """
        centred = self._centred_before(number)
        if self._centred_before(number + 1) == centred:
            index = self._in_rounds(number - centred, len(self._cases), "cases")
            case = self._cases[index]
            some = case.annotated
            middle = _voxel(some, rng) if some is not None and len(some) else None
            return Spot(case=index, start=_start(case, self._patch, middle, rng))
        channel = self._channels[self._in_rounds(centred, len(self._channels), "structures")]
        holders = self._holders[channel]
        turn = centred // len(self._channels)
        index = holders[self._in_rounds(turn, len(holders), f"cases of {channel}")]
        centre = _voxel(self._cases[index].places[channel], rng)
        return Spot(case=index, start=_start(self._cases[index], self._patch, centre, rng))

    def _centred_before(self, number: int) -> int:
        """How many of the first patches are centred on a structure, in whole numbers so that it is exact."""
        part, whole = self._share
        return number * part // whole

    def _in_rounds(self, turn: int, size: int, name: str) -> int:
        """What is used at a turn when all of `size` things are used once a round, each round in its order."""
        return int(self._order(name, turn // size, size)[turn % size])

    def _shuffled(self, name: str, completed: int, size: int) -> tuple[int, ...]:
        return tuple(generator(self._seed, "order", name, completed).permutation(size).tolist())


class CappedSampler:
    """Two samplers in turn, so that model-made labels never fill a batch: an exact share of the patches.

    Args:
        cases: to cut from, of both kinds.
        patch: as in `Sampler`.
        foreground_fraction: as in `Sampler`, of either kind.
        seed: of the shuffles.
        pseudo_share: of the patches that are cut from pseudo-labelled cases.
    """

    def __init__(
        self,
        cases: Sequence[PreparedCase],
        patch: Shape,
        foreground_fraction: float,
        seed: int,
        pseudo_share: float,
    ) -> None:
        self._indices = [
            [index for index, case in enumerate(cases) if case.pseudo is pseudo] for pseudo in (False, True)
        ]
        self._samplers = [
            Sampler(
                [cases[index] for index in indices],
                patch,
                foreground_fraction,
                derive_seed(seed, "kind", kind),
            )
            for kind, indices in enumerate(self._indices)
        ]
        self._share = pseudo_share.as_integer_ratio()

    def spot(self, number: int, rng: np.random.Generator) -> Spot:
        """Where a patch is cut; see `Sampler.spot`."""
        part, whole = self._share
        before, after = number * part // whole, (number + 1) * part // whole
        kind = after - before
        own = self._samplers[kind].spot(before if kind else number - before, rng)
        return replace(own, case=self._indices[kind][own.case])


def make_sampler(
    cases: Sequence[PreparedCase], patch: Shape, foreground_fraction: float, seed: int, *, pseudo_share: float
) -> Sampler | CappedSampler:
    """The sampler of a training set.

    Args:
        cases: to cut from.
        patch: (D, H, W) voxels.
        foreground_fraction: share of patches that are centred on a structure.
        seed: of the shuffles.
        pseudo_share: largest share of patches from pseudo-labelled cases. They get no more than their share
            of the cases either, and all where there are no others.
    """
    pseudo = sum(case.pseudo for case in cases)
    if pseudo in (0, len(cases)):
        return Sampler(cases, patch, foreground_fraction, seed)
    share = min(pseudo_share, pseudo / len(cases))
    return CappedSampler(cases, patch, foreground_fraction, seed, share)


def _voxel(places: Places, rng: np.random.Generator) -> Shape:
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
