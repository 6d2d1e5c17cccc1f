"""The segmenter behind a MONAI bundle, used as it is or fine-tuned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from cohort.case import CaseView, Structure
from cohort.errors import ConfigError, ModelError
from cohort.records import Checkpoint, Prediction, TrainingCase
from cohort.seeds import derive_seed
from segmenters.base import Report
from segmenters.bundle_channels import channels_of_structures, check_any_meant
from segmenters.bundle_config import BundleConfig
from segmenters.bundle_definition import BundleDefinition
from segmenters.bundle_files import find_bundle
from segmenters.bundle_inference import BundlePredictor
from segmenters.bundle_training import (
    give_first_output,
    prepare_bundle_cases,
    training_config,
)
from segmenters.bundle_weights import network_for_structures, network_with, read_bundle_weights
from segmenters.checkpoints import checkpoint_path, read_weights, write_weights
from segmenters.denormals import denormals
from segmenters.descriptions import broken_description, describe, read_description
from segmenters.networks import to_device
from segmenters.predictions import find_prediction
from segmenters.preprocessing import trained_structures
from segmenters.torch_segmenter import channel_labels, pick_device, steps_to_keep
from segmenters.training import train
from segmenters.uncertainty import DROPOUT_MEASURES, check_measures


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What the output channels of a checkpoint's network are.

    Args:
        outputs: how many, None for as many as the bundle has.
        channels: structure -> channels that mean it.
        sigmoid: whether each channel stands alone.
    """

    outputs: int | None
    channels: Mapping[str, tuple[int, ...]]
    sigmoid: bool


class BundleSegmenter:
    """Predicts with a MONAI bundle and fine-tunes its network; see `segmenters.base.Segmenter`.

    With `steps` 0 the bundle is taken never to have seen a case of the cohort, so its masks of labelled cases
    are as good as cross-fitted ones.

    Args:
        config: of the bundle and its fine-tuning.
        workspace: folder where a zip file is unpacked, or a bundle downloaded, once.
        device: "cpu", "cuda", or "auto" for a GPU where there is one.

    Raises:
        ConfigError: if the device is unknown or not there.
    """

    def __init__(self, config: BundleConfig, workspace: Path, device: str = "auto") -> None:
        self._config, self._workspace = config, workspace
        self._device = pick_device(device)

    @property
    def config(self) -> BundleConfig:
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
        """Fine-tune the bundle's network; see `segmenters.base.Segmenter.fit`.

        With `steps` 0 in the configuration nothing is learned, whatever is asked for here, and the one
        checkpoint, of step 0, holds the bundle's own weights.

        Raises:
            ModelError: without cases or annotated structures, if the bundle cannot be used, or if the loss is
                not finite.
            ConfigError: if `channels` does not fit, or a checkpoint step lies outside the training.
            DataError: if a file is missing or broken.
        """
        weights = read_bundle_weights(self._definition, self._config.weights)
        if self._config.dropout:
            self._check_dropout(self._definition.network())
        if self._config.steps == 0:
            found = self._channels(structures)
            check_any_meant(self._config, structures, found, self._definition.channel_names)
            head = Head(outputs=None, channels=found, sigmoid=self._sigmoid)
            return (self._keep(out, 0, weights, head),)
        total = self._config.steps if steps is None else steps
        wanted = steps_to_keep(checkpoint_steps, total)
        trained = trained_structures(cases, structures)
        own = {structure.name: (channel,) for channel, structure in enumerate(trained, start=1)}
        outputs = 1 + len(trained)
        same = outputs == self._definition.output_channels
        head = Head(outputs=None if same else outputs, channels=own, sigmoid=False)
        network = self._network_for(trained, structures, weights, derive_seed(seed, "weights"))
        checkpoints: list[Checkpoint] = []

        def keep(step: int, weights: Mapping[str, Tensor]) -> None:
            checkpoints.append(self._keep(out, step, weights, head))

        prepared, spacing = prepare_bundle_cases(self._definition, cases, trained, structures, seed)
        train(
            prepared,
            spacing,
            training_config(self._config, self._definition.window),
            seed=seed,
            steps=total,
            checkpoint_steps=wanted,
            keep=keep,
            device=self._device,
            report=report,
            network=network,
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
        """Predict label maps on the images' own grids; see `segmenters.base.Segmenter.predict`.

        Images are prepared, and windows laid, as the bundle says. A structure that no channel means has no
        voxels.

        Raises:
            ModelError: without cases, or if the checkpoint is of another bundle, has changed, or knows a
                structure that the cohort does not.
            ConfigError: if a kind of uncertainty is unknown, or the network has no dropout for "mc_dropout".
            DataError: if an image is missing or broken.
        """
        if not cases:
            raise ModelError("There is no case to predict; give at least one")
        check_measures(uncertainty)
        predictor = self._predictor(checkpoint, structures, out, tuple(uncertainty))
        predictions = []
        for done, case in enumerate(cases, start=1):
            found = find_prediction(out, case.case_id, structures, checkpoint.sha256, uncertainty)
            with denormals(flush=True):
                predictions.append(found or predictor(case))
            if report is not None:
                report(done, len(cases), {})
        return tuple(predictions)

    @cached_property
    def _definition(self) -> BundleDefinition:
        return BundleDefinition(find_bundle(self._config.path, self._workspace), self._device)

    @property
    def _sigmoid(self) -> bool:
        if self._config.activation == "auto":
            return self._definition.sigmoid
        return self._config.activation == "sigmoid"

    def _channels(self, structures: Sequence[Structure]) -> dict[str, tuple[int, ...]]:
        definition = self._definition
        return channels_of_structures(
            self._config,
            structures,
            definition.channel_names,
            definition.output_channels,
            background=not self._sigmoid,
        )

    def _network_for(
        self,
        trained: Sequence[Structure],
        structures: Sequence[Structure],
        weights: Mapping[str, Tensor],
        seed: int,
    ) -> nn.Module:
        """The network to train: what the bundle knows of the structures is where the training begins."""
        found = self._channels(structures)
        background = () if self._sigmoid else (0,)
        rows = [background, *(found.get(structure.name) for structure in trained)]
        network = network_for_structures(self._definition, weights, rows, seed)
        give_first_output(network)
        return network

    def _predictor(
        self,
        checkpoint: Checkpoint,
        structures: Sequence[Structure],
        out: Path,
        uncertainty: tuple[str, ...],
    ) -> BundlePredictor:
        head = self._head(checkpoint)
        labels = channel_labels(tuple(head.channels), structures, checkpoint.path)
        weights = read_weights(checkpoint.path, checkpoint.sha256)
        network = network_with(self._definition, head.outputs, weights)
        if DROPOUT_MEASURES & set(uncertainty):
            self._check_dropout(network)
        return BundlePredictor(
            definition=self._definition,
            config=self._config,
            network=to_device(network, self._device),
            device=self._device,
            channels=tuple(head.channels.values()),
            sigmoid=head.sigmoid,
            trained=tuple(head.channels),
            labels=labels,
            structures=tuple(structures),
            sha256=checkpoint.sha256,
            out=out,
            uncertainty=uncertainty,
        )

    def _keep(self, out: Path, step: int, weights: Mapping[str, Tensor], head: Head) -> Checkpoint:
        path = checkpoint_path(out, step)
        write_weights(path, weights)
        details: dict[str, Any] = {
            "bundle": self._definition.files.definition_sha256(),
            "outputs": head.outputs,
            "channels": {name: list(channels) for name, channels in head.channels.items()},
            "sigmoid": head.sigmoid,
        }
        return describe(path, family="bundle", step=step, structures=tuple(head.channels), details=details)

    def _head(self, checkpoint: Checkpoint) -> Head:
        values = read_description(checkpoint.path, "bundle")
        try:
            bundle, outputs = str(values["bundle"]), values["outputs"]
            head = Head(
                outputs=None if outputs is None else int(outputs),
                channels={
                    str(name): tuple(map(int, channels)) for name, channels in values["channels"].items()
                },
                sigmoid=bool(values["sigmoid"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise broken_description(checkpoint.path, error) from error
        if bundle != self._definition.files.definition_sha256():
            raise ModelError(
                f"{checkpoint.path} was made with another bundle than {self._config.path}, or its "
                "configuration has changed since; predict with the bundle that it was made with"
            )
        return head

    def _check_dropout(self, network: nn.Module) -> None:
        if not any(isinstance(layer, _DropoutNd) and layer.p > 0 for layer in network.modules()):
            raise ConfigError(
                f"The network of the bundle {self._config.path} has no dropout, so that every pass would be "
                "the same; set dropout to false, and take an estimator that needs none"
            )
