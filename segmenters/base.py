"""The interface of every family of segmentation models, and what reads their checkpoints and predictions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from cohort.case import CaseView, Structure
from cohort.records import Checkpoint, Prediction, TrainingCase
from segmenters.descriptions import find_checkpoints, load_checkpoint
from segmenters.predictions import read_prediction

__all__ = [
    "Report",
    "Segmenter",
    "SegmenterSettings",
    "find_checkpoints",
    "load_checkpoint",
    "read_prediction",
]


class Report(Protocol):
    """Is told how far a training or prediction is."""

    def __call__(self, step: int, total: int, metrics: Mapping[str, float]) -> None:
        """Hear of one step.

        Args:
            step: steps or cases done.
            total: steps or cases to do.
            metrics: name -> value, such as "loss" and "learning_rate"; empty for predictions.
        """


class SegmenterSettings(Protocol):
    """What the flows ask of the configuration of any family: a frozen dataclass of plain values."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def family(self) -> str:
        """Name in `segmenters.registry.FAMILIES`."""

    @property
    def steps(self) -> int:
        """Optimiser steps of a training."""

    @property
    def architecture(self) -> str:
        """What to call the model in a table."""

    @property
    def measures(self) -> frozenset[str]:
        """Kinds of uncertainty that its predictions can yield."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Files and folders that its results depend on, by what lies in them and not by their names alone."""


class Segmenter(Protocol):
    """Learns from annotated cases and predicts label maps of others."""

    @property
    def config(self) -> SegmenterSettings:
        """What the segmenter was made with."""
        ...

    def fit(
        self,
        cases: Sequence[TrainingCase],
        structures: Sequence[Structure],
        out: Path,
        *,
        seed: int,
        steps: int | None = None,
        checkpoint_steps: Sequence[int] = (),
        report: Report | None = None,
    ) -> tuple[Checkpoint, ...]:
        """Train from scratch.

        Args:
            cases: what to learn from.
            structures: of the cohort, with their labels in the label maps.
            out: folder for the checkpoints, see `find_checkpoints`. A family that can go on with a
                training that was killed does so from hidden files there, which are gone at the end.
            seed: of everything random; the same seed gives the same weights at a fixed thread count.
            steps: optimiser steps, None is the configured number.
            checkpoint_steps: steps after which to keep a checkpoint too, unless the training ends before.
            report: is told the progress.

        Returns:
            Checkpoints in order of their steps, the last one is the final one.
        """
        ...

    def predict(
        self,
        cases: Sequence[CaseView],
        checkpoint: Checkpoint,
        structures: Sequence[Structure],
        out: Path,
        *,
        uncertainty: Sequence[str] = (),
        report: Report | None = None,
    ) -> tuple[Prediction, ...]:
        """Write `<out>/<case_id>.nii.gz` and `.json` for every case that has none of this checkpoint.

        Args:
            cases: what to segment.
            checkpoint: of this segmenter.
            structures: of the cohort, with their labels in the label maps.
            out: folder for the label maps.
            uncertainty: kinds to compute beside, such as "entropy".
            report: is told the progress.

        Returns:
            One prediction per case, in the order of the cases.
        """
        ...
