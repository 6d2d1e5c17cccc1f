"""All quality estimators by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Literal

from cohort.errors import ConfigError
from sentinel.estimators.base import QualityEstimator
from sentinel.estimators.fused import NEEDS, FusedEstimator
from sentinel.estimators.oracle import OracleEstimator, References
from sentinel.estimators.sentinel import SentinelEstimator
from sentinel.estimators.uncertainty import KINDS, UncertaintyEstimator
from sentinel.scoring import Sentinel

Learned = Sentinel | FusedEstimator | References | None
"""What an estimator learned from labelled cases: a sentinel, all that the fused one holds, or nothing. Or the
references that an oracle reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimatorEntry:
    """An estimator before it is built.

    Args:
        needs: kinds of `Prediction.uncertainty` that it reads.
        learns: what it has to learn from cross-fitted masks of labelled cases first; "references" is what an
            upper bound reads instead.
        build: makes it of what was learned.
        gives: what its scores hold in a campaign beside a value that ranks: "predicted_dsc", "lower".
    """

    needs: frozenset[str]
    learns: Literal["nothing", "sentinel", "fused", "references"]
    build: Callable[[Learned], QualityEstimator]
    gives: frozenset[str] = frozenset()

    @property
    def reads_references(self) -> bool:
        """Whether it is an upper bound, which nobody without references can use."""
        return self.learns == "references"


def _sentinel(learned: Learned) -> QualityEstimator:
    if not isinstance(learned, Sentinel):
        raise ConfigError("The estimator 'sentinel' needs a trained sentinel; train or load one first")
    return SentinelEstimator(sentinel=learned)


def _fused(learned: Learned) -> QualityEstimator:
    if not isinstance(learned, FusedEstimator):
        raise ConfigError("The estimator 'fused' needs a fit on cross-fitted masks; fit or load one first")
    return learned


def _oracle(learned: Learned) -> QualityEstimator:
    if not isinstance(learned, References):
        raise ConfigError("The estimator 'oracle' reads references, and was given none; take another one")
    return OracleEstimator(references=learned)


def _uncertainty(name: str, learned: Learned) -> QualityEstimator:
    return UncertaintyEstimator(name=name)


_CALIBRATED = frozenset({"predicted_dsc", "lower"})

ESTIMATORS: Mapping[str, EstimatorEntry] = MappingProxyType(
    {
        kind: EstimatorEntry(needs=frozenset({kind}), learns="nothing", build=partial(_uncertainty, kind))
        for kind in KINDS
    }
    | {
        "fused": EstimatorEntry(needs=NEEDS, learns="fused", build=_fused, gives=_CALIBRATED),
        "oracle": EstimatorEntry(needs=frozenset(), learns="references", build=_oracle, gives=_CALIBRATED),
        "sentinel": EstimatorEntry(
            needs=frozenset(), learns="sentinel", build=_sentinel, gives=frozenset({"predicted_dsc"})
        ),
    }
)
"""Name -> how to build the estimator."""


def estimator_entry(name: str) -> EstimatorEntry:
    """The registered estimator of that name.

    Raises:
        ConfigError: for an unknown name; lists the known ones.

    >>> estimator_entry("entropy").learns
    'nothing'
    """
    if name not in ESTIMATORS:
        raise ConfigError(f"Unknown estimator {name!r}; expected one of {', '.join(sorted(ESTIMATORS))}")
    return ESTIMATORS[name]


def build_estimator(name: str, learned: Learned = None) -> QualityEstimator:
    """Build an estimator.

    Args:
        name: of the registry.
        learned: for an estimator that has to learn first.

    Raises:
        ConfigError: for an unknown name, or what it learned missing.
    """
    return estimator_entry(name).build(learned)
