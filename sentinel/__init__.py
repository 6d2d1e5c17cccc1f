"""HOW GOOD: predicts the DSC that a mask would get against a careful annotation."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sentinel.config import SentinelConfig
    from sentinel.scoring import MaskScore, Sentinel
    from sentinel.training import train_sentinel

__all__ = ["MaskScore", "Sentinel", "SentinelConfig", "train_sentinel"]

_HOMES = {
    "MaskScore": "sentinel.scoring",
    "Sentinel": "sentinel.scoring",
    "SentinelConfig": "sentinel.config",
    "train_sentinel": "sentinel.training",
}


def __getattr__(name: str) -> object:
    """Import what is asked for when it is asked for, so that `import sentinel` is cheap."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'sentinel' has no attribute {name!r}")
