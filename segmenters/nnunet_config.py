"""How nnU-Net is planned, trained and used."""

import math
from dataclasses import dataclass
from typing import Literal

from segmenters.config import check_choice, check_range

CONFIGURATIONS: tuple[str, ...] = ("2d", "3d_fullres", "3d_lowres")


@dataclass(frozen=True, slots=True, kw_only=True)
class NnUNetConfig:
    """nnU-Net v2 through its own package, with a budget of steps.

    Args:
        family: "nnunet".
        configuration: of nnU-Net's plan: "2d", "3d_fullres" or "3d_lowres".
        planner: class that makes the plan, for example "ResEncUNetPlanner".
        modality: how intensities are normalised: "CT" or "MRI" (nnU-Net's channel name).
        steps: optimiser steps.
        batch_size: instead of the plan's, 0 for the plan's.
        learning_rate: at the start of its polynomial schedule.
        mirror: average the predictions of all mirrorings.
        overlap: of neighbouring windows at inference, 0 to below 1.
    """

    family: Literal["nnunet"] = "nnunet"
    configuration: str = "3d_fullres"
    planner: str = "ExperimentPlanner"
    modality: str = "MRI"
    steps: int = 1000
    batch_size: int = 0
    learning_rate: float = 1e-2
    mirror: bool = False
    overlap: float = 0.5

    def __post_init__(self) -> None:
        check_choice("configuration", self.configuration, CONFIGURATIONS)
        check_choice("modality", self.modality, ("CT", "MRI"))
        check_range("steps", self.steps, 1, math.inf)
        check_range("batch_size", self.batch_size, 0, math.inf)
        check_range("overlap", self.overlap, 0.0, 0.95)

    @property
    def architecture(self) -> str:
        """What to call the model in a table."""
        return f"nnunet-{self.configuration}"

    @property
    def measures(self) -> frozenset[str]:
        """Kinds of uncertainty that its predictions can yield."""
        return frozenset({"entropy"})
