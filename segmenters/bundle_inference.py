"""From an image to a label map on its own grid, through a bundle's preparation, inferer and network."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from cohort.case import CaseView, Structure
from cohort.errors import ModelError
from cohort.records import Prediction
from cohort.volume import Volume, read_image
from segmenters.bundle_channels import merged_probabilities
from segmenters.bundle_config import BundleConfig
from segmenters.bundle_definition import BundleDefinition
from segmenters.bundle_grid import most_probable_on_grid
from segmenters.inference import dropout_of
from segmenters.precision import autocast
from segmenters.predictions import write_prediction
from segmenters.uncertainty import Passes, Variation, measure


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BundlePredictor:
    """A loaded network that writes the prediction of one case after the other.

    Args:
        definition: of the bundle.
        config: of the bundle.
        network: in evaluation mode, on the device.
        device: that it is on.
        channels: output channels of each trained structure.
        sigmoid: whether each output channel stands alone.
        trained: names of these structures.
        labels: of background and these structures.
        structures: of the cohort.
        sha256: of the checkpoint.
        out: folder for the label maps.
        uncertainty: kinds to compute beside.
    """

    definition: BundleDefinition
    config: BundleConfig
    network: nn.Module
    device: torch.device
    channels: tuple[tuple[int, ...], ...]
    sigmoid: bool
    trained: tuple[str, ...]
    labels: tuple[int, ...]
    structures: tuple[Structure, ...]
    sha256: str
    out: Path
    uncertainty: tuple[str, ...]

    def __call__(self, case: CaseView) -> Prediction:
        """Predict a case and write what was found."""
        image = read_image(case.image)
        prepared = self.definition.prepare(image)
        inferer = self._inferer()

        def again(variation: Variation) -> Tensor:
            return self._probabilities(prepared.array, variation, inferer, case.case_id)

        prob = again(Variation())
        names = [structure.name for structure in self.structures]
        return write_prediction(
            self.out,
            case.case_id,
            self._labels_on_image(prob, prepared.affine, image),
            image.affine,
            self.structures,
            self.sha256,
            measure(Passes(prob=prob, again=again), self.uncertainty, self.trained, names),
        )

    def _labels_on_image(self, prob: Tensor, affine: Any, image: Volume) -> Any:
        depth, height, width = image.array.shape
        best = most_probable_on_grid(prob, affine, image.affine, (width, height, depth))
        return torch.tensor(self.labels, dtype=torch.uint8).numpy()[best].T

    def _inferer(self) -> Any:
        inferer = copy.copy(self.definition.inferer)
        if self.config.overlap is not None:
            if not hasattr(inferer, "overlap"):
                raise ModelError(
                    f"overlap is set, but the inferer of the bundle {self.config.path} is a "
                    f"{type(inferer).__name__}, which has no windows; leave overlap out"
                )
            inferer.overlap = self.config.overlap
        return inferer

    @torch.inference_mode()
    def _probabilities(self, image: Tensor, variation: Variation, inferer: Any, case_id: str) -> Tensor:
        """(1 + structures, X, Y, Z) on the grid of the prepared image; noise is relative to its spread."""
        if variation.noise:
            noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(variation.seed))
            image = image + variation.noise * float(image.std()) * noise
        try:
            with dropout_of(self.network, variation), autocast(self.config.precision, self.device):
                logits = inferer(inputs=image[None, None].to(self.device), network=self.network)
        except (RuntimeError, ValueError) as error:
            raise ModelError(
                f"The network of the bundle {self.config.path} fails on case {case_id}, which is "
                f"{tuple(image.shape)} voxels (X, Y, Z) after preprocessing: {' '.join(str(error).split())}"
            ) from error
        logits = cast(Tensor, logits[0] if isinstance(logits, list | tuple) else logits)
        if logits.shape[2:] != image.shape:
            raise ModelError(
                f"The inferer of the bundle {self.config.path} gives {tuple(logits.shape)} for case "
                f"{case_id}, expected one value per channel and voxel of {tuple(image.shape)}"
            )
        return merged_probabilities(logits[0].cpu(), self.channels, sigmoid=self.sigmoid)
