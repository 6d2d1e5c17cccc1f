"""Masks whose predicted DSC, or its lower bound, is high enough; and all masks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cohort.errors import ConfigError
from cohort.filtering.base import Needs, Weights, score_value
from cohort.records import QualityScore


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """Keeps masks from a predicted DSC on; how many those are is for the masks to decide.

    Args:
        minimum: DSC in [0, 1].
        on: "predicted_dsc", or "lower" for the lower bound, which the true DSC of most masks exceeds.
    """

    minimum: float
    on: Literal["predicted_dsc", "lower"] = "predicted_dsc"

    def __post_init__(self) -> None:
        if not 0.0 <= self.minimum <= 1.0:
            raise ConfigError(f"minimum is {self.minimum}; expected a DSC from 0 to 1")

    @property
    def needs(self) -> Needs:
        """What is compared."""
        return self.on

    @property
    def rule(self) -> str:
        """What is kept."""
        what = "predicted DSC" if self.on == "predicted_dsc" else "lower bound of the DSC"
        return f"the masks with a {what} of {self.minimum:g} or more"

    def weights(self, scores: Sequence[QualityScore], rng: np.random.Generator) -> Weights:
        """1 from the minimum on, 0 below. No draws are made."""
        return np.array([score_value(s, self.on) >= self.minimum for s in scores], dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfiltered:
    """Keeps every mask that has a voxel: plain self-training."""

    @property
    def needs(self) -> Needs:
        """No score."""
        return "nothing"

    @property
    def rule(self) -> str:
        """What is kept."""
        return "all masks"

    def weights(self, scores: Sequence[QualityScore], rng: np.random.Generator) -> Weights:
        """1 for every mask. No draws are made."""
        return np.ones(len(scores))
