"""Consistency with a mean teacher: the network should say of a patch what its averaged weights say.

Source: Tarvainen and Valpola, "Mean teachers are better role models", NeurIPS 2017; for segmentation Yu et
al., "Uncertainty-aware self-ensembling model for semi-supervised 3D left atrium segmentation", MICCAI 2019.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from cohort.seeds import derive_seed
from segmenters.augmentation import vary_intensity
from segmenters.config import SegmenterConfig
from segmenters.precision import autocast


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MeanTeacher:
    """The averaged weights of a training, as they are at one step.

    Args:
        network: whose weights are averaged; its own stay as they are.
        weights: averaged, name -> tensor.
        config: of the segmenter.
        device: that the network is on.
        share: of `semi_supervision.consistency` that counts at this step, in [0, 1].
        seed: of the teacher's view of the patches.
    """

    network: nn.Module
    weights: Mapping[str, Tensor]
    config: SegmenterConfig
    device: torch.device
    share: float
    seed: int

    def loss(self, images: Tensor, logits: Tensor, pseudo: Tensor, turn: int) -> Tensor:
        """Mean squared difference of probabilities on patches that no human annotated, weighted.

        The teacher sees the same patches with other intensities.

        Args:
            images: (B, 1, D, H, W) on the device.
            logits: (B, C, D, H, W) of the network at full resolution.
            pseudo: (B,) bool, patches of cases that no human annotated.
            turn: of the micro-batch.

        Returns:
            A scalar, 0 where there is no such patch.
        """
        chosen = torch.nonzero(pseudo)[:, 0].tolist()
        if not chosen or self.share == 0.0:
            return logits.new_zeros((), dtype=torch.float32)
        noise = torch.Generator().manual_seed(derive_seed(self.seed, "teacher", turn))
        seen = vary_intensity(images[chosen].cpu(), self.config.augmentation, noise).to(self.device)
        with torch.no_grad(), autocast(self.config.precision, self.device):
            given = functional_call(self.network, dict(self.weights), (seen,))
        taught = (given if isinstance(given, Tensor) else given[0]).float().softmax(dim=1)
        difference = logits[chosen].float().softmax(dim=1) - taught
        weight = self.config.semi_supervision.consistency * self.share
        return weight * (difference**2).sum(dim=1).mean()


def ramp(step: int, steps: int, rise: float) -> float:
    """Share of the consistency weight at a step: an early teacher knows too little to be followed.

    Args:
        step: from 1.
        steps: of the training.
        rise: fraction of the steps over which it rises to 1; 0 is from the start.

    >>> round(ramp(1, 100, 0.5), 3), round(ramp(25, 100, 0.5), 3), ramp(60, 100, 0.5)
    (0.008, 0.287, 1.0)
    """
    if rise * steps <= 0.0:
        return 1.0
    return math.exp(-5.0 * (1.0 - min(1.0, step / (rise * steps))) ** 2)
