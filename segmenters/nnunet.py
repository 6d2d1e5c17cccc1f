"""nnU-Net v2 through its own package, with a budget of steps."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from cohort.case import CaseView, Structure
from cohort.errors import ConfigError, ModelError
from cohort.records import Checkpoint, Prediction, TrainingCase
from segmenters.base import Report
from segmenters.denormals import denormals
from segmenters.nnunet_config import NnUNetConfig
from segmenters.nnunet_dataset import NnUNetDataset
from segmenters.nnunet_inference import NnUNetPredictor, save_nnunet
from segmenters.nnunet_package import planner_class, require_nnunet
from segmenters.nnunet_training import train
from segmenters.predictions import find_prediction
from segmenters.preprocessing import trained_structures
from segmenters.torch_segmenter import steps_to_keep
from segmenters.uncertainty import check_measures

_log = logging.getLogger(__name__)


class NnUNetSegmenter:
    """Trains nnU-Net and predicts with it; see `segmenters.base.Segmenter`.

    Args:
        config: of plan, training and inference.
        workspace: folder that outlives rounds; it gets nnU-Net's folders, with the plan and the prepared
            cases that later fits use again.

    Raises:
        MissingExtraError: if the package is not installed.
        ConfigError: if nnU-Net has no planner of the configured name.
    """

    def __init__(self, config: NnUNetConfig, workspace: Path) -> None:
        require_nnunet()
        planner_class(config.planner)
        self._config, self._workspace = config, workspace
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def config(self) -> NnUNetConfig:
        """What the segmenter was made with."""
        return self._config

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
        """Train from scratch; see `segmenters.base.Segmenter.fit`.

        nnU-Net plans with the cases of the first fit in a workspace. A training that was killed starts again,
        but finds the plan and the cases that were prepared. A structure that no case annotates is not
        trained.

        Raises:
            ModelError: without cases or annotated structures, if no case shows background, if the images are
                too small, or if the loss is not finite.
            ConfigError: if a checkpoint step lies outside the training.
            DataError: if a file is missing or broken.
        """
        config = self._config
        total = config.steps if steps is None else steps
        wanted = steps_to_keep(checkpoint_steps, total)
        trained = tuple(structure.name for structure in trained_structures(cases, structures))
        unseen = sorted({structure.name for structure in structures} - set(trained))
        if unseen:
            _log.warning("No training case annotates %s; nnU-Net is not trained on it", ", ".join(unseen))
        prepared = NnUNetDataset(self._workspace, config, structures).prepare(cases)
        checkpoints: list[Checkpoint] = []

        def keep(step: int, weights: Mapping[str, Tensor]) -> None:
            checkpoints.append(save_nnunet(out, step, weights, config, prepared, trained))

        train(
            prepared,
            config,
            seed=seed,
            steps=total,
            checkpoint_steps=wanted,
            keep=keep,
            device=self._device,
            report=report,
        )
        return tuple(checkpoints)

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
        """Predict label maps; see `segmenters.base.Segmenter.predict`.

        Plan and configuration are the checkpoint's own; overlap and mirroring are this segmenter's. A
        structure that the checkpoint was not trained on has no voxels.

        Raises:
            ModelError: without cases, or if the checkpoint is of another family, has changed, or knows a
                structure that the cohort does not.
            ConfigError: if nnU-Net's predictions do not yield a kind of uncertainty.
            DataError: if an image is missing or broken.
        """
        if not cases:
            raise ModelError("There is no case to predict; give at least one")
        check_measures(uncertainty)
        missing = sorted(set(uncertainty) - self._config.measures)
        if missing:
            raise ConfigError(
                f"nnU-Net's predictions do not yield {', '.join(missing)}; they yield "
                f"{', '.join(sorted(self._config.measures))}"
            )
        predict = NnUNetPredictor(self._config, checkpoint, structures, out, tuple(uncertainty), self._device)
        predictions = []
        for done, case in enumerate(cases, start=1):
            found = find_prediction(out, case.case_id, structures, checkpoint.sha256, uncertainty)
            with denormals(flush=True):
                predictions.append(found or predict(case))
            if report is not None:
                report(done, len(cases), {})
        return tuple(predictions)
