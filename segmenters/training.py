"""The one loop that trains every torch network."""

import copy
import logging
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing

import numpy as np
import torch
from torch import Tensor, nn

from cohort.case import Spacing
from cohort.seeds import derive_seed
from segmenters.averaging import WeightAverage
from segmenters.config import SegmenterConfig
from segmenters.consistency import MeanTeacher, ramp
from segmenters.denormals import denormals
from segmenters.distributed import ALONE, Group
from segmenters.early_stopping import Stopping, Validation
from segmenters.gradients import add_gradient
from segmenters.initial_weights import parameter_groups
from segmenters.loading import Batch, Patches, Share, loaded
from segmenters.networks import build_network, to_device
from segmenters.preprocessing import PreparedCase
from segmenters.training_state import StateFile, TrainingState

_REPORT_EVERY = 10
_GRADIENT_NORM = 12.0
_WARM_UP = 0.15
_log = logging.getLogger(__name__)

Keep = Callable[[int, Mapping[str, Tensor]], None]
Report = Callable[[int, int, Mapping[str, float]], None]
Start = Callable[[nn.Module], frozenset[str]]
"""Puts weights into a network, and names the parameters that learn at `body_rate`."""


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
    report: Report | None = None,
    network: nn.Module | None = None,
    start: Start | None = None,
    held_back: Sequence[PreparedCase] = (),
    saved: StateFile | None = None,
    group: Group = ALONE,
) -> tuple[int, ...]:
    """Train a network with AdamW on a one-cycle schedule, or go on with a training that stopped.

    Args:
        cases: prepared, at least one.
        spacing_mm: of the prepared cases.
        config: of the segmenter.
        seed: of weights, patches, augmentation and dropout.
        steps: optimiser steps.
        checkpoint_steps: steps after which `keep` gets the (averaged) weights.
        keep: stores weights.
        device: to train on.
        report: is told the mean loss every few steps; what was told before a training stopped is told again.
        network: to go on from, None for the config's with new weights.
        start: puts weights into the network, None to leave it as it is.
        held_back: prepared cases that early stopping measures; without them there is none. With them the
            last weights that `keep` gets are the best ones, at the step after which the training ended.
        saved: where the state of the training lies; the leading process writes it.
        group: of processes that call this with the same arguments, but for `keep` and `report`.

    Returns:
        Steps whose weights were kept, now or before the training stopped.

    Raises:
        ModelError: if the loss is not finite.
    """
    if network is None:
        network = build_network(config, len(cases[0].known), derive_seed(seed, "weights"))
    patches = Patches(cases, spacing_mm, config, seed)
    body = frozenset[str]() if start is None else start(network)
    run = _Run(network, body, patches, config, seed, steps, device, group)
    if held_back:
        run.measure_on(held_back)
    if saved is not None:
        run.go_on_from(saved.load(), report)
    with denormals(flush=True), torch.random.fork_rng(_gpus(device)), closing(run.loaded()) as stream:
        for batches in stream:
            run.advance(batches)
            ended = run.has_ended()
            run.keep_weights(checkpoint_steps, keep, ended)
            run.tell(report, ended)
            if ended:
                break
            if saved is not None and group.leads and saved.is_due(run.step):
                saved.save(run.state())
    return tuple(run.kept)


def learning_rate(peak: float, step: int, steps: int) -> float:
    """The one-cycle schedule: up along a cosine over 15 % of the steps, then down to nearly 0.

    >>> round(learning_rate(1.0, 15, 100), 3), round(learning_rate(1.0, 100, 100), 3)
    (1.0, 0.0)
    """
    rise = max(1.0, _WARM_UP * steps)
    if step <= rise:
        return peak * (0.04 + 0.96 * (1 - math.cos(math.pi * step / rise)) / 2)
    return peak * max(1e-4, (1 + math.cos(math.pi * (step - rise) / (steps - rise))) / 2)


def _gpus(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []


class _Run:
    """A training under way."""

    def __init__(
        self,
        network: nn.Module,
        body: frozenset[str],
        patches: Patches,
        config: SegmenterConfig,
        seed: int,
        steps: int,
        device: torch.device,
        group: Group,
    ) -> None:
        self._config, self._seed, self._steps = config, seed, steps
        self._device, self._group, self._patches = device, group, patches
        self._network = to_device(network, device).train()
        self._shared = group.shared(self._network, device)
        self._average = WeightAverage(self._network, config.average_decay)
        self._optimiser = torch.optim.AdamW(
            parameter_groups(self._network, body, config.body_rate),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
        )
        self._validation: Validation | None = None
        self._stopping = Stopping(config.early_stopping)
        self.step = 0
        self.kept: list[int] = []
        self._told: list[tuple[int, dict[str, float]]] = []
        self._recent: list[dict[str, float]] = []

    def measure_on(self, held_back: Sequence[PreparedCase]) -> None:
        """Stop early by these cases."""
        copied = copy.deepcopy(self._network)
        self._validation = Validation(held_back, copied, self._config, self._device, self._group)

    def loaded(self) -> Generator[list[Batch], None, None]:
        """The batches of the steps that are left."""
        share = Share(
            batch_size=self._config.batch_size,
            accumulate=self._config.accumulate,
            rank=self._group.rank,
            processes=self._group.size,
        )
        left = range(self.step + 1, self._steps + 1)
        threads = self._config.resources.loaders
        return loaded(self._patches, share, left, threads, pin=self._device.type == "cuda")

    def advance(self, batches: Sequence[Batch]) -> None:
        """Take one step."""
        self.step += 1
        rate = learning_rate(self._config.learning_rate, self.step, self._steps)
        for settings in self._optimiser.param_groups:
            settings["lr"] = rate * settings["rate_factor"]
        self._optimiser.zero_grad(set_to_none=True)
        losses = add_gradient(
            self._shared,
            batches,
            self._config,
            self._device,
            self._group,
            seed=self._seed,
            step=self.step,
            teacher=self._teacher(),
        )
        nn.utils.clip_grad_norm_(self._network.parameters(), _GRADIENT_NORM)
        self._optimiser.step()
        self._recent.append(losses)
        self._average.update()

    def _teacher(self) -> MeanTeacher | None:
        """The averaged weights, where the network should agree with them."""
        settings = self._config.semi_supervision
        if not settings.consistency:
            return None
        return MeanTeacher(
            network=self._network,
            weights=self._average.weights(),
            config=self._config,
            device=self._device,
            share=ramp(self.step, self._steps, settings.consistency_rise),
            seed=derive_seed(self._seed, "consistency", self.step, self._group.rank),
        )

    def has_ended(self) -> bool:
        """Whether this was the last step; measures the held-back cases when their turn has come."""
        last = self.step == self._steps
        if self._validation is None:
            return last
        if last or self.step % self._config.early_stopping.validate_every == 0:
            mean_dsc = self._validation.mean_dsc(self._average.weights())
            self._recent[-1]["validation_dsc"] = mean_dsc
            self._stopping.take(self.step, mean_dsc, self._average.weights())
        return last or self._stopping.is_enough

    def keep_weights(self, asked: frozenset[int], keep: Keep, ended: bool) -> None:
        """Keep the averaged weights where asked; at the end the best ones, where there was early stopping."""
        if ended and self._validation is not None:
            best = self._stopping.best_step, self._stopping.best_dsc
            _log.info("Training ended after step %d with the weights of step %d, DSC %.4f", self.step, *best)
            keep(self.step, self._stopping.best_weights)
        elif self.step in asked:
            keep(self.step, self._average.weights())
        else:
            return
        self.kept.append(self.step)

    def tell(self, report: Report | None, ended: bool) -> None:
        """Report the means since the last report, every few steps and at the end."""
        if not (ended or self.step % _REPORT_EVERY == 0):
            return
        names = dict.fromkeys(name for row in self._recent for name in row)
        means = {name: float(np.mean([row[name] for row in self._recent if name in row])) for name in names}
        rate = learning_rate(self._config.learning_rate, self.step, self._steps)
        self._told.append((self.step, {**means, "learning_rate": rate}))
        self._recent = []
        if report is not None:
            report(self.step, self.step if ended else self._steps, self._told[-1][1])

    def state(self) -> TrainingState:
        """All that the next steps depend on."""
        return TrainingState(
            step=self.step,
            network=self._network.state_dict(),
            optimiser=self._optimiser.state_dict(),
            average=self._average.state(),
            stopping=self._stopping.state(),
            kept=self.kept,
            told=self._told,
            recent=self._recent,
        )

    def go_on_from(self, state: TrainingState | None, report: Report | None) -> None:
        """Take over a state, and report again what was reported."""
        if state is None:
            return
        _log.info("The training goes on after step %d of %d", state.step, self._steps)
        self._network.load_state_dict(state.network)
        self._optimiser.load_state_dict(state.optimiser)
        self._average.restore(state.average)
        self._stopping.restore(state.stopping)
        self.step, self.kept = state.step, list(state.kept)
        self._told, self._recent = list(state.told), list(state.recent)
        if report is not None:
            for step, metrics in self._told:
                report(step, self._steps, metrics)
