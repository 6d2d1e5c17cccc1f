"""All families of segmentation models by name, and their configurations."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cohort.errors import ConfigError
from segmenters.base import Segmenter, SegmenterSettings
from segmenters.bundle_config import BundleConfig
from segmenters.command_config import CommandConfig
from segmenters.config import SegmenterConfig
from segmenters.nnunet_config import NnUNetConfig
from segmenters.torch_segmenter import TorchSegmenter

Build = Callable[[Any, Path], Segmenter]
"""From a configuration of the family, and a folder that outlives rounds, to the segmenter."""


def _torch(config: SegmenterConfig, workspace: Path) -> Segmenter:
    return TorchSegmenter(config)


def _command(config: CommandConfig, workspace: Path) -> Segmenter:
    from segmenters.command import CommandSegmenter

    return CommandSegmenter(config)


def _bundle(config: BundleConfig, workspace: Path) -> Segmenter:
    from segmenters.bundle import BundleSegmenter

    return BundleSegmenter(config, workspace)


def _nnunet(config: NnUNetConfig, workspace: Path) -> Segmenter:
    from segmenters.nnunet import NnUNetSegmenter

    return NnUNetSegmenter(config, workspace)


FAMILIES: Mapping[str, Build] = MappingProxyType(
    {"torch": _torch, "bundle": _bundle, "command": _command, "nnunet": _nnunet}
)
"""Family -> how to build its segmenter; `family` in a configuration names it."""


def make_segmenter(config: SegmenterSettings, workspace: Path) -> Segmenter:
    """The segmenter of a configuration.

    Args:
        config: of any family.
        workspace: folder of the campaign where a family may keep what later rounds use again; it is made
            when it is needed.

    Raises:
        ConfigError: for an unknown family.
        MissingExtraError: for a family whose packages are not installed.
    """
    if config.family not in FAMILIES:
        raise ConfigError(
            f"Unknown family of segmenters {config.family!r}; expected one of {', '.join(sorted(FAMILIES))}"
        )
    return FAMILIES[config.family](config, workspace)
