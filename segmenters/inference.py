"""From an image to a label map on its own grid, window by window."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from typing import cast

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from cohort.case import Shape
from cohort.volume import Volume, from_canonical, to_canonical
from segmenters.config import SegmenterConfig
from segmenters.precision import autocast
from segmenters.preprocessing import padding_value
from segmenters.resampling import resample_linear
from segmenters.uncertainty import Variation

_WHOLE_AXIS = 1.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """How a volume is walked through.

    Args:
        overlap: of neighbouring windows, 0 to below 1.
        batch: windows per forward pass.
        mirror: axes (D, H, W) whose mirrorings are averaged.
    """

    overlap: float
    batch: int
    mirror: tuple[bool, bool, bool]

    @classmethod
    def of(cls, config: SegmenterConfig) -> "Windows":
        """The windows that a config asks for."""
        mirror = config.augmentation.flip if config.mirror else (False, False, False)
        return cls(overlap=config.overlap, batch=config.window_batch, mirror=mirror)


@torch.inference_mode()
def predict_probabilities(
    network: nn.Module, prepared: Tensor, config: SegmenterConfig, windows: Windows, variation: Variation
) -> Tensor:
    """Class probabilities of a prepared image.

    Args:
        network: in evaluation mode.
        prepared: (D, H, W), what `prepare_image` gives, on the network's device.
        config: that the network was trained with.
        windows: how to walk through the volume.
        variation: of the pass; `Variation()` is the plain one. With dropout nothing is mirrored: a mean over
            mirrorings is no draw of a network.

    Returns:
        (C, D, H, W) float32 on the CPU, on the grid of `prepared`.
    """
    if variation.noise:
        noise = torch.randn(prepared.shape, generator=torch.Generator().manual_seed(variation.seed))
        prepared = prepared + variation.noise * noise.to(prepared)
    if variation.dropout:
        windows = replace(windows, mirror=(False, False, False))
    with dropout_of(network, variation):
        return _mirrored_mean(network, prepared[None, None], config, windows)


def _mirrored_mean(network: nn.Module, prepared: Tensor, config: SegmenterConfig, windows: Windows) -> Tensor:
    axes = [axis for axis, mirrored in enumerate(windows.mirror, start=2) if mirrored]
    total: Tensor | None = None
    for choice in product((False, True), repeat=len(axes)):
        turned = [axis for axis, used in zip(axes, choice, strict=True) if used]
        logits = _logits(network, prepared.flip(turned) if turned else prepared, config, windows)
        prob = torch.softmax(logits.flip(turned) if turned else logits, dim=1)[0]
        total = prob if total is None else total + prob
    mean = cast(Tensor, total) / 2 ** len(axes)
    return cast(Tensor, mean.cpu())


@contextmanager
def dropout_of(network: nn.Module, variation: Variation) -> Iterator[None]:
    """Dropout on for a block, its draws seeded; the rest of the network stays in evaluation mode."""
    if not variation.dropout:
        yield
        return
    layers = [layer for layer in network.modules() if isinstance(layer, _DropoutNd)]
    try:
        for layer in layers:
            layer.train()
        with torch.random.fork_rng():
            torch.manual_seed(variation.seed)
            yield
    finally:
        for layer in layers:
            layer.eval()


def labels_on_image(prob: Tensor, image: Volume, labels: tuple[int, ...]) -> NDArray[np.uint8]:
    """The most probable label of every voxel of the image.

    Args:
        prob: (C, D, H, W) on the network's grid.
        image: as stored.
        labels: of the channels, background first.

    Returns:
        (D, H, W) as stored. Channels are resampled one at a time, so memory holds three volumes.
    """
    depth, height, width = to_canonical(image).array.shape
    best = _most_probable(prob, (depth, height, width))
    table = np.array(labels, dtype=np.uint8)
    stored_depth, stored_height, stored_width = image.array.shape
    return from_canonical(table[best], image.affine, (stored_depth, stored_height, stored_width))


def _most_probable(prob: Tensor, shape: Shape) -> NDArray[np.uint8]:
    highest = resample_linear(prob[0], shape)
    winner = torch.zeros(shape, dtype=torch.uint8)
    for channel in range(1, len(prob)):
        candidate = resample_linear(prob[channel], shape)
        winner[candidate > highest] = channel
        highest = torch.maximum(highest, candidate)
    return winner.numpy()


def window_shape(size: Sequence[int], config: SegmenterConfig) -> Shape:
    """The window for a volume: the patch, but along an axis that is up to a quarter longer the whole axis.

    Args:
        size: (D, H, W) of the volume at the network's spacing.
        config: of the network.

    >>> window_shape((40, 68, 81), SegmenterConfig(patch=(48, 64, 64)))
    (48, 72, 64)
    """
    depth, height, width = (
        -(-length // factor) * factor if side < length <= _WHOLE_AXIS * side else side
        for length, side, factor in zip(size, config.patch, config.factors, strict=True)
    )
    return (depth, height, width)


def _logits(network: nn.Module, image: Tensor, config: SegmenterConfig, windows: Windows) -> Tensor:
    def forward(patches: Tensor) -> Tensor:
        patches = patches.contiguous(memory_format=torch.channels_last_3d)
        with autocast(config.precision, patches.device):
            return cast(Tensor, network(patches)).float()

    return cast(
        Tensor,
        sliding_window_inference(
            image,
            roi_size=window_shape(image.shape[2:], config),
            sw_batch_size=windows.batch,
            predictor=forward,
            overlap=windows.overlap,
            mode="gaussian",
            padding_mode="constant",
            cval=padding_value(config),
        ),
    )
