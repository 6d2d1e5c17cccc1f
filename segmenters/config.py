"""How a segmentation network is built, trained and used: numbers and names that travel with its weights."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from cohort.case import Shape, Spacing
from cohort.errors import ConfigError
from segmenters.architectures import ARCHITECTURES, NETWORK_NAMES, check_channels, check_patch, level_strides
from segmenters.checks import check_choice as check_choice
from segmenters.checks import check_range as check_range
from segmenters.training_config import EarlyStopping, Resources, SemiSupervision, check_shares
from segmenters.uncertainty import DROPOUT_MEASURES, MEASURES

Intensity = Literal["per_volume_percentile", "ct_hu"]
Precision = Literal["auto", "float32", "bfloat16"]

INTENSITIES: tuple[str, ...] = ("per_volume_percentile", "ct_hu")
PRECISIONS: tuple[str, ...] = ("auto", "float32", "bfloat16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """What a training patch may go through. Axes are (D, H, W) of the canonical orientation (RAS+).

    Args:
        flip: whether each axis may be mirrored. W is left-right: never mirror it where a structure has a
            side ("left kidney"), or the network learns that the sides are one.
        spatial_probability: how often a patch is rotated, scaled and bent at all.
        rotation_degrees: largest rotation about each axis, in millimetre space.
        scale: largest relative change of size, 0.15 is 0.85 to 1.15.
        elastic_mm: standard deviation of a smooth displacement, 0 is off.
        contrast: largest relative change of contrast, and largest shift in units of the normalised intensity.
        gamma: largest natural logarithm of the exponent put on intensities scaled to [0, 1], 0 is off.
        noise: largest standard deviation of Gaussian noise in normalised intensity, 0 is off.
    """

    flip: tuple[bool, bool, bool] = (False, False, False)
    spatial_probability: float = 0.6
    rotation_degrees: float = 15.0
    scale: float = 0.15
    elastic_mm: float = 0.0
    contrast: float = 0.15
    gamma: float = 0.3
    noise: float = 0.1

    def __post_init__(self) -> None:
        check_range("augmentation.spatial_probability", self.spatial_probability, 0.0, 1.0)
        check_range("augmentation.rotation_degrees", self.rotation_degrees, 0.0, 180.0)
        check_range("augmentation.scale", self.scale, 0.0, 0.9)
        check_range("augmentation.contrast", self.contrast, 0.0, 0.9)
        for name in ("elastic_mm", "gamma", "noise"):
            check_range(f"augmentation.{name}", getattr(self, name), 0.0, math.inf)
        if len(self.flip) != 3:
            raise ConfigError(f"augmentation.flip is {self.flip}, expected three flags for (D, H, W)")


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmenterConfig:
    """One segmentation network, its training and its inference.

    Args:
        family: "torch", the networks that our own loop trains.
        network: one of `NETWORK_NAMES`; `segmenters.networks` builds them.
        channels: feature maps per level of the network, finest first; left out, what is usual for the network
            (`segmenters.architectures`). SwinUNETR takes one number, its feature size.
        strides: (D, H, W) of 1 or 2 by which each level is coarser than the one above, for scans with thick
            slices; U-Net, DynUNet and STU-Net take them. Left out, every level halves every axis.
        full_resolution: whether the U-Net's first two levels both work at the resolution of the patch, which
            keeps thin boundaries and costs about twice the time; if not, each level halves the resolution.
            SegResNet's first level always works at full resolution.
        residual_units: convolutions per level of the U-Net in a residual unit, 0 is a plain U-Net. DynUNet
            has residual blocks where it is above 0.
        deep_supervision: whether coarser levels of DynUNet and STU-Net have a loss of their own in training.
        dropout: probability in the network, 0 is off.
        patch: training and sliding-window patch (D, H, W) in voxels of `spacing_mm`, canonical orientation;
            every side a multiple of `factors`. At inference a window takes in a volume that is up to a
            quarter larger whole.
        spacing_mm: (D, H, W) that the network works at, None is the median of the training cases.
        intensity: "per_volume_percentile" (clipped to the 0.5 and 99.5 percentile, then mean 0 and standard
            deviation 1) or "ct_hu" (`window_hu` to [-1, 1]).
        window_hu: of "ct_hu".
        steps: optimiser steps.
        batch_size: patches that are in memory at once, and per step where `accumulate` is 1.
        learning_rate: peak of the one-cycle schedule.
        weight_decay: of AdamW.
        foreground_fraction: share of patches that are centred on a structure.
        average_decay: decay of the moving average of the weights, 0 is off.
        accumulate: batches per step, whose gradients are added before the weights change.
        processes: that train together, each on its share of every batch and on a GPU of its own where there
            are GPUs.
        early_stopping: on patients that are held back, off by default.
        resources: that a training may use; they change nothing in its result.
        semi_supervision: how a training uses cases that a model labelled.
        augmentation: of the training patches.
        precision: "bfloat16" trains under autocast, "auto" does where the processor has it.
        overlap: of neighbouring windows at inference, 0 to below 1.
        window_batch: windows per forward pass at inference.
        mirror: average the predictions of all mirrorings along the axes that `augmentation.flip` allows.
        initial_weights: path of a checkpoint to start from, "" for random weights: one of ours
            (.safetensors), or a published STU-Net (.model, .pth). See `segmenters.initial_weights`.
        body_rate: factor on the learning rate of weights that came from `initial_weights`, but for the heads
            of the classes.
    """

    family: Literal["torch"] = "torch"
    network: str = "unet"
    channels: tuple[int, ...] = ()
    strides: tuple[Shape, ...] = ()
    full_resolution: bool = False
    residual_units: int = 0
    deep_supervision: bool = True
    dropout: float = 0.0
    patch: Shape
    spacing_mm: Spacing | None = None
    intensity: Intensity = "per_volume_percentile"
    window_hu: tuple[float, float] = (-200.0, 300.0)
    steps: int = 1000
    batch_size: int = 4
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    foreground_fraction: float = 0.75
    average_decay: float = 0.98
    accumulate: int = 1
    processes: int = 1
    early_stopping: EarlyStopping = field(default_factory=EarlyStopping)
    resources: Resources = field(default_factory=Resources)
    semi_supervision: SemiSupervision = field(default_factory=SemiSupervision)
    augmentation: Augmentation = field(default_factory=Augmentation)
    precision: Precision = "auto"
    overlap: float = 0.5
    window_batch: int = 1
    mirror: bool = False
    initial_weights: str = ""
    body_rate: float = 0.1

    def __post_init__(self) -> None:
        check_choice("network", self.network, NETWORK_NAMES)
        check_choice("intensity", self.intensity, INTENSITIES)
        check_choice("precision", self.precision, PRECISIONS)
        check_range("body_rate", self.body_rate, 0.0, 1.0)
        check_range("dropout", self.dropout, 0.0, 0.95)
        check_range("weight_decay", self.weight_decay, 0.0, math.inf)
        check_range("foreground_fraction", self.foreground_fraction, 0.0, 1.0)
        check_range("average_decay", self.average_decay, 0.0, 0.99999)
        check_range("overlap", self.overlap, 0.0, 0.95)
        for name in ("steps", "batch_size", "window_batch", "accumulate", "processes"):
            check_range(name, getattr(self, name), 1, math.inf)
        check_shares(self.batch_size, self.processes)
        check_range("residual_units", self.residual_units, 0, 8)
        if not 0.0 < self.learning_rate < math.inf:
            raise ConfigError(f"learning_rate is {self.learning_rate}, expected a number above 0")
        if not self.window_hu[0] < self.window_hu[1]:
            raise ConfigError(
                f"window_hu is {self.window_hu}, expected (lower, upper) with lower below upper"
            )
        if self.semi_supervision.consistency and not self.average_decay:
            raise ConfigError(
                "semi_supervision.consistency follows the moving average of the weights, but average_decay "
                "is 0; set it, for example to 0.98"
            )
        self._check_levels()
        self._check_spacing()

    @property
    def architecture(self) -> str:
        """What to call the model in a table."""
        return self.network

    @property
    def measures(self) -> frozenset[str]:
        """Kinds of uncertainty that its predictions can yield."""
        return frozenset(MEASURES) if self.dropout > 0.0 else frozenset(MEASURES) - DROPOUT_MEASURES

    @property
    def files(self) -> tuple[Path, ...]:
        """Files and folders that its results depend on: the weights that it starts from."""
        return (Path(self.initial_weights),) if self.initial_weights else ()

    @property
    def level_strides(self) -> tuple[Shape, ...]:
        """By how much (D, H, W) each level of the network is coarser than the one above."""
        return level_strides(self.network, self.channels, self.strides, self.full_resolution)

    @property
    def factors(self) -> Shape:
        """How much coarser (D, H, W) the network's lowest level is than its input."""
        depth, height, width = (math.prod(sizes) for sizes in zip(*self.level_strides, strict=True))
        return (depth, height, width)

    def _check_levels(self) -> None:
        if not self.channels:
            object.__setattr__(self, "channels", ARCHITECTURES[self.network].channels)
        check_channels(self.network, self.channels)
        check_patch(self.network, self.patch, self.factors)

    def _check_spacing(self) -> None:
        if self.spacing_mm is not None and (len(self.spacing_mm) != 3 or min(self.spacing_mm) <= 0):
            raise ConfigError(f"spacing_mm is {self.spacing_mm}, expected three sizes above 0 in (D, H, W)")


_PARTS = {
    "augmentation": Augmentation,
    "early_stopping": EarlyStopping,
    "resources": Resources,
    "semi_supervision": SemiSupervision,
}


def config_to_dict(config: SegmenterConfig) -> dict[str, Any]:
    """The config as JSON can hold it."""
    return asdict(config)


def config_from_dict(values: Mapping[str, Any]) -> SegmenterConfig:
    """The config of a mapping such as `config_to_dict` gives; lists become tuples.

    Raises:
        ConfigError: for an unknown or missing key, or a value out of range.

    >>> config = SegmenterConfig(patch=(16, 16, 16), spacing_mm=(3.0, 1.0, 1.0))
    >>> config_from_dict(config_to_dict(config)) == config
    True
    """
    known = {item.name for item in fields(SegmenterConfig)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ConfigError(f"Unknown segmenter settings {unknown}; known: {sorted(known)}")
    tidy = _tuples(values)
    try:
        for name, kind in _PARTS.items():
            inner = tidy.get(name)
            if isinstance(inner, Mapping):
                tidy[name] = kind(**_tuples(inner))
        return SegmenterConfig(**tidy)
    except TypeError as error:
        raise ConfigError(f"The segmenter settings do not fit: {error}") from error


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _tuple(value) for key, value in values.items()}


def _tuple(value: Any) -> Any:
    return tuple(_tuple(item) for item in value) if isinstance(value, list) else value
