"""Sums over a batch of which only a part is there: micro-batches come one by one, shares lie elsewhere.

The Dice of a structure is taken over all samples of a batch, so it is no mean over parts of the batch. Given
the sums over the whole batch, each part can add its own gradient.
"""

from collections.abc import Callable

from torch import Tensor

from segmenters.distributed import Group

Pool = Callable[[Tensor], Tensor]
"""From sums over the samples that are there to sums over the whole batch, which may come from elsewhere too:
their values are those of the batch, their gradient is that of the samples that are there."""


def of_these(sums: Tensor) -> Tensor:
    """The sums themselves: the samples that are there are the whole batch."""
    return sums


def over_processes(group: Group) -> Pool:
    """Sums over every process's share of the batch."""
    if group.size == 1:
        return of_these

    def pooled(sums: Tensor) -> Tensor:
        return _with_gradient_of(sums, group.total(sums))

    return pooled


class MicroBatches:
    """Sums over micro-batches that are seen twice: first to add up their sums, then with gradient.

    A forward pass may pool several sums (a loss at several resolutions); they keep their order.

    Args:
        group: of processes that share every micro-batch.
    """

    def __init__(self, group: Group) -> None:
        self._group = group
        self._totals: list[Tensor] = []

    def measuring(self) -> Pool:
        """For the first look at the next micro-batch."""
        position = 0

        def pooled(sums: Tensor) -> Tensor:
            nonlocal position
            if position == len(self._totals):
                self._totals.append(sums.detach().clone())
            else:
                self._totals[position] += sums.detach()
            position += 1
            return sums

        return pooled

    def complete(self) -> None:
        """Say that every micro-batch was measured."""
        self._totals = [self._group.total(total) for total in self._totals]

    def measured(self) -> Pool:
        """For the second look at a micro-batch."""
        totals = iter(self._totals)

        def pooled(sums: Tensor) -> Tensor:
            return _with_gradient_of(sums, next(totals))

        return pooled


def _with_gradient_of(sums: Tensor, total: Tensor) -> Tensor:
    return sums + (total - sums.detach())
