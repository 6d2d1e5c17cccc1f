"""What each network of our own loop is made of, before any of it is built."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from cohort.case import Shape
from cohort.errors import ConfigError

_HALVING: Shape = (2, 2, 2)
_SWIN_FACTOR = 32
_SWIN_MULTIPLE = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """One kind of network.

    Args:
        channels: usual feature maps per level, finest first.
        heads: beginnings of the names of the weights whose shape depends on the number of classes.
        fewest_levels: that it can have.
        blocks: residual blocks per level of an STU-Net.
        takes_strides: whether every level's reduction can be chosen.
        instance_norm: whether the lowest level is normalised over its voxels and so needs two of them.
    """

    channels: tuple[int, ...]
    heads: tuple[str, ...]
    fewest_levels: int = 2
    blocks: int = 1
    takes_strides: bool = False
    instance_norm: bool = True


def _stunet(width: int, blocks: int) -> Architecture:
    return Architecture(
        channels=tuple(width * factor for factor in (1, 2, 4, 8, 16, 16)),
        heads=("seg_outputs.",),
        blocks=blocks,
        takes_strides=True,
    )


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "dynunet": Architecture(
            channels=(32, 64, 128, 256),
            heads=("output_block.", "deep_supervision_heads."),
            fewest_levels=3,
            takes_strides=True,
        ),
        "segresnet": Architecture(channels=(16, 32, 64, 128), heads=("conv_final.2.",), instance_norm=False),
        "stunet_base": _stunet(32, 1),
        "stunet_huge": _stunet(96, 3),
        "stunet_large": _stunet(64, 2),
        "stunet_small": _stunet(16, 1),
        "swinunetr": Architecture(channels=(24,), heads=("out.",)),
        "unet": Architecture(channels=(16, 32, 64, 128), heads=("model.2.",), takes_strides=True),
    }
)
"""Network name -> what it is; `segmenters.networks.NETWORKS` builds them."""

NETWORK_NAMES: tuple[str, ...] = tuple(ARCHITECTURES)


def check_channels(network: str, channels: tuple[int, ...]) -> None:
    """Refuse feature maps that a network cannot have.

    Args:
        network: one of `NETWORK_NAMES`.
        channels: feature maps per level, finest first.

    Raises:
        ConfigError: saying what the network expects.
    """
    if network == "swinunetr":
        if len(channels) != 1 or channels[0] < 1 or channels[0] % _SWIN_MULTIPLE:
            raise ConfigError(
                f"channels is {channels}, but SwinUNETR takes one number, the features of its first level, a "
                f"multiple of {_SWIN_MULTIPLE} such as (24,) or (48,); its five levels follow from it"
            )
        return
    fewest = ARCHITECTURES[network].fewest_levels
    if len(channels) < fewest or min(channels) < 1:
        words = {2: "two", 3: "three"}
        raise ConfigError(
            f"channels is {channels}, expected {words[fewest]} or more numbers of feature maps for {network}"
        )
    doubling = tuple(channels[0] * 2**level for level in range(len(channels)))
    if network == "segresnet" and channels != doubling:
        raise ConfigError(f"channels is {channels}, but SegResNet doubles them: expected {doubling}")


def level_strides(
    network: str, channels: tuple[int, ...], chosen: tuple[Shape, ...], full_resolution: bool
) -> tuple[Shape, ...]:
    """By how much each level of a network is coarser than the one above, finest first.

    Args:
        network: one of `NETWORK_NAMES`.
        channels: feature maps per level.
        chosen: strides of the configuration, empty for the usual halving.
        full_resolution: of the U-Net, see `SegmenterConfig`.

    Returns:
        One (D, H, W) per reduction.

    Raises:
        ConfigError: if the network does not take strides, or they are not as many as it needs.

    >>> level_strides("dynunet", (8, 16, 32), ((1, 2, 2), (2, 2, 2)), False)
    ((1, 2, 2), (2, 2, 2))
    >>> level_strides("unet", (8, 16, 32), (), True)
    ((1, 1, 1), (2, 2, 2))
    """
    if network == "swinunetr" and not chosen:
        return (_HALVING,) * 5
    reductions = len(channels) - 1
    if not chosen:
        finest = (1, 1, 1) if full_resolution and network == "unet" else _HALVING
        return (finest, *(_HALVING,) * (reductions - 1))
    if not ARCHITECTURES[network].takes_strides:
        takers = ", ".join(name for name, found in ARCHITECTURES.items() if found.takes_strides)
        raise ConfigError(
            f"strides is set, but {network} always halves; leave it out, or take one of {takers}"
        )
    if full_resolution and network == "unet":
        raise ConfigError("strides and full_resolution are both set; leave full_resolution out")
    wrong = [step for step in chosen if len(step) != 3 or any(size not in (1, 2) for size in step)]
    if wrong or len(chosen) != reductions:
        raise ConfigError(
            f"strides is {chosen}, expected {reductions} triples (D, H, W) of 1 or 2, one per level of "
            "channels below the first"
        )
    return chosen


def check_patch(network: str, patch: Shape, factors: Shape) -> None:
    """Refuse a patch that the levels of a network do not divide.

    Args:
        network: one of `NETWORK_NAMES`.
        patch: (D, H, W) in voxels.
        factors: (D, H, W) how much coarser the lowest level is than the patch.

    Raises:
        ConfigError: saying what the sides must be.
    """
    same = len(set(factors)) == 1
    expected = f"three multiples of {factors[0]}" if same else f"multiples of {factors} in (D, H, W)"
    fits = len(patch) == 3 and all(
        side >= factor and side % factor == 0 for side, factor in zip(patch, factors, strict=True)
    )
    if not fits:
        change = "patch" if network == "swinunetr" else "patch or channels"
        raise ConfigError(
            f"patch is {patch}, expected {expected}, because the levels of {network} reduce the resolution "
            f"that much; change {change}"
        )
    if ARCHITECTURES[network].instance_norm and patch == factors:
        raise ConfigError(
            f"patch is {patch}, which leaves a single voxel at the lowest level of {network}, and one voxel "
            "cannot be normalised; double a side of patch"
        )
