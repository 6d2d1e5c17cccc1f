"""A trained sentinel: masks in, quality scores out, and one file on disk that holds all of it."""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from cohort.errors import ConfigError, GeometryError, ModelError
from cohort.volume import Volume, write_bytes
from sentinel.config import SentinelConfig
from sentinel.hardware import autocast, resolve_device
from sentinel.network import QualitySentinel
from sentinel.slices import (
    Grey,
    Mask,
    choose_slices,
    crop_around,
    cut_slice,
    grey_values,
    normalise,
    oriented,
)

EMPTY_MASK = "empty mask"
_FORMAT = "sentinel-loop/sentinel/1"
_EMBEDDINGS = "text_embeddings"
_NETWORK = "network."
_BATCH = 128

CaseMasks = tuple[Volume, Mapping[str, Mask]]


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskScore:
    """What a sentinel thinks of one mask.

    Args:
        structure: name.
        predicted_dsc: mean of the slices' scores, not clamped; NaN for an empty mask.
        slice_indices: that were scored, along the first axis of the volume in the sentinel's orientation.
        slice_scores: predicted DSC of each.
        reason: "empty mask" where there is no score, else "".
    """

    structure: str
    predicted_dsc: float
    slice_indices: tuple[int, ...] = ()
    slice_scores: tuple[float, ...] = ()
    reason: str = ""


class Sentinel:
    """A network with all that it needs to score masks: config, structures, their text embeddings.

    Args:
        config: how it looks at masks.
        structures: names that it can score, as its data set spells them.
        embeddings: (len(structures), config.text_dim), their text embeddings.
        network: trained; None makes one with random weights from torch's current generator.
        training_sha256: hash of what it was trained on, "" where not trained.
        history: one mapping of metrics per validation during training, each with its "step".
        metrics: of the chosen weights on patients that training held back.

    Raises:
        ModelError: if embeddings do not fit structures and config.
    """

    def __init__(
        self,
        *,
        config: SentinelConfig,
        structures: Sequence[str],
        embeddings: NDArray[np.float32],
        network: QualitySentinel | None = None,
        training_sha256: str = "",
        history: Sequence[Mapping[str, float]] = (),
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        if embeddings.shape != (len(structures), config.text_dim):
            raise ModelError(
                f"Text embeddings have shape {embeddings.shape}, expected "
                f"{(len(structures), config.text_dim)}: one vector of text_dim numbers for each structure"
            )
        self.config = config
        self.structures = tuple(structures)
        self.embeddings = np.ascontiguousarray(embeddings, dtype=np.float32)
        self.network = network if network is not None else new_network(config)
        self.training_sha256 = training_sha256
        self.history: tuple[Mapping[str, float], ...] = tuple(dict(step) for step in history)
        self.metrics: Mapping[str, float] = dict(metrics or {})

    def score(self, volume: Volume, masks: Mapping[str, Mask]) -> list[MaskScore]:
        """Score masks of one volume.

        Args:
            volume: the image.
            masks: structure name -> (D, H, W) mask on the image's grid.

        Returns:
            One score per mask in the mapping's order; NaN with reason "empty mask" for an empty one.

        Raises:
            ModelError: for a structure that this sentinel was not trained for.
            GeometryError: for a mask of another shape than the image.
        """
        return self.score_many([(volume, masks)])[0]

    def score_many(self, cases: Iterable[CaseMasks]) -> list[list[MaskScore]]:
        """Score masks of many volumes; as `score`, with slices of all of them in common batches.

        Args:
            cases: image and masks of each case, read one at a time.

        Returns:
            One list of scores per case, in order.
        """
        queue = _SliceQueue(self)
        planned = [
            [self._plan(name, mask, volume, queue) for name, mask in masks.items()] for volume, masks in cases
        ]
        scores = queue.finish()
        return [
            [_mask_score(name, indices, scores[start:]) for name, indices, start in case] for case in planned
        ]

    def predict(self, slices: NDArray[np.uint8], structure_index: NDArray[np.int64]) -> NDArray[np.float32]:
        """Predicted DSC of slices that are already cut.

        Args:
            slices: (N, 2, S, S), image and mask in 0..255.
            structure_index: (N,), into `structures`.

        Returns:
            (N,), not clamped.
        """
        device = resolve_device(self.config.device)
        network = self.network.to(device=device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        found = [np.zeros(0, dtype=np.float32)]
        for start in range(0, len(slices), _BATCH):
            cut = torch.from_numpy(slices[start : start + _BATCH]).to(device)
            text = torch.from_numpy(self.embeddings[structure_index[start : start + _BATCH]]).to(device)
            ready = normalise(cut).contiguous(memory_format=torch.channels_last)
            with torch.inference_mode(), autocast(self.config.precision, device):
                found.append(network(ready, text).float().cpu().numpy())
        return np.concatenate(found)

    def save(self, path: Path) -> None:
        """Write weights, config, structures and embeddings as one safetensors file, atomically."""
        tensors = {
            _NETWORK + name: value.detach().cpu().contiguous() for name, value in self._state().items()
        }
        tensors[_EMBEDDINGS] = torch.from_numpy(self.embeddings.copy())
        about = {
            "format": _FORMAT,
            "config": dataclasses.asdict(self.config),
            "structures": self.structures,
            "training_sha256": self.training_sha256,
            "history": [dict(step) for step in self.history],
            "metrics": dict(self.metrics),
        }
        write_bytes(path, save(tensors, metadata={"sentinel": json.dumps(about, sort_keys=True)}))

    @classmethod
    def load(cls, path: Path) -> "Sentinel":
        """Read a sentinel that `save` wrote.

        Raises:
            ModelError: if the file is missing, broken, or not a sentinel.
        """
        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads((file.metadata() or {})["sentinel"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            config = SentinelConfig(**about["config"])
            network = new_network(config)
            embeddings = tensors.pop(_EMBEDDINGS).numpy()
            network.load_state_dict({name.removeprefix(_NETWORK): value for name, value in tensors.items()})
        except (
            OSError,
            SafetensorError,
            KeyError,
            TypeError,
            ValueError,
            RuntimeError,
            ConfigError,
        ) as error:
            raise ModelError(
                f"{path} cannot be read as a sentinel ({error}); expected a file that Sentinel.save wrote"
            ) from error
        return cls(
            config=config,
            structures=about["structures"],
            embeddings=embeddings,
            network=network,
            training_sha256=about["training_sha256"],
            history=about["history"],
            metrics=about["metrics"],
        )

    def _state(self) -> dict[str, Tensor]:
        return dict(self.network.state_dict())

    def _plan(
        self, name: str, mask: Mask, volume: Volume, queue: "_SliceQueue"
    ) -> tuple[str, tuple[int, ...], int]:
        if name not in self.structures:
            raise ModelError(
                f"This sentinel was not trained for structure {name!r}; it knows "
                f"{', '.join(self.structures)}: train one for it, or leave the structure out"
            )
        if mask.shape != volume.array.shape:
            raise GeometryError(
                f"The mask of {name!r} has shape {mask.shape}, but its image has shape {volume.array.shape} "
                "(D, H, W); both must lie on one grid"
            )
        start = queue.length
        return name, queue.add(volume, mask, self.structures.index(name)), start


def new_network(config: SentinelConfig) -> QualitySentinel:
    """A network of a config's size, with random weights from torch's current generator."""
    return QualitySentinel(backbone=config.backbone, text_dim=config.text_dim, hidden_dim=config.hidden_dim)


class _SliceQueue:
    """Collects cut slices of many masks and has them scored whenever a few batches are full."""

    def __init__(self, sentinel: Sentinel) -> None:
        self._sentinel = sentinel
        self._cut: list[NDArray[np.uint8]] = []
        self._structure: list[int] = []
        self._scores: list[NDArray[np.float32]] = []
        self._volume: Volume | None = None
        self._turned: tuple[Grey, tuple[int, int]] | None = None
        self.length = 0

    def add(self, volume: Volume, mask: Mask, structure: int) -> tuple[int, ...]:
        config = self._sentinel.config
        if not mask.any():
            return ()
        grey, margin = self._image(volume)
        turned = (
            oriented(Volume(array=mask.astype(np.uint8), affine=volume.affine), config.orientation).array > 0
        )
        indices = choose_slices(turned, config.max_slices)
        for index in indices:
            crop = crop_around(turned[index], margin)
            self._cut.append(cut_slice(grey[index], turned[index], crop, config.image_size).numpy())
            self._structure.append(structure)
        self.length += len(indices)
        if len(self._cut) >= 4 * _BATCH:
            self._flush()
        return indices

    def finish(self) -> NDArray[np.float32]:
        self._flush()
        return np.concatenate([np.zeros(0, dtype=np.float32), *self._scores])

    def _image(self, volume: Volume) -> tuple[Grey, tuple[int, int]]:
        if self._volume is not volume or self._turned is None:
            config = self._sentinel.config
            turned = oriented(volume, config.orientation)
            self._volume = volume
            self._turned = (
                grey_values(turned.array, config.intensity),
                config.margin_voxels(turned.spacing_mm),
            )
        return self._turned

    def _flush(self) -> None:
        if self._cut:
            index = np.array(self._structure, dtype=np.int64)
            self._scores.append(self._sentinel.predict(np.stack(self._cut), index))
        self._cut, self._structure = [], []


def _mask_score(name: str, indices: tuple[int, ...], scores: NDArray[np.float32]) -> MaskScore:
    if not indices:
        return MaskScore(structure=name, predicted_dsc=math.nan, reason=EMPTY_MASK)
    own = tuple(float(score) for score in scores[: len(indices)])
    return MaskScore(
        structure=name,
        predicted_dsc=math.fsum(own) / len(own),
        slice_indices=indices,
        slice_scores=own,
    )
