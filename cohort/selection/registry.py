"""The strategies by name, and the short names that pair one with an estimator."""

from collections.abc import Mapping
from types import MappingProxyType

from cohort.errors import ConfigError
from cohort.selection.base import Strategy
from cohort.selection.quality import Quality
from cohort.selection.random import Random

STRATEGIES: Mapping[str, Strategy] = MappingProxyType({"random": Random(), "quality": Quality()})
"""Strategy name -> strategy."""

PRESETS: Mapping[str, tuple[Strategy, str | None]] = MappingProxyType(
    {
        "random": (STRATEGIES["random"], None),
        "entropy": (STRATEGIES["quality"], "entropy"),
        "quality": (STRATEGIES["quality"], "sentinel"),
        "oracle-worst": (STRATEGIES["quality"], "oracle"),
    }
)
"""What a config may name: short name -> strategy and the estimator that it ranks by (None: no scores)."""

_FIXED_ESTIMATOR = frozenset({"entropy", "oracle-worst"})


def resolve(strategy: str, estimator: str | None = None) -> tuple[Strategy, str | None]:
    """The strategy and the estimator that a config means.

    Args:
        strategy: a name of `PRESETS`.
        estimator: replaces the preset's own estimator; None keeps it. Whether an estimator of that name
            exists is for the room that has the estimators to say.

    Raises:
        ConfigError: for an unknown strategy, or an estimator that contradicts it.

    >>> resolve("quality", "entropy")
    (Quality(), 'entropy')
    >>> resolve("random")
    (Random(), None)
    """
    if strategy not in PRESETS:
        raise ConfigError(f"Unknown strategy {strategy!r}; expected one of {', '.join(sorted(PRESETS))}")
    chosen, preset = PRESETS[strategy]
    if estimator is None or estimator == preset:
        return chosen, preset
    if not chosen.needs_scores:
        raise ConfigError(
            f"Strategy {strategy!r} ranks without quality scores, but estimator {estimator!r} is set; "
            "remove the estimator or use the strategy 'quality'"
        )
    if strategy in _FIXED_ESTIMATOR:
        raise ConfigError(
            f"Strategy {strategy!r} is short for 'quality' with estimator {preset!r}, but estimator "
            f"{estimator!r} is set; use the strategy 'quality' with it"
        )
    return chosen, estimator
