"""Batches of varied patches, cut by threads while the network trains; any batch can be made at any time."""

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from cohort.case import Spacing
from cohort.seeds import derive_seed, generator
from segmenters.augmentation import cut_patch, vary_intensity
from segmenters.config import SegmenterConfig
from segmenters.preprocessing import PreparedCase, padding_value
from segmenters.sampling import make_sampler


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Patches: images (B, 1, D, H, W) float32, channels (B, D, H, W) int64, known (B, C) bool, weight (B, C)
    float32, None where every label counts fully, and pseudo (B,) bool, None where people annotated all."""

    images: Tensor
    channels: Tensor
    known: Tensor
    weight: Tensor | None = None
    pseudo: Tensor | None = None

    def pinned(self) -> "Batch":
        """The batch in memory that a GPU can copy from while it computes."""
        return Batch(
            images=self.images.pin_memory(),
            channels=self.channels.pin_memory(),
            known=self.known.pin_memory(),
            weight=None if self.weight is None else self.weight.pin_memory(),
            pseudo=self.pseudo,
        )


class Patches:
    """Every patch of a training by its number, whatever was asked before: each has a seed of its own.

    Args:
        cases: to cut from.
        spacing_mm: of their voxels.
        config: of the segmenter.
        seed: of the training.
    """

    def __init__(
        self, cases: Sequence[PreparedCase], spacing_mm: Spacing, config: SegmenterConfig, seed: int
    ) -> None:
        self._cases, self._spacing_mm, self._config, self._seed = cases, spacing_mm, config, seed
        self._padding = padding_value(config)
        self._pseudo = any(case.pseudo for case in cases)
        self._weighted = any(case.weight is not None for case in cases)
        self._sampler = make_sampler(
            cases,
            config.patch,
            config.foreground_fraction,
            seed,
            pseudo_share=config.semi_supervision.pseudo_share,
        )

    def batch(self, numbers: Sequence[int]) -> Batch:
        """The patches of these numbers, from 0."""
        patches = [self._patch(number) for number in numbers]
        return Batch(
            images=torch.stack([image for image, _, _ in patches]),
            channels=torch.stack([channels for _, channels, _ in patches]).long(),
            known=torch.stack([case.known for _, _, case in patches]),
            weight=_weights([case for _, _, case in patches]) if self._weighted else None,
            pseudo=torch.tensor([case.pseudo for _, _, case in patches]) if self._pseudo else None,
        )

    def _patch(self, number: int) -> tuple[Tensor, Tensor, PreparedCase]:
        config = self._config
        rng = generator(self._seed, "patch", number)
        spot = self._sampler.spot(number, rng)
        case = self._cases[spot.case]
        image, channels = cut_patch(
            case, spot.start, config.patch, self._spacing_mm, config.augmentation, self._padding, rng
        )
        noise = torch.Generator().manual_seed(derive_seed(self._seed, "intensity", number))
        varied = vary_intensity(image[None, None], config.augmentation, noise)[0]
        return varied, channels, case


def _weights(cases: Sequence[PreparedCase]) -> Tensor:
    """(B, C), 1 for a case without any."""
    ones = torch.ones(len(cases[0].known))
    return torch.stack([ones if case.weight is None else case.weight for case in cases])


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Which patches of a step a process trains on.

    Args:
        batch_size: patches of all processes in a forward pass.
        accumulate: forward passes in a step.
        rank: of the process.
        processes: that share every batch.
    """

    batch_size: int
    accumulate: int
    rank: int = 0
    processes: int = 1

    def numbers(self, step: int) -> list[range]:
        """Patch numbers of each forward pass of a step, from 1.

        >>> Share(batch_size=4, accumulate=2, rank=1, processes=2).numbers(1)
        [range(2, 4), range(6, 8)]
        """
        own = self.batch_size // self.processes
        first = (step - 1) * self.batch_size * self.accumulate + self.rank * own
        starts = [first + turn * self.batch_size for turn in range(self.accumulate)]
        return [range(start, start + own) for start in starts]


def loaded(
    patches: Patches, share: Share, steps: range, threads: int, *, pin: bool
) -> Generator[list[Batch], None, None]:
    """The batches of one step after the other.

    Args:
        patches: to take them from.
        share: of this process.
        steps: to load, from 1.
        threads: that make batches ahead, 0 makes each when it is asked for. The batches are the same for
            any number. At most one batch more than threads waits.
        pin: whether to put batches into memory that a GPU can copy from while it computes.

    Returns:
        The batches of a step's forward passes. Close the iterator to end the threads.
    """
    wanted = (numbers for step in steps for numbers in share.numbers(step))

    def make(numbers: range) -> Batch:
        batch = patches.batch(numbers)
        return batch.pinned() if pin else batch

    if not threads:
        for step in steps:
            yield [make(numbers) for numbers in share.numbers(step)]
        return
    pool = ThreadPoolExecutor(threads, initializer=torch.set_flush_denormal, initargs=(True,))
    try:
        waiting: deque[Future[Batch]] = deque()
        for _ in steps:
            taken = []
            for _ in range(share.accumulate):
                while len(waiting) <= threads and (numbers := next(wanted, None)) is not None:
                    waiting.append(pool.submit(make, numbers))
                taken.append(waiting.popleft().result())
            yield taken
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
