"""The parts of a YAML that say what learns: a segmenter of one of several families, and the sentinel."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Discriminator, Tag

from segmenters.bundle_config import BundleConfig
from segmenters.command_config import CommandConfig
from segmenters.config import SegmenterConfig
from segmenters.nnunet_config import NnUNetConfig
from sentinel.config import SentinelConfig

for _settings in (SegmenterConfig, NnUNetConfig, BundleConfig, CommandConfig, SentinelConfig):
    setattr(_settings, "__pydantic_config__", ConfigDict(extra="forbid", allow_inf_nan=False))  # noqa: B010


def _family(values: Any) -> str:
    """Which family a segmenter's settings are of; our own networks where they do not say."""
    found = values.get("family", "torch") if isinstance(values, Mapping) else getattr(values, "family", "")
    return str(found)


SegmenterModel = Annotated[
    Annotated[SegmenterConfig, Tag("torch")]
    | Annotated[NnUNetConfig, Tag("nnunet")]
    | Annotated[BundleConfig, Tag("bundle")]
    | Annotated[CommandConfig, Tag("command")],
    Discriminator(_family),
]
"""A segmenter of any family."""

SentinelModel = SentinelConfig
"""The sentinel, whose settings are of one kind."""

FAMILY_TAGS = frozenset({"torch", "nnunet", "bundle", "command"})
"""What pydantic adds to the place of a mistake; no key of the file."""
