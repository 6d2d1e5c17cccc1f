"""The network of Quality Sentinel: a ResNet over image and mask, conditioned by the structure's name."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from cohort.errors import ConfigError
from sentinel.vision import BACKBONES, residual_network

INPUT_CHANNELS = 2


class QualitySentinel(nn.Module):
    """Predicts the DSC of one slice of a mask from the image, the mask and the structure's text embedding.

    The state dict has the published names and shapes, parts that the published network carries but does not
    use included, so that published weights load strictly.

    Args:
        backbone: resnet18, resnet34, resnet50, resnet101 or resnet152.
        text_dim: size of a text embedding (512 for the published weights).
        hidden_dim: size of the hidden layer of the head (50 as published).

    Raises:
        ConfigError: for an unknown backbone or a size below 1.

    Source: Chen et al., arXiv 2406.00327, section 3.
    """

    def __init__(self, *, backbone: str = "resnet50", text_dim: int = 512, hidden_dim: int = 50) -> None:
        super().__init__()
        if text_dim < 1 or hidden_dim < 1:
            raise ConfigError(f"text_dim {text_dim} and hidden_dim {hidden_dim} must both be at least 1")
        self.net = residual_network(backbone)
        features = BACKBONES[backbone]
        self.text_dim = text_dim
        self.conv1 = nn.Conv2d(INPUT_CHANNELS, 64, kernel_size=7, stride=2, padding=3)
        self.bn1 = nn.BatchNorm2d(64)
        self.fc1 = nn.Linear(features, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, 1)
        self.attention1 = nn.Linear(features + text_dim, features)
        self.attention2 = nn.Linear(features + text_dim, hidden_dim)

    def forward(self, slices: Tensor, text: Tensor) -> Tensor:
        """Predict the DSC of slices.

        Args:
            slices: (N, 2, S, S), image and mask, normalised (see `sentinel.slices.normalise`).
            text: (N, text_dim), embedding of each slice's structure.

        Returns:
            (N,) predicted DSC; not clamped, so it can leave [0, 1].
        """
        return self.head(self.pyramid(slices)[-1], text)

    def head(self, deepest: Tensor, text: Tensor) -> Tensor:
        """Predict the DSC of slices from the last of their features.

        Args:
            deepest: (N, C, H, W), the last of `pyramid`.
            text: (N, text_dim).

        Returns:
            (N,), as `forward`.
        """
        feature = deepest.mean(dim=(2, 3))
        joined = torch.cat([feature, text.to(feature.dtype)], dim=1)
        hidden = self.fc1(self.attention1(joined) * feature)
        return cast(Tensor, self.fc2(self.attention2(joined) * hidden)).squeeze(1)

    def pyramid(self, slices: Tensor) -> list[Tensor]:
        """Features of slices: of the stem, at half their resolution, then of each stage of the ResNet."""
        flow = functional.relu(self.bn1(self.conv1(slices)))
        found = [flow]
        flow = functional.max_pool2d(flow, kernel_size=3, stride=2, padding=1)
        for stage in ("layer1", "layer2", "layer3", "layer4"):
            flow = self.net.get_submodule(stage)(flow)
            found.append(flow)
        return found
