"""The best part of all masks, or a random part of the same size."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.stats import rankdata

from cohort.errors import ConfigError
from cohort.filtering.base import Needs, Weights
from cohort.records import QualityScore
from cohort.seeds import derive_seed

Unit = Literal["structure", "case", "all"]
UNITS: tuple[str, ...] = ("structure", "case", "all")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fraction:
    """A part of all masks.

    Args:
        keep: fraction of the masks, in (0, 1]; at least one is kept wherever there is one.
        per: "structure" keeps this fraction of the masks of each structure, so that none is crowded out;
            "case" this fraction of the cases, by the mean rank of their masks, with all of their masks;
            "all" this fraction of all masks, which compares masks of different structures with each other: by
            predicted DSC where every mask has one.
    """

    keep: float
    per: Unit = "structure"

    def __post_init__(self) -> None:
        check_fraction("keep", self.keep)
        check_unit(self.per)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopFraction(_Fraction):
    """Keeps the masks that an estimator scores highest; its values need only rank."""

    @property
    def needs(self) -> Needs:
        """The raw value."""
        return "raw"

    @property
    def rule(self) -> str:
        """What is kept."""
        return f"the best {self.keep:.0%} {_PER[self.per]}"

    def weights(self, scores: Sequence[QualityScore], rng: np.random.Generator) -> Weights:
        """1 for the best, 0 for the others. Draws break ties."""
        key = int(rng.integers(2**63 - 1))
        value = _case_values(scores) if self.per == "case" else {_mask(s): s.raw for s in scores}
        compared = value
        if self.per == "all" and not any(math.isnan(s.predicted_dsc) for s in scores):
            compared = {_mask(s): s.predicted_dsc for s in scores}
        return _best(
            scores, self.keep, self.per, lambda name: (-compared[name], -value[name], _draw(key, name))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomFraction(_Fraction):
    """Keeps a random part, whatever the masks look like: the control that every estimator has to beat."""

    @property
    def needs(self) -> Needs:
        """No score."""
        return "nothing"

    @property
    def rule(self) -> str:
        """What is kept."""
        return f"a random {self.keep:.0%} {_PER[self.per]}"

    def weights(self, scores: Sequence[QualityScore], rng: np.random.Generator) -> Weights:
        """1 for those that are drawn, 0 for the others."""
        key = int(rng.integers(2**63 - 1))
        return _best(scores, self.keep, self.per, lambda name: _draw(key, name))


Name = tuple[str, ...]
_PER: Mapping[str, str] = {"structure": "of each structure", "case": "of the cases", "all": "of all masks"}


def check_fraction(name: str, value: float) -> None:
    """Refuse a fraction that keeps nothing, or more than there is.

    Raises:
        ConfigError: naming it.
    """
    if not 0.0 < value <= 1.0:
        raise ConfigError(f"{name} is {value}; expected a fraction above 0 and up to 1")


def check_unit(per: str) -> None:
    """Refuse an unknown unit.

    Raises:
        ConfigError: listing the known ones.
    """
    if per not in UNITS:
        raise ConfigError(f"Unknown unit {per!r} to keep a fraction of; expected one of {', '.join(UNITS)}")


def _best(scores: Sequence[QualityScore], keep: float, per: Unit, order: Callable[[Name], Any]) -> Weights:
    """1 for the first masks or cases of each group in an order, 0 for the others."""
    groups: dict[str, set[Name]] = {}
    for score in scores:
        group = score.structure if per == "structure" else ""
        groups.setdefault(group, set()).add((score.case_id,) if per == "case" else _mask(score))
    kept: set[Name] = set()
    for names in groups.values():
        ranked = sorted(names, key=order)
        kept.update(ranked[: max(1, math.floor(keep * len(ranked) + 0.5))])
    chosen = [((s.case_id,) if per == "case" else _mask(s)) in kept for s in scores]
    return np.array(chosen, dtype=np.float64)


def _mask(score: QualityScore) -> Name:
    return (score.case_id, score.structure)


def _draw(key: int, name: Name) -> int:
    return derive_seed(key, *name)


def _case_values(scores: Sequence[QualityScore]) -> dict[Name, float]:
    """Mean over the masks of a case of their rank among the masks of their structure, in [0, 1]; alone, 0.5.

    Ranks and not values, so that a structure that is always scored low does not decide alone.
    """
    found: dict[Name, list[float]] = {}
    for name in sorted({score.structure for score in scores}):
        own = [score for score in scores if score.structure == name]
        ranks = (
            (rankdata([score.raw for score in own]) - 1.0) / (len(own) - 1)
            if len(own) > 1
            else np.full(1, 0.5)
        )
        for score, rank in zip(own, ranks.tolist(), strict=True):
            found.setdefault((score.case_id,), []).append(rank)
    return {name: math.fsum(ranks) / len(ranks) for name, ranks in found.items()}
