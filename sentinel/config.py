"""What a sentinel is: its network, how it looks at a mask, and how it was trained."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cohort.case import Spacing
from cohort.errors import ConfigError
from sentinel.text import TABLE_DIM, UNKNOWN_NAMES
from sentinel.vision import BACKBONES

Report = Callable[[int, int, Mapping[str, float]], None]
"""Told of progress: steps done, steps in all, and metrics by name."""

INTENSITIES = ("per_volume_percentile", "ct_hu")
ORIENTATIONS = ("canonical", "as_stored")
MARGIN_UNITS = ("voxels", "mm")
PRECISIONS = ("auto", "float32", "bfloat16")
DEVICES = ("auto", "cpu", "cuda")
AGGREGATIONS = ("dense", "mean", "area")


@dataclass(frozen=True, slots=True, kw_only=True)
class SentinelConfig:
    """Everything that a sentinel file stores beside weights. Published weights mean resnet50, 256 pixels,
    "ct_hu", 20 voxels, "as_stored", text_dim 512.

    Args:
        backbone: resnet18, resnet34, resnet50, resnet101 or resnet152.
        image_size: pixels a side that every slice is resized to.
        intensity: "per_volume_percentile" maps each volume's 0.5 to 99.5 percentile to [0, 1], "ct_hu"
            maps [-200, 200] HU.
        margin: kept around the mask's bounding box on each side.
        margin_unit: of the margin, "voxels" or "mm".
        orientation: "canonical" turns volumes to RAS+ first, "as_stored" does not; slices run along the
            first array axis.
        text_dim: size of the text embeddings.
        hidden_dim: of the head.
        max_slices: of a mask that are scored.
        aggregation: into a mask's score: "mean" of its slices' scores as published, "area" weights each by
            its mask's voxels, "dense" takes the DSC of the whole mask with what the dense head draws.
        steps: optimiser steps of training; 0 leaves random weights.
        batch_size: slices a step.
        learning_rate: at the start of the cosine schedule.
        weight_decay: of Adam.
        training_slices: image-mask pairs that training holds in memory at most.
        volume_weight: share of the whole mask's DSC in a slice's target, 0 (as published) to 1.
        ranking_weight: of the pair ranking term of the loss, 1 as published.
        dense_weight: of the dense head's term of the loss; 0 (as published) leaves that head out.
        mask_dropout: share of training slices whose mask is hidden from the network, so that the dense head
            learns to draw the reference from the image and not to repeat the mask; it does nothing without
            a dense head.
        validation_fraction: of the patients, held back to choose the best weights; 0 for none.
        precision: of the network's arithmetic; "auto" is bfloat16 where the machine computes in it.
        device: "auto" is the first CUDA device where there is one.
        unknown_names: "hash" embeds the spelling of a structure that the text table lacks, "error"
            refuses it.

    Raises:
        ConfigError: for a value outside of what is named above.
    """

    backbone: str = "resnet18"
    image_size: int = 96
    intensity: str = "per_volume_percentile"
    margin: float = 20.0
    margin_unit: str = "voxels"
    orientation: str = "canonical"
    text_dim: int = TABLE_DIM
    hidden_dim: int = 50
    max_slices: int = 10
    aggregation: str = "dense"
    steps: int = 200
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    training_slices: int = 4000
    volume_weight: float = 0.5
    ranking_weight: float = 1.0
    dense_weight: float = 1.0
    mask_dropout: float = 0.35
    validation_fraction: float = 0.25
    precision: str = "auto"
    device: str = "auto"
    unknown_names: str = "hash"

    def __post_init__(self) -> None:
        self._check_choices()
        for name in ("text_dim", "hidden_dim", "max_slices", "training_slices"):
            self._check(name, getattr(self, name) >= 1, "at least 1")
        self._check("image_size", self.image_size >= 32, "at least 32")
        self._check("steps", self.steps >= 0, "at least 0")
        self._check("batch_size", self.batch_size >= 2, "at least 2")
        self._check("margin", self.margin > 0.0, "more than 0")
        self._check("learning_rate", self.learning_rate > 0.0, "more than 0")
        self._check("weight_decay", self.weight_decay >= 0.0, "at least 0")
        self._check("volume_weight", 0.0 <= self.volume_weight <= 1.0, "0 to 1")
        self._check("ranking_weight", self.ranking_weight >= 0.0, "at least 0")
        self._check("dense_weight", self.dense_weight >= 0.0, "at least 0")
        self._check("mask_dropout", 0.0 <= self.mask_dropout < 1.0, "0 to less than 1")
        if self.aggregation == "dense" and self.dense_weight == 0.0:
            raise ConfigError(
                "Sentinel: aggregation is 'dense', but dense_weight is 0, so there is no dense head; take "
                "the aggregation 'mean' or 'area', or a dense_weight above 0"
            )
        even = self.dense_weight == 0.0 or self.image_size % 2 == 0
        self._check("image_size", even, "an even number, for the dense head")
        self._check("validation_fraction", 0.0 <= self.validation_fraction < 1.0, "0 to less than 1")

    def margin_voxels(self, spacing_mm: Spacing) -> tuple[int, int]:
        """The margin along rows and columns in whole voxels, at least 1.

        Args:
            spacing_mm: (D, H, W) of the volume.

        >>> SentinelConfig(margin=6.0, margin_unit="mm").margin_voxels((3.0, 2.0, 0.5))
        (3, 12)
        """
        if self.margin_unit == "voxels":
            return (max(1, round(self.margin)), max(1, round(self.margin)))
        return (max(1, round(self.margin / spacing_mm[1])), max(1, round(self.margin / spacing_mm[2])))

    def _check_choices(self) -> None:
        choices = {
            "backbone": tuple(BACKBONES),
            "intensity": INTENSITIES,
            "orientation": ORIENTATIONS,
            "margin_unit": MARGIN_UNITS,
            "precision": PRECISIONS,
            "device": DEVICES,
            "aggregation": AGGREGATIONS,
            "unknown_names": UNKNOWN_NAMES,
        }
        for name, allowed in choices.items():
            self._check(name, getattr(self, name) in allowed, f"one of {', '.join(allowed)}")

    def _check(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise ConfigError(f"Sentinel: {name} is {getattr(self, name)!r}, expected {expected}")
