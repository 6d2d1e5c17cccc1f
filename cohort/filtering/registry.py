"""The filters by name, and how a configuration's words become one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from cohort.errors import ConfigError
from cohort.filtering.base import Filter
from cohort.filtering.fraction import RandomFraction, TopFraction, Unit
from cohort.filtering.threshold import Threshold, Unfiltered
from cohort.filtering.wrappers import Balanced, Weighted


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterSettings:
    """What a configuration may say of a filter.

    Args:
        kind: a name of `FILTERS`.
        keep: fraction of the masks that "top_fraction" and "random" keep, in (0, 1].
        per: what the fraction is taken of; see `TopFraction`.
        minimum: DSC from which "threshold" and "lower_bound" keep a mask.
        balance: most masks of a structure relative to the fewest; None for no limit.
        weights: by what kept masks are weighted; "none" trusts all of them alike.
        lowest_weight: of a mask that is kept.
    """

    kind: str = "top_fraction"
    keep: float = 0.5
    per: Unit = "structure"
    minimum: float = 0.8
    balance: float | None = None
    weights: Literal["none", "predicted_dsc", "rank"] = "none"
    lowest_weight: float = 0.1


FILTERS: Mapping[str, Callable[[FilterSettings], Filter]] = MappingProxyType(
    {
        "top_fraction": lambda s: TopFraction(keep=s.keep, per=s.per),
        "random": lambda s: RandomFraction(keep=s.keep, per=s.per),
        "threshold": lambda s: Threshold(minimum=s.minimum, on="predicted_dsc"),
        "lower_bound": lambda s: Threshold(minimum=s.minimum, on="lower"),
        "unfiltered": lambda s: Unfiltered(),
    }
)
"""Name -> how to make the filter, before it is balanced and weighted."""


def make_filter(settings: FilterSettings) -> Filter:
    """The filter of some settings.

    Raises:
        ConfigError: for an unknown kind or a value out of range.

    >>> make_filter(FilterSettings(kind="threshold", minimum=0.7)).rule
    'the masks with a predicted DSC of 0.7 or more'
    """
    if settings.kind not in FILTERS:
        raise ConfigError(f"Unknown filter {settings.kind!r}; expected one of {', '.join(sorted(FILTERS))}")
    found = FILTERS[settings.kind](settings)
    if settings.balance is not None:
        found = Balanced(inner=found, ratio=settings.balance)
    if settings.weights != "none":
        found = Weighted(inner=found, by=settings.weights, lowest=settings.lowest_weight)
    return found
