"""Stages that train a segmenter and predict with it, for any flow that needs them."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cohort.case import CaseView, Structure
from cohort.records import Checkpoint, Prediction, TrainingCase
from flows import tasks
from flows.progress import recorded, shifted
from flows.stages import content_sha256, run_stage, write_json
from segmenters.base import Report, SegmenterSettings, find_checkpoints
from segmenters.predictions import read_prediction
from segmenters.registry import make_segmenter

CHUNK = 50
"""Cases in one Prefect task of segmentation."""

CURVES = "curves.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmenterStages:
    """Trains and predicts in a folder.

    Args:
        folder: that gets the stages' folders.
        workspace: that outlives rounds, see `segmenters.registry.make_segmenter`.
        config: of the segmenter.
        structures: of the data set.
        fingerprints: case id -> hash of its files.
        step: opens the display of a step by its description.
    """

    folder: Path
    workspace: Path
    config: SegmenterSettings
    structures: tuple[Structure, ...]
    fingerprints: Mapping[str, str]
    step: Callable[[str], AbstractContextManager[Report]]

    def fit(
        self,
        name: str,
        shown: str,
        cases: Sequence[TrainingCase],
        training_set: str,
        *,
        steps: int,
        checkpoint_steps: Sequence[int],
        seed: int,
    ) -> tuple[Checkpoint, ...]:
        """Train from scratch.

        Args:
            name: of the stage.
            shown: its description.
            cases: to learn from.
            training_set: hash of the annotations that it learns from.
            steps: optimiser steps.
            checkpoint_steps: after which a checkpoint is kept too.
            seed: of everything random.

        Returns:
            Checkpoints in the order of their steps, the last one is the final one.
        """
        inputs = {
            "training_set": training_set,
            "images": {case.case_id: self.fingerprints[case.case_id] for case in cases},
            "segmenter": _decisive(self.config, any(case.pseudo for case in cases)),
            "files": [content_sha256(path) for path in self.config.files],
            "structures": [asdict(structure) for structure in self.structures],
            "steps": steps,
            "checkpoint_steps": list(checkpoint_steps),
            "seed": seed,
        }

        def make(folder: Path) -> None:
            with self.step(shown) as report:
                curve, recorder = recorded(report)
                tasks.train_segmenter(
                    make_segmenter(self.config, self.workspace),
                    cases,
                    self.structures,
                    folder,
                    seed=seed,
                    steps=steps,
                    checkpoint_steps=tuple(checkpoint_steps),
                    report=recorder,
                )
            write_json(folder / CURVES, curve)

        finished = run_stage(self.folder, name, inputs, make)
        return find_checkpoints(finished)

    def predict(
        self, name: str, cases: Sequence[CaseView], checkpoint: Checkpoint, kinds: Sequence[str] = ()
    ) -> tuple[Prediction, ...]:
        """Label maps of cases, with uncertainty of these kinds, in the order of the cases."""
        inputs = {
            "cases": {case.case_id: self.fingerprints[case.case_id] for case in cases},
            "checkpoint": checkpoint.sha256,
            "segmenter": _decisive(self.config),
            "files": [content_sha256(path) for path in self.config.files],
            "uncertainty": list(kinds),
        }

        def make(folder: Path) -> None:
            with self.step(name.replace("-", " ", 1)) as report:
                for start in range(0, len(cases), CHUNK):
                    tasks.segment_chunk(
                        make_segmenter(self.config, self.workspace),
                        cases[start : start + CHUNK],
                        checkpoint,
                        self.structures,
                        folder,
                        uncertainty=tuple(kinds),
                        report=shifted(report, start, len(cases)),
                    )

        finished = run_stage(self.folder, name, inputs, make)
        return tuple(read_prediction(finished / f"{case.case_id}.json") for case in cases)


def _decisive(config: SegmenterSettings, pseudo_labelled: bool = False) -> dict[str, Any]:
    """The settings without what a training may use of the machine, which may change between two starts.

    How pseudo-labels are used counts only where there are any, so that arms which differ in it alone share
    the stages before.
    """
    without = {"resources"} if pseudo_labelled else {"resources", "semi_supervision"}
    return {name: value for name, value in asdict(config).items() if name not in without}
