"""How nnU-Net is planned, trained and used."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cohort.errors import ConfigError
from segmenters.config import check_choice, check_range

CONFIGURATIONS: tuple[str, ...] = ("2d", "3d_fullres", "3d_lowres")


@dataclass(frozen=True, slots=True, kw_only=True)
class NnUNetConfig:
    """nnU-Net v2 through its own package, with a budget of steps.

    Args:
        family: "nnunet".
        configuration: of nnU-Net's plan: "2d", "3d_fullres" or "3d_lowres".
        planner: nnU-Net's class that makes the plan, for example "nnUNetPlannerResEncM".
        modality: how intensities are normalised: "CT" or "MRI" (nnU-Net's channel name).
        steps: optimiser steps.
        batch_size: instead of the plan's, 0 for the plan's.
        learning_rate: at the start of its polynomial schedule.
        train_mirror: mirror training patches along every axis, as nnU-Net does. Turn it off where a structure
            has a side ("left kidney"), or the network learns that the sides are one.
        mirror: average the predictions of all mirrorings; it takes `train_mirror`.
        overlap: of neighbouring windows at inference, 0 to below 1.
    """

    family: Literal["nnunet"] = "nnunet"
    configuration: str = "3d_fullres"
    planner: str = "ExperimentPlanner"
    modality: str = "MRI"
    steps: int = 1000
    batch_size: int = 0
    learning_rate: float = 1e-2
    train_mirror: bool = True
    mirror: bool = False
    overlap: float = 0.5

    def __post_init__(self) -> None:
        check_choice("configuration", self.configuration, CONFIGURATIONS)
        check_choice("modality", self.modality, ("CT", "MRI"))
        check_range("steps", self.steps, 1, math.inf)
        check_range("batch_size", self.batch_size, 0, math.inf)
        check_range("overlap", self.overlap, 0.0, 0.95)
        if not 0.0 < self.learning_rate < math.inf:
            raise ConfigError(f"learning_rate is {self.learning_rate}, expected a number above 0")
        if self.mirror and not self.train_mirror:
            raise ConfigError(
                "mirror is true, but train_mirror is false: a network that never saw a mirrored patch does "
                "not know one; set mirror to false"
            )

    @property
    def architecture(self) -> str:
        """What to call the model in a table."""
        return f"nnunet-{self.configuration}"

    @property
    def measures(self) -> frozenset[str]:
        """Kinds of uncertainty that its predictions can yield."""
        return frozenset({"entropy", "inconsistency"})

    @property
    def files(self) -> tuple[Path, ...]:
        """Files and folders that its results depend on: none."""
        return ()
