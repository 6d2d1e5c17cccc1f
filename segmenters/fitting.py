"""From training cases on disk to checkpoints: prepares the cases, gathers the processes, trains."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cohort.case import Spacing, Structure
from cohort.records import Checkpoint, TrainingCase
from cohort.seeds import generator
from segmenters.base import Report
from segmenters.case_store import open_stored, prepared_cases
from segmenters.checkpoints import checkpoint_path, save_checkpoint
from segmenters.config import SegmenterConfig
from segmenters.descriptions import load_checkpoint
from segmenters.distributed import Group, own_device, own_rank, process_group
from segmenters.early_stopping import hold_back
from segmenters.initial_weights import read_initial_weights
from segmenters.preprocessing import (
    PreparedCase,
    median_spacing_mm,
    prepare_training_case,
    trained_structures,
)
from segmenters.training import Keep, Start, train
from segmenters.training_state import StateFile, training_inputs

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A training, as every process that takes part needs to know it.

    Args:
        config: of the segmenter.
        device: "cpu" or "cuda".
        learning: cases to learn from.
        held_back: cases that early stopping measures.
        structures: of the cohort.
        trained: structures with a channel.
        spacing_mm: (D, H, W) that the network works at.
        out: folder for checkpoints, and for what a training leaves there while it lasts.
        seed: of everything random.
        steps: optimiser steps.
        checkpoint_steps: steps after which to keep a checkpoint.
        initial_sha256: of the weights that it starts from, "" where it starts from scratch.
        inputs: hash of all that the weights depend on, "" where the training is too short to be saved.
    """

    config: SegmenterConfig
    device: torch.device
    learning: tuple[TrainingCase, ...]
    held_back: tuple[TrainingCase, ...]
    structures: tuple[Structure, ...]
    trained: tuple[Structure, ...]
    spacing_mm: Spacing
    out: Path
    seed: int
    steps: int
    checkpoint_steps: frozenset[int]
    initial_sha256: str
    inputs: str

    @property
    def cases(self) -> tuple[TrainingCase, ...]:
        """All cases, those to learn from first."""
        return self.learning + self.held_back

    @property
    def state_file(self) -> StateFile:
        """Where the state of the training lies."""
        return StateFile(self.out, self.inputs, self.config.resources.save_every)

    def prepare(self, case: TrainingCase) -> PreparedCase:
        """Read and prepare one case."""
        rng = generator(self.seed, "places", case.case_id)
        return prepare_training_case(case, self.trained, self.structures, self.spacing_mm, self.config, rng)

    def start(self) -> Start | None:
        """What puts the initial weights into a network, None without any."""
        initial = read_initial_weights(self.config)
        names = tuple(structure.name for structure in self.trained)
        return None if initial is None else lambda network: initial.put_into(network, self.config, names)

    def keep(self, step: int, weights: Mapping[str, Tensor]) -> None:
        """Write a checkpoint."""
        names = tuple(structure.name for structure in self.trained)
        save_checkpoint(self.out, step, weights, self.config, names, self.spacing_mm, self.initial_sha256)


def make_fit(
    config: SegmenterConfig,
    device: torch.device,
    cases: Sequence[TrainingCase],
    structures: Sequence[Structure],
    out: Path,
    *,
    seed: int,
    steps: int,
    checkpoint_steps: frozenset[int],
) -> Fit:
    """Say all that there is to know of a training before it begins.

    Raises:
        ModelError: without cases or annotated structures, or if the initial weights are missing or broken.
        ConfigError: if there are too few patients for early stopping.
        DataError: if a file is missing or broken.
    """
    trained_structures(cases, structures)
    initial = read_initial_weights(config)
    initial_sha256 = "" if initial is None else initial.sha256
    learning, held_back = hold_back(cases, config.early_stopping, seed)
    trained = trained_structures(learning, structures)
    unseen = [structure.name for structure in structures if structure not in trained]
    if unseen:
        _log.warning("No training case annotates %s: not trained, and without voxels", ", ".join(unseen))
    return Fit(
        config=config,
        device=device,
        learning=learning,
        held_back=held_back,
        structures=tuple(structures),
        trained=trained,
        spacing_mm=config.spacing_mm or median_spacing_mm(learning),
        out=out,
        seed=seed,
        steps=steps,
        checkpoint_steps=checkpoint_steps,
        initial_sha256=initial_sha256,
        inputs=training_inputs(
            config,
            cases,
            structures,
            seed=seed,
            steps=steps,
            checkpoint_steps=checkpoint_steps,
            initial_sha256=initial_sha256,
        )
        if 0 < config.resources.save_every < steps
        else "",
    )


def run_fit(fit: Fit, report: Report | None) -> tuple[Checkpoint, ...]:
    """Train, in as many processes as the configuration says.

    Args:
        fit: what to do.
        report: is told the progress.

    Returns:
        Checkpoints in order of their steps, the last one is the final one.

    Raises:
        ModelError: if the loss is not finite, or another process fails.
        DataError: if a file is missing or broken.
    """
    processes = fit.config.processes
    resources = fit.config.resources
    if own_rank(processes) > 0:
        with process_group(processes, fit.device, _follow, (fit,)) as group:
            kept = _follow(group, fit)
    else:
        cache_gib = resources.cache_gib if processes == 1 else 0.0
        with (
            prepared_cases(
                fit.cases, fit.prepare, fit.out, cache_gib=cache_gib, threads=resources.loaders
            ) as cases,
            process_group(processes, fit.device, _follow, (fit,)) as group,
        ):
            group.wait()
            kept = _train(group, fit, cases, fit.keep, report)
            group.wait()
        fit.state_file.remove()
    return tuple(load_checkpoint(checkpoint_path(fit.out, step)) for step in kept)


def _follow(group: Group, fit: Fit) -> tuple[int, ...]:
    """Take part in a training that another process leads: it prepares the cases and writes the files."""
    group.wait()
    cases = open_stored(fit.out, len(fit.cases))
    kept = _train(group, fit, cases, _keep_nothing, None)
    group.wait()
    return kept


def _train(
    group: Group, fit: Fit, cases: Sequence[PreparedCase], keep: Keep, report: Report | None
) -> tuple[int, ...]:
    return train(
        cases[: len(fit.learning)],
        fit.spacing_mm,
        fit.config,
        seed=fit.seed,
        steps=fit.steps,
        checkpoint_steps=fit.checkpoint_steps,
        keep=keep,
        device=own_device(fit.device, group.rank, group.size),
        report=report,
        start=fit.start(),
        held_back=cases[len(fit.learning) :],
        saved=fit.state_file if fit.inputs else None,
        group=group,
    )


def _keep_nothing(step: int, weights: Mapping[str, Tensor]) -> None:
    return None
