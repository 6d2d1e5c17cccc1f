"""All quality estimators by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from cohort.errors import ConfigError
from sentinel.estimators.base import QualityEstimator
from sentinel.estimators.entropy import EntropyEstimator
from sentinel.estimators.sentinel import SentinelEstimator
from sentinel.scoring import Sentinel


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimatorEntry:
    """An estimator before it is built.

    Args:
        needs: kinds of `Prediction.uncertainty` that it reads.
        needs_sentinel: whether it scores with a trained sentinel.
        build: makes it; takes the sentinel, or None.
    """

    needs: frozenset[str]
    needs_sentinel: bool
    build: Callable[[Sentinel | None], QualityEstimator]


def _sentinel(sentinel: Sentinel | None) -> QualityEstimator:
    if sentinel is None:
        raise ConfigError("The estimator 'sentinel' needs a trained sentinel; train or load one first")
    return SentinelEstimator(sentinel=sentinel)


def _entropy(sentinel: Sentinel | None) -> QualityEstimator:
    return EntropyEstimator()


ESTIMATORS: Mapping[str, EstimatorEntry] = MappingProxyType(
    {
        "entropy": EstimatorEntry(needs=frozenset({"entropy"}), needs_sentinel=False, build=_entropy),
        "sentinel": EstimatorEntry(needs=frozenset(), needs_sentinel=True, build=_sentinel),
    }
)
"""Name -> how to build the estimator."""


def estimator_entry(name: str) -> EstimatorEntry:
    """The registered estimator of that name.

    Raises:
        ConfigError: for an unknown name; lists the known ones.

    >>> estimator_entry("entropy").needs_sentinel
    False
    """
    if name not in ESTIMATORS:
        raise ConfigError(f"Unknown estimator {name!r}; expected one of {', '.join(ESTIMATORS)}")
    return ESTIMATORS[name]


def build_estimator(name: str, sentinel: Sentinel | None = None) -> QualityEstimator:
    """Build an estimator.

    Args:
        name: of the registry.
        sentinel: for an estimator that needs one.

    Raises:
        ConfigError: for an unknown name, or a sentinel that is missing.
    """
    return estimator_entry(name).build(sentinel)
