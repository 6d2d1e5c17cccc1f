"""Text embeddings of structure names: the shipped table, one from the spelling, the published pickle."""

import collections
import hashlib
import io
import json
import logging
import pickle
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from cohort.errors import ConfigError, ModelError
from sentinel.structures import find_structure, name_key, require_structure

Embeddings = NDArray[np.float32]

TABLE_DIM = 384
PUBLISHED_DIM = 512
EMBEDDING_NORM = 10.0
"""Length of every embedding that we hand out: about that of the published ones, so that a network
hears name and image equally loud."""

UNKNOWN_NAMES = ("hash", "error")

_TABLE = "text_embeddings.safetensors"
_log = logging.getLogger(__name__)


def embed_names(names: Sequence[str], *, unknown: str = "hash") -> Embeddings:
    """Embed the names of structures.

    Args:
        names: in any spelling or alias that `sentinel.structures` knows.
        unknown: what to do with a name that it does not know: "hash" makes a vector from the spelling (and
            logs a warning), "error" refuses.

    Returns:
        (len(names), 384), each of length 10; the same name always gives the same vector.

    Raises:
        ConfigError: for another value of `unknown`.
        DataError: for an unknown name where `unknown` is "error"; suggests the nearest known names.
    """
    if unknown not in UNKNOWN_NAMES:
        raise ConfigError(f"unknown_names is {unknown!r}; expected one of {', '.join(UNKNOWN_NAMES)}")
    return (
        np.stack([_embed(name, unknown) for name in names]) if names else np.zeros((0, TABLE_DIM), np.float32)
    )


def hashed_embedding(name: str) -> Embeddings:
    """A vector made from the character 3- to 5-grams of a name, so that similar spellings lie close.

    Args:
        name: of the structure; case, punctuation and the order of words do not matter.

    Returns:
        (384,) of length 10.
    """
    padded = f" {name_key(name)} "
    vector = np.zeros(TABLE_DIM, dtype=np.float32)
    for size in (3, 4, 5):
        for start in range(len(padded) - size + 1):
            digest = hashlib.blake2b(padded[start : start + size].encode(), digest_size=8).digest()
            vector[int.from_bytes(digest[:4], "big") % TABLE_DIM] += 1.0 if digest[4] & 1 else -1.0
    if not vector.any():
        vector[0] = 1.0
    return _scaled(vector)


def load_published_embeddings(path: Path) -> dict[int, Embeddings]:
    """Read the user's own copy of the published `label_embedding.pkl`, executing nothing that it carries.

    Args:
        path: of the pickle: a dict from class index to a float32 tensor of (1, 512).

    Returns:
        Class index -> (512,).

    Raises:
        ModelError: if the file is missing, needs anything but the rebuilding of tensors, or holds anything
            but such a dict.
    """
    try:
        with path.open("rb") as file:
            loaded = _TensorUnpickler(file).load()
    except (
        OSError,
        EOFError,
        pickle.UnpicklingError,
        ValueError,
        RuntimeError,
        TypeError,
        KeyError,
    ) as error:
        raise ModelError(
            f"{path} cannot be read as published text embeddings ({error}); expected the label_embedding.pkl "
            "of Quality Sentinel: a pickled dict of tensors and nothing else"
        ) from error
    return _checked_embeddings(loaded, path)


class _TensorUnpickler(pickle.Unpickler):
    """Knows how to rebuild tensors on the CPU, and refuses every other name that a pickle may ask for."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            return _load_storage
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not needed for a tensor")


def _load_storage(data: bytes) -> torch.UntypedStorage | torch.TypedStorage:
    storage = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    if not isinstance(storage, (torch.UntypedStorage, torch.TypedStorage)):
        raise pickle.UnpicklingError(f"it holds a {type(storage).__name__} where tensor data was expected")
    return storage


def _rebuild_tensor(
    storage: torch.TypedStorage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_unused: object
) -> torch.Tensor:
    tensor = torch.empty(0, dtype=storage.dtype)
    return tensor.set_(storage._untyped_storage, offset, size, stride)


def _checked_embeddings(loaded: object, path: Path) -> dict[int, Embeddings]:
    if not isinstance(loaded, dict) or not loaded:
        raise ModelError(
            f"{path} holds a {type(loaded).__name__}, expected a dict from class index to tensor"
        )
    embeddings = {}
    for key, value in loaded.items():
        shaped = (
            isinstance(value, torch.Tensor)
            and value.dtype == torch.float32
            and value.numel() == PUBLISHED_DIM
        )
        if not isinstance(key, int) or not shaped:
            raise ModelError(
                f"{path} holds {type(value).__name__} for key {key!r}; expected a float32 tensor of "
                f"(1, {PUBLISHED_DIM}) for a whole number"
            )
        embeddings[key] = np.array(value.detach().reshape(-1).numpy())
    return embeddings


def _embed(name: str, unknown: str) -> Embeddings:
    if find_structure(name) is None and unknown == "hash":
        _log.warning(
            "Structure %r is not in the table of known structures; its embedding is made from its spelling",
            name,
        )
        return hashed_embedding(name)
    return _table()[require_structure(name).name]


@cache
def _table() -> Mapping[str, Embeddings]:
    source = resources.files("sentinel").joinpath(_TABLE)
    with resources.as_file(source) as path:
        try:
            with safe_open(path, framework="np") as file:
                names = json.loads(file.metadata()["names"])
                vectors = file.get_tensor("embeddings").astype(np.float32)
        except (OSError, SafetensorError) as error:
            raise ModelError(
                f"{path}, a part of this package, cannot be read ({error}); install it again"
            ) from error
    return MappingProxyType({name: _scaled(vector) for name, vector in zip(names, vectors, strict=True)})


def _scaled(vector: Embeddings) -> Embeddings:
    scaled: Embeddings = (vector * (EMBEDDING_NORM / float(np.linalg.norm(vector)))).astype(np.float32)
    scaled.setflags(write=False)
    return scaled
