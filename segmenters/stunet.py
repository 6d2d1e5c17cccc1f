"""STU-Net: a scalable U-Net of residual blocks, with the names of the published weights."""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from cohort.case import Shape

_INITIAL_SLOPE = 1e-2


class ResidualBlock(nn.Module):
    """Two normalised 3x3x3 convolutions beside a shortcut: a 1x1x1 convolution where the shape changes.

    Args:
        inputs: feature maps that come in.
        outputs: feature maps that go out.
        stride: (D, H, W) of the first convolution.
        first: whether it opens a level, and so has a convolution in its shortcut.
        dropout: probability between the two convolutions, 0 is off.
    """

    def __init__(self, inputs: int, outputs: int, stride: Shape, *, first: bool, dropout: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(inputs, outputs, 3, stride=stride, padding=1)
        self.norm1 = nn.InstanceNorm3d(outputs, affine=True)
        self.act1 = nn.LeakyReLU(inplace=True)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv3d(outputs, outputs, 3, padding=1)
        self.norm2 = nn.InstanceNorm3d(outputs, affine=True)
        self.act2 = nn.LeakyReLU(inplace=True)
        self.conv3 = nn.Conv3d(inputs, outputs, 1, stride=stride) if first else None

    def forward(self, features: Tensor) -> Tensor:
        """From (B, inputs, D, H, W) to (B, outputs, D', H', W')."""
        inner = self.dropout(self.act1(self.norm1(self.conv1(features))))
        inner = self.norm2(self.conv2(inner))
        shortcut = features if self.conv3 is None else self.conv3(features)
        return cast(Tensor, self.act2(inner + shortcut))


class Upsampling(nn.Module):
    """Nearest-neighbour enlargement and a 1x1x1 convolution.

    The two commute, so the convolution comes first, on an eighth of the voxels.

    Args:
        inputs: feature maps that come in.
        outputs: feature maps that go out.
        stride: (D, H, W) to enlarge by.
    """

    def __init__(self, inputs: int, outputs: int, stride: Shape) -> None:
        super().__init__()
        self._scale = tuple(float(size) for size in stride)
        self.conv = nn.Conv3d(inputs, outputs, 1)

    def forward(self, features: Tensor) -> Tensor:
        """From (B, inputs, D, H, W) to (B, outputs, D', H', W')."""
        return functional.interpolate(self.conv(features), scale_factor=self._scale, mode="nearest")


class STUNet(nn.Module):
    """A residual U-Net with a head at every level of its decoder.

    Args:
        channels: feature maps per level, finest first; six levels in the published networks.
        blocks: residual blocks per level.
        strides: (D, H, W) of each reduction, one less than levels.
        output_channels: background and structures.
        dropout: probability in every block, 0 is off.
        deep_supervision: whether training mode gives the logits of the coarser heads too.

    Source:
        Huang et al., "STU-Net: Scalable and Transferable Medical Image Segmentation Models Empowered by
        Large-Scale Supervised Pre-training", arXiv 2304.06716 (2023).
    """

    def __init__(
        self,
        *,
        channels: tuple[int, ...],
        blocks: int,
        strides: tuple[Shape, ...],
        output_channels: int,
        dropout: float = 0.0,
        deep_supervision: bool = True,
    ) -> None:
        super().__init__()
        self._deep_supervision = deep_supervision
        pairs = list(zip(channels[:-1], channels[1:], strides, strict=True))
        self.conv_blocks_context = nn.ModuleList([_level(1, channels[0], (1, 1, 1), blocks, dropout)])
        self.conv_blocks_localization = nn.ModuleList()
        self.upsample_layers = nn.ModuleList()
        self.seg_outputs = nn.ModuleList()
        for finer, coarser, stride in pairs:
            self.conv_blocks_context.append(_level(finer, coarser, stride, blocks, dropout))
        for finer, coarser, stride in reversed(pairs):
            self.upsample_layers.append(Upsampling(coarser, finer, stride))
            self.conv_blocks_localization.append(_level(2 * finer, finer, (1, 1, 1), blocks, dropout))
            self.seg_outputs.append(nn.Conv3d(finer, output_channels, 1))
        self.apply(_initialise)
        for head in _without_loss(self.seg_outputs, deep_supervision):
            head.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """Logits of images.

        Args:
            images: (B, 1, D, H, W), sides multiples of the product of the strides.

        Returns:
            (B, C, D, H, W); in training mode with deep supervision a list, the finest first.
        """
        skips = []
        features = images
        for level in self.conv_blocks_context:
            features = level(features)
            skips.append(features)
        skips.pop()
        levels = []
        for up, level in zip(self.upsample_layers, self.conv_blocks_localization, strict=True):
            features = level(torch.cat((up(features), skips.pop()), dim=1))
            levels.append(features)
        if not self.training or not self._deep_supervision:
            return cast(Tensor, self.seg_outputs[-1](features))
        logits = [head(found) for head, found in zip(self.seg_outputs, levels, strict=True)]
        return logits[::-1]


def _level(inputs: int, outputs: int, stride: Shape, blocks: int, dropout: float) -> nn.Sequential:
    first = ResidualBlock(inputs, outputs, stride, first=True, dropout=dropout)
    more = [
        ResidualBlock(outputs, outputs, (1, 1, 1), first=False, dropout=dropout) for _ in range(blocks - 1)
    ]
    return nn.Sequential(first, *more)


def _initialise(part: nn.Module) -> None:
    if isinstance(part, nn.Conv3d):
        nn.init.kaiming_normal_(part.weight, a=_INITIAL_SLOPE)
        if part.bias is not None:
            nn.init.zeros_(part.bias)


def _without_loss(heads: nn.ModuleList, deep_supervision: bool) -> Sequence[nn.Module]:
    """Heads, coarsest first, that no loss reaches: processes that share a training must know them."""
    found = list(heads)
    return found[: min(1, len(found) - 1)] if deep_supervision else found[:-1]
