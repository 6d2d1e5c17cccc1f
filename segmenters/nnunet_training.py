"""nnU-Net's own trainer, driven for a number of steps: its network, loss, augmentation and schedule."""

import copy
import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cohort.errors import ModelError
from segmenters.base import Report
from segmenters.denormals import denormals
from segmenters.nnunet_config import NnUNetConfig
from segmenters.nnunet_dataset import PreparedSet
from segmenters.nnunet_package import inside_nnunet, seeded

_REPORT_EVERY = 10
_LEVELS_WITHOUT_DEEP_SUPERVISION = 2


def train(
    prepared: PreparedSet,
    config: NnUNetConfig,
    *,
    seed: int,
    steps: int,
    checkpoint_steps: frozenset[int],
    keep: Callable[[int, Mapping[str, Tensor]], None],
    device: torch.device,
    report: Report | None = None,
) -> None:
    """Train nnU-Net from scratch: no validation, no plots, no worker processes.

    Args:
        prepared: what to learn from.
        config: of the segmenter.
        seed: of weights, patches and augmentation.
        steps: optimiser steps.
        checkpoint_steps: steps after which `keep` gets the weights.
        keep: stores weights.
        device: to train on.
        report: is told the mean loss every few steps.

    Raises:
        ModelError: if the loss is not finite.
    """
    with denormals(flush=True), seeded(seed):
        with inside_nnunet(prepared.root, workers=0):
            trainer = _trainer(prepared, config, steps, device)
            batches, _ = trainer.get_dataloaders()
        trainer.network.train()
        recent: list[float] = []
        for step in range(1, steps + 1):
            trainer.lr_scheduler.step(step - 1)
            recent.append(_finite(float(trainer.train_step(next(batches))["loss"]), step, config))
            if step in checkpoint_steps:
                keep(step, network_weights(trainer.network))
            if report is not None and (step % _REPORT_EVERY == 0 or step == steps):
                rate = float(trainer.optimizer.param_groups[0]["lr"])
                report(step, steps, {"loss": float(np.mean(recent)), "learning_rate": rate})
                recent = []


def network_weights(network: nn.Module) -> dict[str, Tensor]:
    """Every tensor of a network once: nnU-Net's decoder holds its encoder again under other names."""
    return {
        name: tensor.detach()
        for named in (network.named_parameters(), network.named_buffers())
        for name, tensor in named
    }


def _finite(loss: float, step: int, config: NnUNetConfig) -> float:
    if not math.isfinite(loss):
        raise ModelError(
            f"The loss is {loss} at step {step}; lower segmenter.learning_rate (now {config.learning_rate})"
        )
    return loss


def _trainer(prepared: PreparedSet, config: NnUNetConfig, steps: int, device: torch.device) -> Any:
    plan = copy.deepcopy(prepared.plan)
    planned = plan["configurations"][config.configuration]
    if config.batch_size:
        planned["batch_size"] = config.batch_size
    # nnU-Net takes it out of the plan again
    plan["continue_training"] = False
    trainer = _trainer_class()(plan, config.configuration, 0, copy.deepcopy(prepared.dataset), device)
    trainer.identifiers = prepared.identifiers
    trainer.mirrored = config.train_mirror
    trainer.initial_lr = config.learning_rate
    # one epoch is one step, so that the schedule ends with the budget
    trainer.num_epochs = steps
    # the coarsest output has no weight in the loss, so there must be another
    levels = len(trainer.configuration_manager.pool_op_kernel_sizes)
    trainer.enable_deep_supervision = levels > _LEVELS_WITHOUT_DEEP_SUPERVISION
    trainer.initialize()
    trainer.set_deep_supervision_enabled(trainer.enable_deep_supervision)
    return trainer


@cache
def _trainer_class() -> Any:
    from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    class StepTrainer(nnUNetTrainer):  # type: ignore[misc]
        """Says nothing, compiles nothing, learns from given cases, and is the same for the same seed."""

        identifiers: tuple[str, ...] = ()
        mirrored = True

        def print_to_log_file(self, *said: object, **how: object) -> None:
            pass

        def _do_i_compile(self) -> bool:
            return False

        def do_split(self) -> tuple[list[str], list[str]]:
            return list(self.identifiers), list(self.identifiers)

        def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> Any:  # noqa: N802
            rotation, flat, size, axes = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
            axes = axes if self.mirrored else None
            self.inference_allowed_mirroring_axes = axes
            return rotation, flat, size, axes

        @staticmethod
        def get_training_transforms(*given: Any, **named: Any) -> Any:
            made = nnUNetTrainer.get_training_transforms(*given, **named)
            for transform in (getattr(part, "transform", part) for part in made.transforms):
                if isinstance(transform, GaussianBlurTransform):
                    # it times two ways to blur and takes the faster: their results differ in the last bits
                    transform.benchmark = False
            return made

    return StepTrainer
