"""From an image to a label map through nnU-Net's own predictor."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn

from cohort.case import CaseView, Structure
from cohort.errors import ModelError
from cohort.records import Checkpoint, Prediction
from cohort.volume import from_canonical, read_image, to_canonical, write_bytes
from segmenters.checkpoints import checkpoint_path
from segmenters.descriptions import broken_description, check_weights, describe, read_description
from segmenters.nnunet_config import NnUNetConfig
from segmenters.nnunet_dataset import PreparedSet
from segmenters.nnunet_labels import to_cohort
from segmenters.nnunet_package import inside_nnunet, seeded
from segmenters.nnunet_training import network_weights
from segmenters.predictions import write_prediction
from segmenters.uncertainty import Passes, Variation, measure

FAMILY = "nnunet"
_NEVER = -1e4


def save_nnunet(
    folder: Path,
    step: int,
    weights: Mapping[str, Tensor],
    config: NnUNetConfig,
    prepared: PreparedSet,
    structures: Sequence[str],
) -> Checkpoint:
    """Write weights and description atomically; the same weights give the same bytes.

    Args:
        folder: gets the files.
        step: optimiser steps taken.
        weights: of the network.
        config: of the training.
        prepared: what it learned from; its plan and labels go into the description.
        structures: that at least one case annotates.
    """
    path = checkpoint_path(folder, step)
    tensors = {name: weights[name].cpu().contiguous() for name in sorted(weights)}
    write_bytes(path, safetensors.torch.save(tensors))
    # which cases the plan and the training took is in the workspace
    dataset = {key: value for key, value in prepared.dataset.items() if key != "dataset"}
    details = {
        "config": asdict(config),
        "nnunetv2": version("nnunetv2"),
        "plan": prepared.plan,
        "dataset": dataset,
    }
    return describe(path, family=FAMILY, step=step, structures=structures, details=details)


class NnUNetPredictor:
    """A loaded network that writes the prediction of one case after the other.

    Args:
        config: of the segmenter; overlap and mirroring are its own, all else is the checkpoint's.
        checkpoint: to load.
        structures: of the cohort.
        out: folder for the label maps.
        uncertainty: kinds to compute beside.
        device: to predict on.

    Raises:
        ModelError: if the checkpoint is of another family, has changed, or knows a structure that the cohort
            does not.
    """

    def __init__(
        self,
        config: NnUNetConfig,
        checkpoint: Checkpoint,
        structures: Sequence[Structure],
        out: Path,
        uncertainty: tuple[str, ...],
        device: torch.device,
    ) -> None:
        description = read_description(checkpoint.path, FAMILY)
        self._structures, self._out, self._uncertainty = structures, out, uncertainty
        self._sha256, self._trained = checkpoint.sha256, description["structures"]
        self._labels = _labels(self._trained, structures, checkpoint.path)
        try:
            settings, dataset = dict(description["config"]), dict(description["dataset"])
            self._channels = [0, *(int(dataset["labels"][name]) for name in self._trained)]
            self._predictor = _predictor(config, settings, description["plan"], dataset, device)
        except (KeyError, TypeError, ValueError) as error:
            raise broken_description(checkpoint.path, error) from error
        _load(self._predictor.network, checkpoint)

    def __call__(self, case: CaseView) -> Prediction:
        """Predict a case and write what was found.

        Raises:
            DataError: if the image is missing or broken.
        """
        image = read_image(case.image)
        canonical = to_canonical(image)
        data, properties = self._preprocessed(canonical.array, canonical.spacing_mm)
        logits = self._logits(data)

        def again(variation: Variation) -> Tensor:
            noise = torch.randn(data.shape, generator=torch.Generator().manual_seed(variation.seed))
            return torch.softmax(self._logits(data + variation.noise * noise), dim=0)

        passes = Passes(prob=torch.softmax(logits, dim=0), again=again) if self._uncertainty else None
        names = [structure.name for structure in self._structures]
        depth, height, width = image.array.shape
        found = to_cohort(self._on_image(logits, properties), self._labels)
        return write_prediction(
            self._out,
            case.case_id,
            from_canonical(found, image.affine, (depth, height, width)),
            image.affine,
            self._structures,
            self._sha256,
            measure(passes, self._uncertainty, self._trained, names) if passes else {},
        )

    def _preprocessed(
        self, array: NDArray[np.float32], spacing_mm: Sequence[float]
    ) -> tuple[Tensor, dict[str, Any]]:
        nnunet = self._predictor
        preprocessor = nnunet.configuration_manager.preprocessor_class(verbose=False)
        data, _, properties = preprocessor.run_case_npy(
            array[None],
            None,
            {"spacing": list(spacing_mm)},
            nnunet.plans_manager,
            nnunet.configuration_manager,
            nnunet.dataset_json,
        )
        return torch.from_numpy(np.ascontiguousarray(data)), properties

    def _logits(self, data: Tensor) -> Tensor:
        """(C, D, H, W) float32 on nnU-Net's grid, of the channels that were trained."""
        logits: Tensor = self._predictor.predict_sliding_window_return_logits(data)
        return logits[self._channels].cpu().float()

    def _on_image(self, logits: Tensor, properties: dict[str, Any]) -> NDArray[np.uint8]:
        """Number of the most probable trained channel of every voxel of the canonical image."""
        from nnunetv2.inference.export_prediction import (
            convert_predicted_logits_to_segmentation_with_correct_shape,
        )

        nnunet = self._predictor
        # nnU-Net wants all channels of its labels back
        every = torch.full((nnunet.label_manager.num_segmentation_heads, *logits.shape[1:]), _NEVER)
        every[self._channels] = logits
        found = convert_predicted_logits_to_segmentation_with_correct_shape(
            every,
            nnunet.plans_manager,
            nnunet.configuration_manager,
            nnunet.label_manager,
            properties,
            num_threads_torch=torch.get_num_threads(),
        )
        numbers = np.zeros(len(every), dtype=np.uint8)
        numbers[self._channels] = np.arange(len(self._channels))
        return np.asarray(numbers[np.asarray(found)], dtype=np.uint8)


def _predictor(
    config: NnUNetConfig,
    trained_with: Mapping[str, Any],
    plan: dict[str, Any],
    dataset: dict[str, Any],
    device: torch.device,
) -> Any:
    """nnU-Net's predictor with the network of a checkpoint, its weights not loaded yet."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(plan)
    configuration = manager.get_configuration(str(trained_with["configuration"]))
    heads = manager.get_label_manager(dataset).num_segmentation_heads
    axes = tuple(range(len(configuration.patch_size))) if trained_with["train_mirror"] else None
    with inside_nnunet(Path()), seeded(0):  # the network's first weights are drawn, and replaced
        network = nnUNetTrainer.build_network_architecture(
            manager, configuration, len(dataset["channel_names"]), heads, enable_deep_supervision=False
        )
        predictor = nnUNetPredictor(
            tile_step_size=1.0 - config.overlap,
            use_mirroring=config.mirror,
            device=device,
            allow_tqdm=False,
        )
        predictor.manual_initialization(network, manager, configuration, None, dataset, "nnUNetTrainer", axes)
    return predictor


def _load(network: nn.Module, checkpoint: Checkpoint) -> None:
    check_weights(checkpoint.path, checkpoint.sha256)
    try:
        weights = safetensors.torch.load(checkpoint.path.read_bytes())
    except SafetensorError as error:
        raise ModelError(f"{checkpoint.path} is no safetensors file: {error}") from error
    expected = network_weights(network)
    try:
        if weights.keys() != expected.keys():
            raise RuntimeError(f"other tensors: {sorted(weights.keys() ^ expected.keys())[:4]} ...")
        network.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise ModelError(
            f"{checkpoint.path} does not fit the network that its JSON file describes: {error}"
        ) from error


def _labels(trained: Sequence[str], structures: Sequence[Structure], path: Path) -> tuple[int, ...]:
    by_name = {structure.name: structure.label for structure in structures}
    unknown = [name for name in trained if name not in by_name]
    if unknown:
        raise ModelError(
            f"{path} was trained on {unknown}, which the cohort does not have ({sorted(by_name)}); predict "
            "with the structures that it was trained on"
        )
    return (0, *(by_name[name] for name in trained))
