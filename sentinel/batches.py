"""Random batches of training pairs, lightly augmented."""

from collections.abc import Sequence
from dataclasses import dataclass

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

_ZOOM, _ANGLE, _SHIFT = 0.2, 0.3, 0.1
_GAMMA, _CONTRAST, _BRIGHTNESS, _NOISE = 0.3, 0.25, 30.0, 8.0
_SIDES = frozenset({"left", "right"})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """What one step learns from.

    Args:
        slices: (B, 2, S, S), normalised.
        text: (B, text_dim), embedding of each one's structure.
        target: (B,), true DSC.
        partner: (B,), index of each one's partner in the ranking loss.
        references: (B, S, S), in 0..255.
        hidden: (B,) bool, whether the mask is hidden, as if it were empty, so that it can have no score.
    """

    slices: Tensor
    text: Tensor
    target: Tensor
    partner: Tensor
    references: Tensor
    hidden: Tensor


class Batches:
    """Draws random batches: every pair once before any comes again.

    Args:
        pairs: to draw from.
        embeddings: (structures, text_dim).
        names: of the structures; those with a side are never mirrored.
        config: for the batch size, the target, the orientation and how often a mask is hidden.
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
        self._hidden = config.mask_dropout if config.dense_weight > 0.0 else 0.0
        self._rng = generator(seed, "sentinel", "batches")
        canonical = config.orientation == "canonical"
        self._flips = np.array([canonical and not _SIDES & set(name_key(name).split()) for name in names])
        self._order: list[int] = []

    def draw(self) -> Batch:
        """The next batch."""
        chosen = self._next()
        structure = self._pairs.structure[chosen]
        planes = np.concatenate([self._pairs.slices[chosen], self._pairs.references[chosen, None]], axis=1)
        text = self._embeddings[structure]
        varied = self._augment(torch.from_numpy(planes).to(self._device).float(), self._flips[structure])
        hidden = torch.from_numpy(self._rng.random(len(chosen)) < self._hidden).to(self._device)
        varied[hidden, 1] = 0.0
        return Batch(
            slices=normalise(varied[:, :2]).contiguous(memory_format=torch.channels_last),
            text=torch.from_numpy(text).to(self._device),
            target=torch.from_numpy(self._target[chosen]).to(self._device),
            partner=torch.from_numpy(optimal_pairing(text)).to(self._device),
            references=varied[:, 2],
            hidden=hidden,
        )

    def _next(self) -> NDArray[np.int64]:
        while len(self._order) < self._size:
            self._order.extend(self._rng.permutation(len(self._pairs)).tolist())
        chosen, self._order = self._order[: self._size], self._order[self._size :]
        return np.array(chosen, dtype=np.int64)

    def _augment(self, planes: Tensor, may_flip: NDArray[np.bool_]) -> Tensor:
        """Zoom, turn, shift, mirror where the structure has no side; change the image's intensities.

        Args:
            planes: (B, 3, S, S) in 0..255: image, mask, reference.
            may_flip: (B,).
        """
        count, rng = len(planes), self._rng
        zoom = 1.0 + rng.uniform(-_ZOOM, _ZOOM, (count, 2))
        angle = rng.uniform(-_ANGLE, _ANGLE, count)
        mirror = np.where(may_flip & (rng.random(count) < 0.5), -1.0, 1.0)
        theta = np.zeros((count, 2, 3), dtype=np.float32)
        theta[:, 0, 0], theta[:, 0, 1] = zoom[:, 0] * np.cos(angle) * mirror, -np.sin(angle)
        theta[:, 1, 0], theta[:, 1, 1] = np.sin(angle) * mirror, zoom[:, 1] * np.cos(angle)
        theta[:, :, 2] = rng.uniform(-_SHIFT, _SHIFT, (count, 2))
        field = functional.affine_grid(
            torch.from_numpy(theta).to(planes.device), list(planes.shape), align_corners=False
        )
        moved = functional.grid_sample(
            planes, field, mode="bilinear", padding_mode="border", align_corners=False
        )
        moved[:, 0] = self._vary(moved[:, 0])
        return moved

    def _vary(self, images: Tensor) -> Tensor:
        """Change gamma, contrast and brightness of images (B, S, S) in 0..255, and add noise."""
        rng, size = self._rng, (len(images), 1, 1)

        def drawn(low: float, high: float) -> Tensor:
            return torch.from_numpy(rng.uniform(low, high, size).astype(np.float32)).to(images.device)

        bent = 255.0 * (images / 255.0).clamp(0.0, 1.0) ** drawn(-_GAMMA, _GAMMA).exp()
        contrast, brightness = drawn(1.0 - _CONTRAST, 1.0 + _CONTRAST), drawn(-_BRIGHTNESS, _BRIGHTNESS)
        noise = torch.from_numpy(rng.standard_normal(images.shape, dtype=np.float32)).to(images.device)
        changed = (bent - 127.5) * contrast + 127.5 + brightness + drawn(0.0, _NOISE) * noise
        return changed.clamp(0.0, 255.0)
