"""The networks that the training loop can train, by name."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import cast

import torch
from monai.networks.nets import SegResNet, UNet
from torch import nn

from segmenters.config import SegmenterConfig


def build_unet(config: SegmenterConfig, output_channels: int) -> nn.Module:
    """MONAI's U-Net, with residual units where the config asks for them."""
    network = UNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=output_channels,
        channels=config.channels,
        strides=(1 if config.full_resolution else 2, *(2,) * (len(config.channels) - 2)),
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


NETWORKS: Mapping[str, Callable[[SegmenterConfig, int], nn.Module]] = MappingProxyType(
    {"unet": build_unet, "segresnet": build_segresnet}
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
        A network from (B, 1, D, H, W) to logits (B, output_channels, D, H, W).
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return NETWORKS[config.network](config, output_channels)
