"""The segmenter behind every network that our own loop trains."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from cohort.case import CaseView, Structure
from cohort.errors import ConfigError, ModelError
from cohort.records import Checkpoint, Prediction, TrainingCase
from cohort.volume import read_image
from segmenters.base import Report
from segmenters.checkpoints import load_network
from segmenters.config import SegmenterConfig
from segmenters.deep_features import DeepFeatures, rounded
from segmenters.denormals import denormals
from segmenters.fitting import make_fit, run_fit
from segmenters.inference import Windows, labels_on_image, predict_probabilities
from segmenters.networks import to_device
from segmenters.predictions import find_prediction, write_prediction
from segmenters.preprocessing import prepare_image
from segmenters.uncertainty import Passes, Variation, check_measures, measure


class TorchSegmenter:
    """Trains a MONAI network and predicts with it; see `segmenters.base.Segmenter`.

    Args:
        config: of network, training and inference.
        device: "cpu", "cuda", or "auto" for a GPU where there is one.

    Raises:
        ConfigError: if the device is unknown or not there.
    """

    def __init__(self, config: SegmenterConfig, device: str = "auto") -> None:
        self._config = config
        self._device = pick_device(device)

    @property
    def config(self) -> SegmenterConfig:
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
        """Train, from scratch or from `initial_weights`; see `segmenters.base.Segmenter.fit`.

        A structure that no case annotates gets no channel: the network is not trained on it until seen.
        With early stopping the training may end before a checkpoint step, which is then missing; the last
        checkpoint bears the step after which it ended, and holds the weights that were measured best.

        Raises:
            ModelError: without cases or annotated structures, if the loss is not finite, if a process that
                takes part fails, or if the initial weights are missing, broken or of another network.
            ConfigError: if a checkpoint step lies outside the training, early stopping finds too few
                patients, or there are not enough GPUs for the processes.
            DataError: if a file is missing or broken.
        """
        total = self._config.steps if steps is None else steps
        fit = make_fit(
            self._config,
            self._device,
            cases,
            structures,
            out,
            seed=seed,
            steps=total,
            checkpoint_steps=steps_to_keep(checkpoint_steps, total),
        )
        return run_fit(fit, report)

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

        Intensities, spacing, patch and precision are the checkpoint's own; overlap and mirroring are this
        segmenter's. A structure that the checkpoint was not trained on has no voxels.

        Raises:
            ModelError: without cases, or if the checkpoint is of another network, has changed, or knows a
                structure that the cohort does not.
            ConfigError: if a kind of uncertainty is unknown.
            DataError: if an image is missing or broken.
        """
        if not cases:
            raise ModelError("There is no case to predict; give at least one")
        check_measures(uncertainty)
        predictor = _Predictor(self._config, checkpoint, structures, out, tuple(uncertainty), self._device)
        predictions = []
        for done, case in enumerate(cases, start=1):
            found = find_prediction(out, case.case_id, structures, checkpoint.sha256, uncertainty)
            with denormals(flush=True):
                predictions.append(found or predictor(case))
            if report is not None:
                report(done, len(cases), {})
        return tuple(predictions)


class _Predictor:
    """A loaded network that writes the prediction of one case after the other."""

    def __init__(
        self,
        config: SegmenterConfig,
        checkpoint: Checkpoint,
        structures: Sequence[Structure],
        out: Path,
        uncertainty: tuple[str, ...],
        device: torch.device,
    ) -> None:
        network, recipe = load_network(checkpoint, config.network)
        self._network = to_device(network, device)
        self._deep = DeepFeatures(self._network)
        self._recipe, self._sha256, self._structures = recipe, checkpoint.sha256, structures
        self._labels = channel_labels(recipe.structures, structures, checkpoint.path)
        self._out, self._uncertainty, self._device = out, uncertainty, device
        self._windows = Windows.of(config)

    def __call__(self, case: CaseView) -> Prediction:
        image = read_image(case.image)
        prepared = prepare_image(image, self._recipe.spacing_mm, self._recipe.config).to(self._device)

        def again(variation: Variation) -> Tensor:
            return predict_probabilities(
                self._network, prepared, self._recipe.config, self._windows, variation
            )

        with self._deep.collecting():
            prob = again(Variation())
        names = [structure.name for structure in self._structures]
        return write_prediction(
            self._out,
            case.case_id,
            labels_on_image(prob, image, self._labels),
            image.affine,
            self._structures,
            self._sha256,
            measure(Passes(prob=prob, again=again), self._uncertainty, self._recipe.structures, names),
            rounded(self._deep.values()),
        )


def channel_labels(trained: Sequence[str], structures: Sequence[Structure], path: Path) -> tuple[int, ...]:
    """Labels of background and of the structures that a checkpoint was trained on.

    Raises:
        ModelError: if the cohort does not have one of them.
    """
    by_name = {structure.name: structure.label for structure in structures}
    unknown = [name for name in trained if name not in by_name]
    if unknown:
        raise ModelError(
            f"{path} was trained on {unknown}, which the cohort does not have ({sorted(by_name)}); predict "
            "with the structures that it was trained on"
        )
    return (0, *(by_name[name] for name in trained))


def steps_to_keep(asked: Sequence[int], total: int) -> frozenset[int]:
    """Steps after which a training keeps a checkpoint: those that were asked for, and the last.

    Raises:
        ConfigError: for a step outside of the training.
    """
    if total < 1:
        raise ConfigError(f"steps is {total}, expected 1 or more")
    outside = sorted(step for step in asked if not 1 <= step <= total)
    if outside:
        raise ConfigError(f"checkpoint_steps has {outside}, expected steps from 1 to {total}")
    return frozenset(asked) | {total}


def pick_device(name: str) -> torch.device:
    """The device of a name: "cpu", "cuda", or "auto" for a GPU where there is one.

    Raises:
        ConfigError: if it is unknown or not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda") or (name == "cuda" and not torch.cuda.is_available()):
        raise ConfigError(f"device is {name!r}, expected auto, cpu, or cuda where there is a GPU")
    return torch.device(name)
