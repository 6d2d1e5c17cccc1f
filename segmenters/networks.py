"""The networks that the training loop can train, by name."""

import inspect
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import cast

import torch
from monai.networks.nets import SegResNet, SwinUNETR, UNet
from torch import Tensor, nn

from segmenters.architectures import ARCHITECTURES
from segmenters.config import SegmenterConfig
from segmenters.dynunet import DynamicUNet
from segmenters.stunet import STUNet

Build = Callable[[SegmenterConfig, int], nn.Module]
"""From a configuration and a number of classes to a network."""

Logits = Tensor | list[Tensor]
"""(B, C, D, H, W); in training with deep supervision a list, finest level first."""


def build_unet(config: SegmenterConfig, output_channels: int) -> nn.Module:
    """MONAI's U-Net, with residual units where the config asks for them."""
    network = UNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=output_channels,
        channels=config.channels,
        strides=config.level_strides,
        num_res_units=config.residual_units,
        dropout=config.dropout,
    )
    return cast(nn.Module, network)


def build_segresnet(config: SegmenterConfig, output_channels: int) -> nn.Module:
    """MONAI's SegResNet: `channels[0]` feature maps that double with each of `len(channels)` levels."""
    first, levels = config.channels[0], len(config.channels)
    network = SegResNet(
        spatial_dims=3,
        init_filters=first,
        in_channels=1,
        out_channels=output_channels,
        dropout_prob=config.dropout or None,
        norm=("GROUP", {"num_groups": math.gcd(8, first)}),
        blocks_down=(1, *(2,) * (levels - 1)),
        blocks_up=(1,) * (levels - 1),
    )
    return cast(nn.Module, network)


def build_dynunet(config: SegmenterConfig, output_channels: int) -> nn.Module:
    """MONAI's DynUNet, the U-Net that nnU-Net plans; with residual blocks where the config asks for units."""
    return DynamicUNet(
        channels=config.channels,
        strides=config.level_strides,
        output_channels=output_channels,
        residual=config.residual_units > 0,
        dropout=config.dropout,
        deep_supervision=config.deep_supervision,
    )


def build_swinunetr(config: SegmenterConfig, output_channels: int) -> nn.Module:
    """MONAI's SwinUNETR of feature size `channels[0]`; dropout is that of its transformer."""
    wanted = inspect.signature(SwinUNETR.__init__).parameters
    size = {"img_size": config.patch} if "img_size" in wanted else {}  # MONAI before 1.5
    network = SwinUNETR(
        in_channels=1,
        out_channels=output_channels,
        feature_size=config.channels[0],
        drop_rate=config.dropout,
        attn_drop_rate=config.dropout,
        **size,
    )
    return cast(nn.Module, network)


def build_stunet(config: SegmenterConfig, output_channels: int) -> nn.Module:
    """STU-Net of the size that `network` names."""
    return STUNet(
        channels=config.channels,
        blocks=ARCHITECTURES[config.network].blocks,
        strides=config.level_strides,
        output_channels=output_channels,
        dropout=config.dropout,
        deep_supervision=config.deep_supervision,
    )


NETWORKS: Mapping[str, Build] = MappingProxyType(
    {
        "dynunet": build_dynunet,
        "segresnet": build_segresnet,
        "stunet_base": build_stunet,
        "stunet_huge": build_stunet,
        "stunet_large": build_stunet,
        "stunet_small": build_stunet,
        "swinunetr": build_swinunetr,
        "unet": build_unet,
    }
)


def to_device(network: nn.Module, device: torch.device) -> nn.Module:
    """Move a network to a device in channels-last memory, where 3D convolutions are fastest."""
    move = cast(Callable[..., nn.Module], network.to)
    return move(device=device, memory_format=torch.channels_last_3d)


def build_network(config: SegmenterConfig, output_channels: int, seed: int = 0) -> nn.Module:
    """Build the network of a config with weights drawn from a seed.

    Args:
        config: names the network.
        output_channels: background and the trained structures.
        seed: of the initial weights; torch's global random state is left as it was.

    Returns:
        A network from (B, 1, D, H, W) to logits (B, output_channels, D, H, W). In training mode one with deep
        supervision gives a list of logits, the finest first.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return NETWORKS[config.network](config, output_channels)
