"""Random batches of training pairs, lightly augmented."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from cohort.seeds import generator
from sentinel.config import SentinelConfig
from sentinel.losses import optimal_pairing
from sentinel.pairs import Pairs
from sentinel.slices import normalise
from sentinel.structures import name_key

_ZOOM, _SHIFT, _CONTRAST, _BRIGHTNESS = 0.15, 0.08, 0.2, 25.0
_SIDES = frozenset({"left", "right"})


class Batches:
    """Draws random batches: every pair once before any comes again.

    Args:
        pairs: to draw from.
        embeddings: (structures, text_dim).
        names: of the structures; those with a side are never mirrored.
        config: for the batch size, the target and the orientation.
        seed: of order and augmentation.
        device: that batches go to.
    """

    def __init__(
        self,
        pairs: Pairs,
        embeddings: NDArray[np.float32],
        names: Sequence[str],
        config: SentinelConfig,
        seed: int,
        device: torch.device,
    ) -> None:
        self._pairs, self._embeddings, self._device = pairs, embeddings, device
        self._target = pairs.target(config.volume_weight)
        self._size = config.batch_size
        self._rng = generator(seed, "sentinel", "batches")
        canonical = config.orientation == "canonical"
        self._flips = np.array([canonical and not _SIDES & set(name_key(name).split()) for name in names])
        self._order: list[int] = []

    def draw(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The next batch.

        Returns:
            Normalised slices (B, 2, S, S), text embeddings (B, text_dim), true DSC (B,), and each
            one's partner in the ranking loss (B,).
        """
        chosen = self._next()
        structure = self._pairs.structure[chosen]
        slices = torch.from_numpy(self._pairs.slices[chosen]).to(self._device)
        text = self._embeddings[structure]
        ready = normalise(self._augment(slices.float(), self._flips[structure]))
        return (
            ready.contiguous(memory_format=torch.channels_last),
            torch.from_numpy(text).to(self._device),
            torch.from_numpy(self._target[chosen]).to(self._device),
            torch.from_numpy(optimal_pairing(text)).to(self._device),
        )

    def _next(self) -> NDArray[np.int64]:
        while len(self._order) < self._size:
            self._order.extend(self._rng.permutation(len(self._pairs)).tolist())
        chosen, self._order = self._order[: self._size], self._order[self._size :]
        return np.array(chosen, dtype=np.int64)

    def _augment(self, slices: Tensor, may_flip: NDArray[np.bool_]) -> Tensor:
        """Zoom, shift, mirror where the structure has no side; change contrast and brightness."""
        count, rng = len(slices), self._rng
        zoom = 1.0 + rng.uniform(-_ZOOM, _ZOOM, (count, 2))
        mirror = np.where(may_flip & (rng.random(count) < 0.5), -1.0, 1.0)
        theta = np.zeros((count, 2, 3), dtype=np.float32)
        theta[:, 0, 0], theta[:, 1, 1] = zoom[:, 0] * mirror, zoom[:, 1]
        theta[:, :, 2] = rng.uniform(-_SHIFT, _SHIFT, (count, 2))
        field = functional.affine_grid(
            torch.from_numpy(theta).to(slices.device), list(slices.shape), align_corners=False
        )
        moved = functional.grid_sample(
            slices, field, mode="bilinear", padding_mode="border", align_corners=False
        )
        contrast = torch.from_numpy(
            rng.uniform(1.0 - _CONTRAST, 1.0 + _CONTRAST, (count, 1, 1)).astype(np.float32)
        )
        brightness = torch.from_numpy(
            rng.uniform(-_BRIGHTNESS, _BRIGHTNESS, (count, 1, 1)).astype(np.float32)
        )
        changed = (moved[:, 0] - 127.5) * contrast.to(slices.device) + 127.5 + brightness.to(slices.device)
        return torch.stack([changed.clamp(0.0, 255.0), moved[:, 1]], dim=1)
