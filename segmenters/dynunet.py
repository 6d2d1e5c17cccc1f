"""MONAI's DynUNet with logits of its coarser levels in training."""

from typing import cast

from monai.networks.nets import DynUNet
from torch import Tensor, nn

from cohort.case import Shape


class DynamicUNet(nn.Module):
    """The blocks of MONAI's DynUNet, under their own names.

    MONAI's network holds every block twice in its state dict (once more as `skip_layers.*`), enlarges the
    logits of coarser levels to the full resolution, and drops logits out; this one does none of the three.

    Args:
        channels: feature maps per level, finest first.
        strides: (D, H, W) of each reduction, one less than levels.
        output_channels: background and structures.
        residual: whether blocks of the encoder and the bottom are residual.
        dropout: probability after every convolution but the heads', 0 is off.
        deep_supervision: whether levels between the finest and the lowest have heads, used in training.
    """

    def __init__(
        self,
        *,
        channels: tuple[int, ...],
        strides: tuple[Shape, ...],
        output_channels: int,
        residual: bool,
        dropout: float,
        deep_supervision: bool,
    ) -> None:
        super().__init__()
        coarser = len(strides) - 1 if deep_supervision else 0
        built = DynUNet(
            spatial_dims=3,
            in_channels=1,
            out_channels=output_channels,
            kernel_size=[3] * len(channels),
            strides=[1, *strides],
            upsample_kernel_size=list(strides),
            filters=list(channels),
            dropout=dropout or None,
            deep_supervision=coarser > 0,
            deep_supr_num=max(1, coarser),
            res_block=residual,
        )
        self.input_block = cast(nn.Module, built.input_block)
        self.downsamples = cast(nn.ModuleList, built.downsamples)
        self.bottleneck = cast(nn.Module, built.bottleneck)
        self.upsamples = cast(nn.ModuleList, built.upsamples)
        self.output_block = _without_dropout(cast(nn.Module, built.output_block))
        heads = cast(nn.ModuleList, built.deep_supervision_heads) if coarser else nn.ModuleList()
        self.deep_supervision_heads = nn.ModuleList(_without_dropout(head) for head in heads)
        if coarser:  # no loss reaches the coarsest, and processes that share a training must know that
            self.deep_supervision_heads[-1].requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """Logits of images.

        Args:
            images: (B, 1, D, H, W), sides multiples of the product of the strides.

        Returns:
            (B, C, D, H, W); in training mode with deep supervision a list, the finest first.
        """
        features = self.input_block(images)
        skips = []
        for down in self.downsamples:
            skips.append(features)
            features = down(features)
        skips.append(features)
        features = self.bottleneck(features)
        levels = []
        for up in self.upsamples:
            features = up(features, skips.pop())
            levels.append(features)
        finest = cast(Tensor, self.output_block(levels.pop()))
        if not self.training or not len(self.deep_supervision_heads):
            return finest
        return [finest, *(head(levels.pop()) for head in self.deep_supervision_heads)]


def _without_dropout(head: nn.Module) -> nn.Module:
    """The head of a level with its convolution alone."""
    for part in list(head.modules()):
        if hasattr(part, "adn"):
            del part.adn
    return head
