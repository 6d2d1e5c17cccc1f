"""Sentinels on disk: our own one-file format, and the published weights."""

import dataclasses
import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from cohort.errors import ConfigError, ModelError
from cohort.volume import write_bytes
from sentinel.calibration import Calibration
from sentinel.config import SentinelConfig
from sentinel.hardware import resolve_device
from sentinel.network import QualitySentinel
from sentinel.scoring import Sentinel, new_dense, new_network
from sentinel.structures import known_structures
from sentinel.text import PUBLISHED_DIM, load_published_embeddings

_FORMAT = "sentinel-loop/sentinel/3"
_EMBEDDINGS = "text_embeddings"
_NETWORK, _DENSE = "network.", "dense."
_BLOCKS = {
    (2, False): "resnet18",
    (6, False): "resnet34",
    (6, True): "resnet50",
    (23, True): "resnet101",
    (36, True): "resnet152",
}
"""(blocks of the third stage, whether they are bottlenecks) -> backbone."""

_BROKEN: tuple[type[Exception], ...] = (
    OSError,
    EOFError,
    pickle.UnpicklingError,
    RuntimeError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
)

_NOT_OURS: tuple[type[Exception], ...] = (SafetensorError, ConfigError, ModelError, *_BROKEN)


def save_sentinel(sentinel: Sentinel, path: Path) -> None:
    """Write a sentinel as one safetensors file, atomically."""
    state = sentinel.network.state_dict()
    tensors = {_NETWORK + name: value.detach().cpu().contiguous() for name, value in state.items()}
    if sentinel.dense is not None:
        dense = sentinel.dense.state_dict()
        tensors |= {_DENSE + name: value.detach().cpu().contiguous() for name, value in dense.items()}
    tensors[_EMBEDDINGS] = torch.from_numpy(sentinel.embeddings.copy())
    about = {
        "format": _FORMAT,
        "config": dataclasses.asdict(sentinel.config),
        "structures": sentinel.structures,
        "training_sha256": sentinel.training_sha256,
        "history": [dict(step) for step in sentinel.history],
        "metrics": dict(sentinel.metrics),
        "calibration": sentinel.calibration.as_dict(),
    }
    write_bytes(path, save(tensors, metadata={"sentinel": json.dumps(about, sort_keys=True)}))


def load_sentinel(
    path: Path, embeddings: Path | None, *, precision: str | None = None, device: str | None = None
) -> Sentinel:
    """Read a file of ours, or published weights where text embeddings are given; see `Sentinel.load`."""
    if not path.is_file():
        raise ModelError(f"The weights {path} do not exist; expected a file there")
    ours = path.suffix == ".safetensors"
    if ours and embeddings is not None:
        raise ModelError(
            f"{path} holds its own text embeddings; leave {embeddings} out, it belongs to published weights"
        )
    if not ours and embeddings is None:
        raise ModelError(
            f"{path} is not a .safetensors file of ours, so it is read as published weights: these need "
            "their text embeddings (label_embedding.pkl) beside them; name that file too"
        )
    sentinel = _load_ours(path) if embeddings is None else _load_published(path, embeddings)
    changed = {"precision": precision, "device": device}
    wanted = {name: value for name, value in changed.items() if value is not None}
    sentinel.config = dataclasses.replace(sentinel.config, **wanted)  # type: ignore[arg-type]
    resolve_device(sentinel.config.device)
    return sentinel


def published_config(backbone: str, hidden_dim: int) -> SentinelConfig:
    """How the published code looks at masks.

    Args:
        backbone: of the weights.
        hidden_dim: of the weights' head.
    """
    return SentinelConfig(
        backbone=backbone,
        image_size=256,
        intensity="ct_hu",
        margin=20.0,
        margin_unit="voxels",
        orientation="as_stored",
        text_dim=PUBLISHED_DIM,
        hidden_dim=hidden_dim,
        max_slices=10,
        aggregation="mean",
        dense_weight=0.0,
        unknown_names="error",
    )


def _load_ours(path: Path) -> Sentinel:
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["sentinel"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        config = SentinelConfig(**about["config"])
        network = new_network(config)
        embeddings = tensors.pop(_EMBEDDINGS).numpy()
        network.load_state_dict(_below(_NETWORK, tensors))
        dense = new_dense(config)
        if dense is not None:
            dense.load_state_dict(_below(_DENSE, tensors))
        return Sentinel(
            config=config,
            structures=about["structures"],
            embeddings=embeddings,
            network=network,
            dense=dense,
            training_sha256=about["training_sha256"],
            history=about["history"],
            metrics=about["metrics"],
            calibration=Calibration.from_dict(about["calibration"]),
        )
    except _NOT_OURS as error:
        raise ModelError(
            f"{path} cannot be read as a sentinel ({_short(error)}); expected a file that Sentinel.save wrote"
        ) from error


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _load_published(path: Path, embeddings: Path) -> Sentinel:
    state = _published_state(path)
    backbone = _backbone(state, path)
    network = QualitySentinel(backbone=backbone, text_dim=PUBLISHED_DIM, hidden_dim=_hidden_dim(state, path))
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(
            f"{path} does not fit the network of Quality Sentinel with a {backbone} ({_short(error)}); "
            "expected the published state dict"
        ) from error
    vectors = load_published_embeddings(embeddings)
    named = {
        known.name: vectors[known.atlas_index]
        for known in known_structures().values()
        if known.atlas_index is not None and known.atlas_index in vectors
    }
    if not named:
        raise ModelError(f"{embeddings} has no embedding of any structure of DAP Atlas (keys 0 to 144)")
    return Sentinel(
        config=published_config(backbone, network.fc2.in_features),
        structures=tuple(named),
        embeddings=np.stack(list(named.values())),
        network=network,
    )


def _published_state(path: Path) -> dict[str, Tensor]:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except _BROKEN as error:
        raise ModelError(
            f"{path} cannot be read as weights ({_short(error)}); expected a state dict of tensors and "
            "nothing else: nothing that the file may carry beside was executed"
        ) from error
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, Mapping) or not loaded:
        raise ModelError(f"{path} holds {type(loaded).__name__}, expected a state dict: names and tensors")
    wrong = [name for name, value in loaded.items() if not isinstance(value, Tensor)]
    if wrong:
        raise ModelError(
            f"{path} holds something else than a tensor under {wrong[0]!r}; expected a state dict"
        )
    return {str(name).removeprefix("module."): value for name, value in loaded.items()}


def _backbone(state: Mapping[str, Tensor], path: Path) -> str:
    blocks = {int(found[1]) for name in state if (found := re.match(r"net\.layer3\.(\d+)\.", name))}
    bottleneck = "net.layer3.0.conv3.weight" in state
    backbone = _BLOCKS.get((len(blocks), bottleneck))
    if backbone is None or "attention1.weight" not in state:
        raise ModelError(
            f"{path} has no network of Quality Sentinel in it ({len(state)} tensors, the first "
            f"{next(iter(state))!r}); expected net.*, conv1, bn1, fc1, fc2, attention1 and attention2"
        )
    return backbone


def _hidden_dim(state: Mapping[str, Tensor], path: Path) -> int:
    weight = state.get("fc1.weight")
    if weight is None or weight.ndim != 2:
        raise ModelError(f"{path} has no matrix fc1.weight; expected the published state dict")
    return len(weight)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
