"""Which output channels of a bundle's network mean which structure of a cohort."""

import logging
import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from cohort.case import Structure
from cohort.errors import ConfigError, ModelError
from segmenters.bundle_config import BundleConfig

Channels = Mapping[str, tuple[int, ...]]
"""Structure -> output channels that mean it; a structure that none means is not there."""

_log = logging.getLogger(__name__)


def channels_of_structures(
    config: BundleConfig,
    structures: Sequence[Structure],
    channel_names: Mapping[int, str],
    output_channels: int,
    background: bool,
) -> dict[str, tuple[int, ...]]:
    """Channels by name, or as the configuration says.

    Args:
        config: its `channels` come first.
        structures: of the cohort.
        channel_names: output channel -> what it means, of the bundle's metadata.
        output_channels: of the network.
        background: whether channel 0 is background.

    Returns:
        Structure -> its channels, in the order of the cohort; a structure that no channel means is left out.

    Raises:
        ConfigError: if `channels` names a structure or a channel that is not there, or one channel twice.
        ModelError: if one name is that of several channels.
    """
    known = [structure.name for structure in structures]
    strange = sorted(set(config.channels) - set(known))
    if strange:
        raise ConfigError(f"channels names {strange}, but the structures of the cohort are {sorted(known)}")
    named = _by_name(channel_names, background)
    found: dict[str, tuple[int, ...]] = {}
    for name in known:
        given = config.named_channels(name)
        channels = _of_name(name, named) if given is None else given
        if channels:
            found[name] = channels
    _check(found, output_channels, background)
    return found


def check_any_meant(
    config: BundleConfig, structures: Sequence[Structure], found: Channels, channel_names: Mapping[int, str]
) -> None:
    """Tell of structures that no channel means, for a bundle that learns nothing more.

    Raises:
        ModelError: if no channel means any structure.
    """
    missing = [structure.name for structure in structures if structure.name not in found]
    if not found:
        raise ModelError(
            f"No channel of the bundle {config.path} ({_listed(channel_names)}) means a structure of the "
            f"cohort ({', '.join(missing)}); say in channels which does"
        )
    for name in missing:
        _log.warning("No channel of the bundle %s means %r: it will have no voxels", config.path, name)


def merged_probabilities(logits: Tensor, channels: Sequence[tuple[int, ...]], *, sigmoid: bool) -> Tensor:
    """Probabilities of background and of structures, from all channels of the network.

    Args:
        logits: (N, X, Y, Z).
        channels: of each structure; what belongs to none counts as background.
        sigmoid: whether each channel stands alone. It is then set against a background whose logit is 0, so
            that one channel alone has its sigmoid as probability.

    Returns:
        (1 + structures, X, Y, Z) float32, sums to 1.

    >>> logits = torch.tensor([0.0, 1.0, 1.0]).reshape(3, 1, 1, 1)
    >>> merged = merged_probabilities(logits, [(1, 2)], sigmoid=False)
    >>> [round(value, 3) for value in merged.flatten().tolist()]
    [0.155, 0.845]
    """
    shift = 1 if sigmoid else 0
    if sigmoid:
        logits = torch.cat([torch.zeros_like(logits[:1]), logits])
    prob = torch.softmax(logits.float(), dim=0)
    merged = [prob[[channel + shift for channel in found]].sum(dim=0) for found in channels]
    foreground = torch.stack(merged)
    background = (1.0 - foreground.sum(dim=0)).clamp(min=0.0)
    return torch.cat([background[None], foreground])


def _by_name(channel_names: Mapping[int, str], background: bool) -> dict[tuple[str, ...], list[int]]:
    found: dict[tuple[str, ...], list[int]] = {}
    for channel, name in channel_names.items():
        if channel > 0 or not background:
            found.setdefault(_words(name), []).append(channel)
    return found


def _of_name(name: str, named: Mapping[tuple[str, ...], list[int]]) -> tuple[int, ...]:
    channels = named.get(_words(name), [])
    if len(channels) > 1:
        raise ModelError(
            f"The channels {channels} of the bundle are all called {name!r}; say in channels which"
        )
    return tuple(channels)


def _words(name: str) -> tuple[str, ...]:
    return tuple(sorted(word for word in re.split(r"[\s_-]+", name.casefold()) if word))


def _check(found: Channels, output_channels: int, background: bool) -> None:
    first = 1 if background else 0
    taken: dict[int, str] = {}
    for name, channels in found.items():
        for channel in channels:
            if not first <= channel < output_channels:
                raise ConfigError(
                    f"channels.{name} is {channel}, but the structures of the bundle's network have the "
                    f"channels {first} to {output_channels - 1}"
                )
            if channel in taken:
                raise ConfigError(
                    f"Channel {channel} of the bundle means both {taken[channel]!r} and {name!r}"
                )
            taken[channel] = name


def _listed(channel_names: Mapping[int, str]) -> str:
    return (
        ", ".join(f"{channel}: {name}" for channel, name in sorted(channel_names.items())) or "it names none"
    )
