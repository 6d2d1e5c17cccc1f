"""Weights to start a training from: a checkpoint of ours, or one that others published."""

import logging
import pickle
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from cohort.errors import ModelError
from segmenters.architectures import ARCHITECTURES
from segmenters.config import SegmenterConfig
from segmenters.descriptions import check_weights, read_description, weights_sha256

_log = logging.getLogger(__name__)

_STATE_KEYS = ("state_dict", "network_weights")
_SHOWN = 3
_REPEATED = "skip_layers."
"""Under this MONAI's DynUNet names its blocks a second time."""
_NOT_READABLE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    ImportError,
    IndexError,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class InitialWeights:
    """What a training starts from.

    Args:
        path: of the file, for messages.
        sha256: of the file.
        tensors: name -> weights.
        structures: that its heads tell apart, in the order of the channels; None where the file does not say.
    """

    path: Path
    sha256: str
    tensors: Mapping[str, Tensor]
    structures: tuple[str, ...] | None

    def put_into(
        self, network: nn.Module, config: SegmenterConfig, structures: Sequence[str]
    ) -> frozenset[str]:
        """Copy the weights into a network; its heads stay as they are where they tell other classes apart.

        Args:
            network: of the configuration, with fresh weights.
            config: of the network.
            structures: that the network's heads tell apart, in the order of the channels.

        Returns:
            Names of the parameters of the body, all of which came from the file.

        Raises:
            ModelError: if the body of the file's network is another one.
        """
        own = network.state_dict()
        body, heads = _split(own, config)
        found_body, found_heads = _split(self.tensors, config)
        _check_body(self.path, config.network, body, found_body)
        fits = {name: value.shape for name, value in heads.items()} == {
            name: value.shape for name, value in found_heads.items()
        }
        keeps = fits and self.structures in (None, tuple(structures))
        _tell(self, keeps, structures)
        taken = {**found_body, **found_heads} if keeps else found_body
        network.load_state_dict({name: taken.get(name, value) for name, value in own.items()})
        return frozenset(name for name, _ in network.named_parameters() if name in body)


def read_initial_weights(config: SegmenterConfig) -> InitialWeights | None:
    """Read the file that a configuration names, None where it names none. Nothing in it is executed.

    Args:
        config: `initial_weights` is the path: a safetensors file, with the description beside it where it is
            one of our checkpoints; or what `torch.save` wrote, weights alone or under "state_dict" or
            "network_weights" as nnU-Net keeps them.

    Raises:
        ModelError: if the file is missing, broken, or holds anything but tensors and numbers, or is a
            checkpoint of another network.
    """
    if not config.initial_weights:
        return None
    path = Path(config.initial_weights)
    if not path.is_file():
        raise ModelError(
            f"initial_weights is {path}, but there is no such file; correct the path, or leave it out to "
            "start from random weights"
        )
    if path.suffix == ".safetensors":
        return _own(path, config)
    return InitialWeights(path=path, sha256=weights_sha256(path), tensors=_published(path), structures=None)


def parameter_groups(network: nn.Module, body: frozenset[str], body_rate: float) -> list[dict[str, Any]]:
    """Parameters for an optimiser, each group with `rate_factor`, its factor on the learning rate.

    Args:
        network: to train.
        body: names of the parameters that learn at `body_rate`; the others learn at 1.
        body_rate: 0 leaves the body as it is.
    """
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        groups.setdefault(body_rate if name in body else 1.0, []).append(parameter)
    return [{"params": parameters, "rate_factor": factor} for factor, parameters in groups.items()]


def _own(path: Path, config: SegmenterConfig) -> InitialWeights:
    structures = None
    if path.with_suffix(".json").is_file():
        description = read_description(path, "torch")
        check_weights(path, description["sha256"])
        found = dict(description.get("config", {})).get("network")
        if found != config.network:
            raise ModelError(
                f"initial_weights {path} holds a {found!r}, but this segmenter is a {config.network!r}; take "
                f"weights of a {config.network!r}, or set network to {found!r}"
            )
        structures = description["structures"]
    try:
        tensors = cast(dict[str, Tensor], safetensors.torch.load_file(path))
    except SafetensorError as error:
        raise ModelError(f"initial_weights {path} is no safetensors file: {error}") from error
    return InitialWeights(path=path, sha256=weights_sha256(path), tensors=tensors, structures=structures)


def _published(path: Path) -> dict[str, Tensor]:
    try:
        with torch.serialization.safe_globals(_numbers()):
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except _NOT_READABLE as error:
        raise ModelError(
            f"initial_weights {path} cannot be read as weights: {_first_line(error)}. Expected what "
            "torch.save writes of tensors and numbers; nothing else is let in, because a pickle can run "
            "any program"
        ) from error
    state = loaded
    if isinstance(loaded, Mapping):
        state = next((loaded[key] for key in _STATE_KEYS if key in loaded), loaded)
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise ModelError(
            f"initial_weights {path} holds no weights; expected a mapping from names to tensors, alone or "
            f"under {' or '.join(_STATE_KEYS)}"
        )
    plain = {str(name).removeprefix("module."): value for name, value in state.items()}
    return {name: value for name, value in plain.items() if not name.startswith(_REPEATED)}


def _numbers() -> list[Any]:
    """What a pickled NumPy number asks for, under the names of NumPy 1 and 2."""
    scalar = cast(Callable[..., Any], np.float64(0.0).__reduce__()[0])
    kinds = ("f4", "f8", "i4", "i8", "u1", "b1")
    return [
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
        np.dtype,
        *{type(np.dtype(kind)) for kind in kinds},
    ]


def _split(
    tensors: Mapping[str, Tensor], config: SegmenterConfig
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights of the body, and of the heads."""
    beginnings = ARCHITECTURES[config.network].heads
    heads = {name: value for name, value in tensors.items() if name.startswith(beginnings)}
    return {name: value for name, value in tensors.items() if name not in heads}, heads


def _check_body(
    path: Path, network: str, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]
) -> None:
    wrong = [
        f"{name} is {tuple(found[name].shape)}, expected {tuple(value.shape)}"
        for name, value in expected.items()
        if name in found and found[name].shape != value.shape
    ]
    problems = (
        _listed("missing", (name for name in expected if name not in found)),
        _listed("not expected", (name for name in found if name not in expected)),
        _listed("of another shape", wrong),
    )
    told = "; ".join(problem for problem in problems if problem)
    if told:
        raise ModelError(
            f"initial_weights {path} does not fit a {network} of these settings: {told}. Set network, "
            "channels and residual_units to those of the weights, or take other weights"
        )


def _listed(what: str, found: Iterable[str]) -> str:
    names = list(found)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} {what} ({', '.join(names[:_SHOWN])}{more})" if names else ""


def _tell(initial: InitialWeights, keeps: bool, structures: Sequence[str]) -> None:
    if keeps:
        _log.info("Started from %s, its heads too", initial.path)
        return
    classes = "" if initial.structures is None else f" ({', '.join(initial.structures)})"
    _log.warning(
        "Started from %s; its heads tell other classes apart%s, so those of %s start from random weights",
        initial.path,
        classes,
        ", ".join(structures),
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(". ")
