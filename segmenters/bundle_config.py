"""How a MONAI bundle is used and fine-tuned."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cohort.case import Shape
from cohort.errors import ConfigError
from segmenters.config import PRECISIONS, Augmentation, Precision, check_choice, check_range
from segmenters.uncertainty import DROPOUT_MEASURES

HUB = "hub:"
"""What a path begins with that is the name of a bundle in MONAI's model zoo."""

Activation = Literal["auto", "softmax", "sigmoid"]
ACTIVATIONS: tuple[str, ...] = ("auto", "softmax", "sigmoid")


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleConfig:
    """A MONAI bundle: a network with weights, and the bundle's own preparation of images.

    Args:
        family: "bundle".
        path: of the bundle's folder or zip file, or "hub:<name>" or "hub:<name>@<version>" to download it.
        trust: must be true. The configuration of a bundle runs whatever Python code it names, with your
            rights: use only bundles whose `configs` and `scripts` you have looked at, or whose maker you
            trust.
        weights: file in the bundle.
        channels: structure of the cohort -> output channel of the bundle's network that means it, or a list
            of channels that are put together. A structure that is not named takes the channel of its name
            (`channel_def` in the bundle's metadata; case, "_", "-" and the order of words do not count).
        activation: "softmax" where the channels exclude each other, "sigmoid" where each stands alone,
            "auto" is what the bundle's own postprocessing does.
        dropout: whether the bundle's network has dropout, so that "mc_dropout" and its kin can be asked for.
        overlap: of neighbouring windows at inference, 0 to below 1; None is the bundle's own.
        precision: "bfloat16" runs under autocast, "auto" does where the processor has it.
        steps: optimiser steps of fine-tuning; 0 uses the weights as they are, in every round and every fold.
        batch_size: patches per step.
        learning_rate: peak of the one-cycle schedule.
        weight_decay: of AdamW.
        patch: of training, (D, H, W) voxels of the bundle's spacing, even numbers that the network can halve
            as often as it does; None is the bundle's own window.
        foreground_fraction: share of patches that are centred on a structure.
        average_decay: decay of the moving average of the weights, 0 is off.
        augmentation: of the training patches.
    """

    family: Literal["bundle"] = "bundle"
    path: str
    trust: bool = False
    weights: str = "models/model.pt"
    channels: Mapping[str, int | tuple[int, ...]] = field(default_factory=dict)
    activation: Activation = "auto"
    dropout: bool = False
    overlap: float | None = None
    precision: Precision = "auto"
    steps: int = 0
    batch_size: int = 2
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    patch: Shape | None = None
    foreground_fraction: float = 0.75
    average_decay: float = 0.98
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if not self.trust:
            raise ConfigError(
                "trust is false, but the configuration of a bundle can run any Python code: look at configs "
                f"and scripts of {self.path}, and set trust to true if you let it run here"
            )
        if not self.path.removeprefix(HUB).strip():
            raise ConfigError(
                f"path is {self.path!r}, expected the folder or zip file of a bundle, or hub:<name>"
            )
        check_choice("activation", self.activation, ACTIVATIONS)
        check_choice("precision", self.precision, PRECISIONS)
        check_range("steps", self.steps, 0, math.inf)
        check_range("batch_size", self.batch_size, 1, math.inf)
        check_range("overlap", self.overlap or 0.0, 0.0, 0.95)
        check_range("weight_decay", self.weight_decay, 0.0, math.inf)
        check_range("foreground_fraction", self.foreground_fraction, 0.0, 1.0)
        check_range("average_decay", self.average_decay, 0.0, 0.99999)
        self._check_rest()

    @property
    def architecture(self) -> str:
        """What to call the model in a table."""
        name = self.path.removeprefix(HUB).partition("@")[0].rstrip("/").rsplit("/", 1)[-1]
        return name.removesuffix(".zip")

    @property
    def measures(self) -> frozenset[str]:
        """Kinds of uncertainty that its predictions can yield."""
        always = frozenset({"entropy", "inconsistency"})
        return always | DROPOUT_MEASURES if self.dropout else always

    @property
    def files(self) -> tuple[Path, ...]:
        """Files and folders that its results depend on: the bundle, unless it comes from the hub."""
        return () if self.path.startswith(HUB) else (Path(self.path).expanduser(),)

    def named_channels(self, structure: str) -> tuple[int, ...] | None:
        """The channels that the configuration gives to a structure, None where it does not say."""
        if structure not in self.channels:
            return None
        found = self.channels[structure]
        return (found,) if isinstance(found, int) else tuple(found)

    def _check_rest(self) -> None:
        if not 0.0 < self.learning_rate < math.inf:
            raise ConfigError(f"learning_rate is {self.learning_rate}, expected a number above 0")
        if self.patch is not None and (len(self.patch) != 3 or any(s < 2 or s % 2 for s in self.patch)):
            raise ConfigError(f"patch is {self.patch}, expected three even numbers of voxels (D, H, W)")
        for structure in self.channels:
            found = self.named_channels(structure) or ()
            if min(found, default=0) < 0 or len(set(found)) < len(found):
                raise ConfigError(f"channels.{structure} is {found}, expected different channels from 0 on")
