"""How a MONAI bundle is used and fine-tuned."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from segmenters.config import check_range


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleConfig:
    """A MONAI bundle: a network with weights, given by path or by its name in a hub.

    Args:
        family: "bundle".
        path: of the bundle's folder or zip file.
        channels: structure of the cohort -> output channel of the bundle's network that means it.
        steps: optimiser steps of fine-tuning; 0 uses the weights as they are.
        learning_rate: peak of the schedule of fine-tuning.
        overlap: of neighbouring windows at inference, 0 to below 1.
    """

    family: Literal["bundle"] = "bundle"
    path: str
    channels: Mapping[str, int] = field(default_factory=dict)
    steps: int = 0
    learning_rate: float = 1e-3
    overlap: float = 0.5

    def __post_init__(self) -> None:
        check_range("steps", self.steps, 0, math.inf)
        check_range("overlap", self.overlap, 0.0, 0.95)

    @property
    def architecture(self) -> str:
        """What to call the model in a table."""
        return "bundle"

    @property
    def measures(self) -> frozenset[str]:
        """Kinds of uncertainty that its predictions can yield."""
        return frozenset({"entropy", "inconsistency"})
