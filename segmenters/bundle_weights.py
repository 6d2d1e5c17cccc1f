"""Weights of a bundle's network: read from its file, and carried over to the structures of a cohort."""

import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from cohort.errors import ModelError
from segmenters.bundle_definition import BundleDefinition

Rows = Sequence[tuple[int, ...] | None]
"""Per new output channel the old ones that mean it; () is a logit that stays 0, None is learned anew."""

_NESTED = ("model", "state_dict", "network", "model_state_dict")


def read_bundle_weights(definition: BundleDefinition, name: str) -> dict[str, Tensor]:
    """Read the weights of a bundle without running code that they might hold.

    Args:
        definition: of the bundle.
        name: of their file in the bundle.

    Raises:
        ModelError: if they are missing, hold more than tensors, or are not those of the bundle's network.
    """
    path = definition.files.root / name
    weights = _read(path)
    network = definition.network()
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ModelError(
            f"{path} does not fit network_def of its bundle ({_first_line(error)}); the weights are of "
            "another network"
        ) from error
    return weights


def network_with(
    definition: BundleDefinition, outputs: int | None, weights: Mapping[str, Tensor]
) -> nn.Module:
    """The bundle's network with weights.

    Args:
        definition: of the bundle.
        outputs: output channels, None for its own number.
        weights: of that network.

    Raises:
        ModelError: if they do not fit.
    """
    network = definition.network(outputs)
    try:
        network.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise ModelError(
            f"The weights do not fit the network of the bundle {definition.files.root} "
            f"({_first_line(error)}); predict with the bundle that they were trained from"
        ) from error
    return network.eval()


def network_for_structures(
    definition: BundleDefinition, weights: Mapping[str, Tensor], rows: Rows, seed: int
) -> nn.Module:
    """The bundle's network with an output channel per structure, all else as it was.

    What depends on the number of output channels is found by building the network with another number. It
    takes over the old channels, averaged where several mean one structure.

    Args:
        definition: of the bundle.
        weights: of the bundle.
        rows: of the new output channels.
        seed: of what is learned anew.

    Raises:
        ModelError: if the network cannot be built with another number of output channels.
    """
    if list(rows) == [(channel,) for channel in range(definition.output_channels)]:
        return network_with(definition, None, weights)
    network = definition.network(len(rows), seed)
    wider = definition.network(len(rows) + 1).state_dict()
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            axes = _differing(tensor, wider[name])
            carried, known = _carried(weights[name], tensor, axes, rows)
            if carried.shape != tensor.shape:
                raise ModelError(
                    f"{name} of the bundle's network has shape {tuple(tensor.shape)} with {len(rows)} output "
                    f"channels and {tuple(weights[name].shape)} in the bundle; use it with steps 0"
                )
            tensor.copy_(torch.where(known, carried, tensor))
    return network


def _differing(first: Tensor, second: Tensor) -> list[int]:
    pairs = zip(first.shape, second.shape, strict=True)
    return [axis for axis, (one, other) in enumerate(pairs) if one != other]


def _carried(old: Tensor, new: Tensor, axes: Sequence[int], rows: Rows) -> tuple[Tensor, Tensor]:
    """Old weights on the new output channels, and where they are known, to be broadcast over `new`."""
    known = torch.ones([1] * new.ndim, dtype=torch.bool)
    for axis in axes:
        if len(rows) != new.shape[axis]:
            continue
        old = torch.stack([_row(old, axis, row) for row in rows], dim=axis)
        shape = [1] * new.ndim
        shape[axis] = len(rows)
        known = known & torch.tensor([row is not None for row in rows]).reshape(shape)
    return old, known


def _row(old: Tensor, axis: int, row: tuple[int, ...] | None) -> Tensor:
    if not row:
        return torch.zeros_like(old.select(axis, 0))
    return old.index_select(axis, torch.tensor(row)).mean(dim=axis)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelError(
            f"{path} does not exist; expected the bundle's weights there (a state_dict; TorchScript is not "
            "read): download the bundle whole, or name their file in weights"
        ) from error
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        raise ModelError(
            f"{path} holds more than weights ({named[1] if named else 'Python objects'}), and is not read "
            "because that could run code; save the state_dict of its network there alone"
        ) from error
    except (RuntimeError, EOFError, ValueError, OSError) as error:
        raise ModelError(
            f"{path} cannot be read ({_first_line(error)}); expected a state_dict that torch.save wrote: "
            "copy it again"
        ) from error
    for key in _NESTED:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ModelError(f"{path} holds {type(found).__name__}, expected names and tensors of a network")
    return cast(dict[str, Tensor], dict(found))


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
