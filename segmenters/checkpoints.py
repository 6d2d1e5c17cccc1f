"""Weights of our own networks on disk: a safetensors file, and the recipe in the description beside it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from cohort.case import Spacing
from cohort.errors import ConfigError, ModelError
from cohort.records import Checkpoint
from cohort.volume import write_bytes
from segmenters.config import SegmenterConfig, config_from_dict, config_to_dict
from segmenters.descriptions import broken_description, check_weights, describe, read_description
from segmenters.networks import build_network


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a checkpoint's JSON file says: all that is needed to use the weights.

    Args:
        config: of the training.
        structures: trained structures in the order of the channels, background first and not named.
        spacing_mm: (D, H, W) that the network works at.
        sha256: of the file of weights.
        step: optimiser steps taken.
    """

    config: SegmenterConfig
    structures: tuple[str, ...]
    spacing_mm: Spacing
    sha256: str
    step: int


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the weights after a step lie.

    >>> checkpoint_path(Path("round"), 20).as_posix()
    'round/step_0020.safetensors'
    """
    return folder / f"step_{step:04d}.safetensors"


def save_checkpoint(
    folder: Path,
    step: int,
    weights: Mapping[str, Tensor],
    config: SegmenterConfig,
    structures: tuple[str, ...],
    spacing_mm: Spacing,
    initial_sha256: str = "",
) -> Checkpoint:
    """Write weights and recipe atomically; the same weights give the same bytes.

    Args:
        folder: of the checkpoints.
        step: optimiser steps taken.
        weights: name -> tensor.
        config: of the training.
        structures: trained structures in the order of the channels.
        spacing_mm: (D, H, W) that the network works at.
        initial_sha256: of the file that the training started from, empty where it started from scratch.
    """
    path = checkpoint_path(folder, step)
    write_weights(path, weights)
    details: dict[str, Any] = {"spacing_mm": list(spacing_mm), "config": config_to_dict(config)}
    if initial_sha256:
        details["initial_weights_sha256"] = initial_sha256
    return describe(path, family=config.family, step=step, structures=structures, details=details)


def read_recipe(path: Path) -> Recipe:
    """Read the description beside a file of weights of ours.

    Raises:
        ModelError: if it is missing, broken, or of another family.
    """
    values = read_description(path, "torch")
    try:
        depth, height, width = (float(size) for size in values["spacing_mm"])
        return Recipe(
            config=config_from_dict(values["config"]),
            structures=values["structures"],
            spacing_mm=(depth, height, width),
            sha256=values["sha256"],
            step=values["step"],
        )
    except (ValueError, KeyError, TypeError, ConfigError) as error:
        raise broken_description(path, error) from error


def load_network(checkpoint: Checkpoint, network: str) -> tuple[nn.Module, Recipe]:
    """Build the network of a checkpoint and load its weights.

    Args:
        checkpoint: to load.
        network: the name that its network must have.

    Returns:
        The network in evaluation mode on the CPU, and the checkpoint's own conventions.

    Raises:
        ModelError: if the checkpoint is of another network, has changed, or does not fit.
    """
    recipe = read_recipe(checkpoint.path)
    if recipe.config.network != network:
        raise ModelError(
            f"{checkpoint.path} holds weights of network {recipe.config.network!r}, but this segmenter is a "
            f"{network!r}; predict with the segmenter that trained it"
        )
    weights = read_weights(checkpoint.path, checkpoint.sha256)
    model = build_network(recipe.config, 1 + len(recipe.structures))
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ModelError(
            f"{checkpoint.path} does not fit the network that its JSON file describes: {error}"
        ) from error
    return model.eval(), recipe


def write_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write a safetensors file atomically; the same weights give the same bytes."""
    tensors = {name: weights[name].detach().cpu().contiguous() for name in sorted(weights)}
    write_bytes(path, safetensors.torch.save(tensors))


def read_weights(path: Path, sha256: str) -> dict[str, Tensor]:
    """Read a safetensors file of ours.

    Raises:
        ModelError: if it is missing, changed or broken.
    """
    check_weights(path, sha256)
    try:
        return cast(dict[str, Tensor], safetensors.torch.load(path.read_bytes()))
    except SafetensorError as error:
        raise ModelError(f"{path} is no safetensors file: {error}") from error


def snapshot(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A copy of weights that later steps do not change."""
    return {name: torch.clone(tensor.detach()) for name, tensor in weights.items()}
