"""The one loop that trains every torch network."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from cohort.case import Spacing
from cohort.errors import ModelError
from cohort.seeds import derive_seed, generator
from segmenters.augmentation import cut_patch, vary_intensity
from segmenters.config import SegmenterConfig
from segmenters.denormals import denormals
from segmenters.initial_weights import parameter_groups
from segmenters.losses import loss_of
from segmenters.networks import build_network, to_device
from segmenters.precision import autocast
from segmenters.preprocessing import PreparedCase, padding_value
from segmenters.sampling import spots

_REPORT_EVERY = 10
_GRADIENT_NORM = 12.0
_WARM_UP = 0.15

Keep = Callable[[int, Mapping[str, Tensor]], None]

Start = Callable[[nn.Module], frozenset[str]]
"""Puts weights into a network, and names the parameters that learn at `body_rate`."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Patches of one step: images (B, 1, D, H, W), channels (B, D, H, W) int64, known (B, C) bool."""

    images: Tensor
    channels: Tensor
    known: Tensor


class WeightAverage:
    """An exponential moving average of a network's weights, warmed up so that early ones fade."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._decay = decay
        self._source = network
        self._average = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
        self._updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take in the network's present weights."""
        self._updates += 1
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates)) if self._decay else 0.0
        for name, tensor in self._source.state_dict().items():
            if tensor.is_floating_point() and decay:
                self._average[name].lerp_(tensor, 1.0 - decay)
            else:
                self._average[name].copy_(tensor)

    def weights(self) -> Mapping[str, Tensor]:
        """Name -> averaged tensor."""
        return self._average


def batches(
    cases: Sequence[PreparedCase], spacing_mm: Spacing, config: SegmenterConfig, seed: int
) -> Iterator[Batch]:
    """An endless stream of varied patches, the same for the same seed."""
    rng = generator(seed, "patches")
    noise = torch.Generator().manual_seed(derive_seed(seed, "intensity"))
    padding = padding_value(config)
    stream = spots(cases, config.patch, config.foreground_fraction, rng)
    while True:
        chosen = [next(stream) for _ in range(config.batch_size)]
        pairs = [
            cut_patch(
                cases[spot.case], spot.start, config.patch, spacing_mm, config.augmentation, padding, rng
            )
            for spot in chosen
        ]
        images = torch.stack([image for image, _ in pairs])[:, None]
        yield Batch(
            images=vary_intensity(images, config.augmentation, noise),
            channels=torch.stack([channels for _, channels in pairs]).long(),
            known=torch.stack([cases[spot.case].known for spot in chosen]),
        )


def train(
    cases: Sequence[PreparedCase],
    spacing_mm: Spacing,
    config: SegmenterConfig,
    *,
    seed: int,
    steps: int,
    checkpoint_steps: frozenset[int],
    keep: Keep,
    device: torch.device,
    report: Callable[[int, int, Mapping[str, float]], None] | None = None,
    network: nn.Module | None = None,
    start: Start | None = None,
) -> None:
    """Train a network with AdamW on a one-cycle schedule.

    Args:
        cases: prepared, at least one.
        spacing_mm: of the prepared cases.
        config: of the segmenter.
        seed: of weights, patches, augmentation and dropout.
        steps: optimiser steps.
        checkpoint_steps: steps after which `keep` gets the (averaged) weights.
        keep: stores weights.
        device: to train on.
        report: is told the mean loss every few steps.
        network: to go on from, None for the config's with new weights.
        start: puts weights into the fresh network, None for a training from scratch.

    Raises:
        ModelError: if the loss is not finite.
    """
    if network is None:
        network = build_network(config, len(cases[0].known), derive_seed(seed, "weights"))
    body = frozenset[str]() if start is None else start(network)
    network = to_device(network, device).train()
    average = WeightAverage(network, config.average_decay)
    optimiser = torch.optim.AdamW(
        parameter_groups(network, body, config.body_rate),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
    )
    stream = batches(cases, spacing_mm, config, seed)
    recent: list[Mapping[str, float]] = []
    with denormals(flush=True), torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "dropout"))
        for step in range(1, steps + 1):
            rate = learning_rate(config.learning_rate, step, steps)
            for group in optimiser.param_groups:
                group["lr"] = rate * group["rate_factor"]
            recent.append(_step(network, optimiser, next(stream), config, device, step))
            average.update()
            if step in checkpoint_steps:
                keep(step, average.weights())
            if report is not None and (step % _REPORT_EVERY == 0 or step == steps):
                means = {name: float(np.mean([row[name] for row in recent])) for name in recent[0]}
                report(step, steps, {**means, "learning_rate": rate})
                recent = []


def learning_rate(peak: float, step: int, steps: int) -> float:
    """The one-cycle schedule: up along a cosine over 15 % of the steps, then down to nearly 0.

    >>> round(learning_rate(1.0, 15, 100), 3), round(learning_rate(1.0, 100, 100), 3)
    (1.0, 0.0)
    """
    rise = max(1.0, _WARM_UP * steps)
    if step <= rise:
        return peak * (0.04 + 0.96 * (1 - math.cos(math.pi * step / rise)) / 2)
    return peak * max(1e-4, (1 + math.cos(math.pi * (step - rise) / (steps - rise))) / 2)


def _step(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    batch: Batch,
    config: SegmenterConfig,
    device: torch.device,
    step: int,
) -> dict[str, float]:
    images = batch.images.to(device=device, memory_format=torch.channels_last_3d)
    with autocast(config.precision, device):
        logits = network(images)
    terms = loss_of(logits, batch.channels.to(device), batch.known.to(device))
    loss = terms.dice + terms.cross_entropy
    value = float(loss.detach())
    if not math.isfinite(value):
        raise ModelError(
            f"The loss is {value} at step {step}; lower learning_rate (now {config.learning_rate}) or train "
            "with precision float32"
        )
    optimiser.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    nn.utils.clip_grad_norm_(network.parameters(), _GRADIENT_NORM)
    optimiser.step()
    return {
        "loss": value,
        "dice_loss": float(terms.dice.detach()),
        "cross_entropy": float(terms.cross_entropy.detach()),
    }
