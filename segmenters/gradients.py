"""The gradient of one step: over micro-batches that come one by one, and over processes."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cohort.errors import ModelError
from cohort.seeds import derive_seed
from segmenters.config import SegmenterConfig
from segmenters.consistency import MeanTeacher
from segmenters.distributed import Group
from segmenters.loading import Batch
from segmenters.losses import LossTerms, loss_of
from segmenters.pooling import MicroBatches, Pool, over_processes
from segmenters.precision import autocast


def add_gradient(
    network: nn.Module,
    batches: Sequence[Batch],
    config: SegmenterConfig,
    device: torch.device,
    group: Group,
    *,
    seed: int,
    step: int,
    teacher: MeanTeacher | None = None,
) -> dict[str, float]:
    """Add the gradient of the loss over all micro-batches of all processes to the network's.

    It is that of one large batch, for a network without statistics over its batch.

    Args:
        network: in training mode; what `Group.shared` gives where there are several processes.
        batches: micro-batches of this process, of equal size.
        config: of the segmenter.
        device: that the network is on.
        group: of processes.
        seed: of dropout.
        step: of the training.
        teacher: to agree with on patches that no human annotated; None asks for no agreement.

    Returns:
        "loss", "dice_loss" and "cross_entropy" over the whole batch; with a teacher "consistency" too, which
        is no part of "loss".

    Raises:
        ModelError: if the loss is not finite.
    """

    def terms(turn: int, pool: Pool, asked: MeanTeacher | None = None) -> tuple[LossTerms, Tensor]:
        torch.manual_seed(derive_seed(seed, "dropout", step, turn, group.rank))
        return _terms(network, batches[turn], config, device, pool, asked, turn)

    pools = _pools(network, len(batches), terms, group)
    found = []
    for turn, pool in enumerate(pools):
        last = turn == len(pools) - 1
        with nullcontext() if last else _without_exchange(network):
            part, consistency = terms(turn, pool, teacher)
            # processes' gradients are averaged, but each holds only its own part of the whole batch's Dice
            own = part.cross_entropy + consistency
            torch.autograd.backward(group.size * part.dice + own / len(pools))
        found.append(torch.stack([part.dice.detach(), part.cross_entropy.detach(), consistency.detach()]))
    means = (group.total(torch.stack(found).mean(dim=0)) / group.size).tolist()
    dice, cross_entropy, agreement = means
    if not math.isfinite(dice + cross_entropy):
        raise ModelError(
            f"The loss is {dice + cross_entropy} at step {step}; lower learning_rate (now "
            f"{config.learning_rate}) or train with precision float32"
        )
    losses = {"loss": dice + cross_entropy, "dice_loss": dice, "cross_entropy": cross_entropy}
    return losses if teacher is None else {**losses, "consistency": agreement}


def _terms(
    network: nn.Module,
    batch: Batch,
    config: SegmenterConfig,
    device: torch.device,
    pool: Pool,
    teacher: MeanTeacher | None,
    turn: int,
) -> tuple[LossTerms, Tensor]:
    images = batch.images.to(device=device, memory_format=torch.channels_last_3d, non_blocking=True)
    channels = batch.channels.to(device, non_blocking=True)
    known = batch.known.to(device, non_blocking=True)
    with autocast(config.precision, device):
        logits = network(images)
    weight = None if batch.weight is None else batch.weight.to(device, non_blocking=True)
    found = loss_of(logits, channels, known, pool, weight)
    if teacher is None or batch.pseudo is None:
        return found, torch.zeros((), device=device)
    finest = logits if isinstance(logits, Tensor) else logits[0]
    return found, teacher.loss(images, finest, batch.pseudo, turn)


def _pools(network: nn.Module, count: int, terms: Callable[[int, Pool], object], group: Group) -> list[Pool]:
    """One pool per micro-batch. Several take a forward pass each to know the sums over all of them."""
    if count == 1:
        return [over_processes(group)]
    sums = MicroBatches(group)
    with torch.no_grad(), _unchanged_statistics(network):
        for turn in range(count):
            terms(turn, sums.measuring())
    sums.complete()
    return [sums.measured() for _ in range(count)]


@contextmanager
def _unchanged_statistics(network: nn.Module) -> Iterator[None]:
    """Running statistics of a network count each micro-batch once, however often it is seen."""
    before = [buffer.clone() for buffer in network.buffers()]
    try:
        yield
    finally:
        for buffer, value in zip(network.buffers(), before, strict=True):
            buffer.copy_(value)


def _without_exchange(network: nn.Module) -> AbstractContextManager[None]:
    if isinstance(network, DistributedDataParallel):
        return cast(AbstractContextManager[None], network.no_sync())
    return nullcontext()
