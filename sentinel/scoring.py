"""A trained sentinel: masks in, quality scores out, and one file on disk that holds all of it."""

import difflib
import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cohort.case import Spacing
from cohort.errors import DataError, GeometryError, ModelError
from cohort.records import EMPTY_MASK
from cohort.volume import Array, Volume
from sentinel.aggregation import aggregate
from sentinel.calibration import Calibration
from sentinel.config import SentinelConfig
from sentinel.dense import DenseHead, drawn_overlap, halved
from sentinel.folding import folded, weights_version
from sentinel.hardware import autocast, resolve_device, uses_bfloat16
from sentinel.network import QualitySentinel
from sentinel.planning import JUDGEMENTS, CaseMasks, SliceQueue, check_image, check_mask
from sentinel.slices import Mask, normalise
from sentinel.structures import find_structure, name_key

BATCH = 32
"""Slices in one forward pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskScore:
    """What a sentinel thinks of one mask.

    Args:
        structure: name, as it was asked for.
        predicted_dsc: calibrated and in [0, 1] where the sentinel is calibrated for the structure, else
            `raw`; NaN for an empty mask.
        raw: what is thought of the slices in one number, not clamped, see `sentinel.aggregation.aggregate`;
            NaN for an empty mask.
        lower: bound of the DSC in [0, 1]; NaN where the sentinel is not calibrated for the structure.
        upper: bound likewise.
        slice_indices: that were scored, along the first axis of the volume in the sentinel's orientation.
        slice_scores: predicted DSC of each, not clamped.
        reason: "empty mask", "not calibrated for this structure" where bounds are missing, else "".
    """

    structure: str
    predicted_dsc: float
    raw: float = math.nan
    lower: float = math.nan
    upper: float = math.nan
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
        dense: trained dense head; None makes one likewise, where the config has one.
        training_sha256: hash of what it was trained on, "" where not trained.
        history: one mapping of metrics per validation during training, each with its "step".
        metrics: of the chosen weights on patients that training held back.
        calibration: from raw scores to DSC with bounds; None for none.

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
        dense: DenseHead | None = None,
        training_sha256: str = "",
        history: Sequence[Mapping[str, float]] = (),
        metrics: Mapping[str, float] | None = None,
        calibration: Calibration | None = None,
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
        self.dense = dense if dense is not None else new_dense(config)
        self.training_sha256 = training_sha256
        self.history: tuple[Mapping[str, float], ...] = tuple(dict(step) for step in history)
        self.metrics: Mapping[str, float] = dict(metrics or {})
        self.calibration = calibration or Calibration()
        self._folded: tuple[object, QualitySentinel, DenseHead | None] | None = None
        self._index: dict[str, int | None] = {name: number for number, name in enumerate(self.structures)}

    def score(
        self,
        volume: Volume | Array,
        masks: Mapping[str, Mask],
        spacing_mm: Spacing | None = None,
    ) -> list[MaskScore]:
        """Score masks of one volume.

        Args:
            volume: the image; or its voxels (D, H, W), which are then taken to lie as the sentinel was
                trained on them: slices from feet to head, rows and columns towards anterior and right.
            masks: structure name, in any spelling or alias that the sentinel knows -> (D, H, W) mask on the
                image's grid, bool or 0 and 1.
            spacing_mm: (D, H, W) of bare voxels.

        Returns:
            One score per mask in the mapping's order; NaN with reason "empty mask" for an empty one.

        Raises:
            ModelError: for a structure that this sentinel was not trained for.
            GeometryError: for a mask of another shape than the image, or bare voxels without a spacing.
            DataError: for an image that is not three-dimensional, has NaN or infinite voxels, or is not in
                HU where the sentinel expects that.
        """
        return self.score_many([(_as_volume(volume, spacing_mm), masks)])[0]

    def score_many(self, cases: Iterable[CaseMasks]) -> list[list[MaskScore]]:
        """Score masks of many volumes; as `score`, with slices of all of them in common batches.

        Args:
            cases: image and masks of each case, read one at a time.

        Returns:
            One list of scores per case, in order.
        """
        return list(self.score_stream(cases))

    def score_stream(self, cases: Iterable[CaseMasks]) -> Iterator[list[MaskScore]]:
        """Score masks of any number of volumes in bounded memory.

        Args:
            cases: image and masks of each case, taken one at a time when there is room for their slices.

        Yields:
            The scores of each case, in order, as soon as its last slice went through the network.
        """
        queue = SliceQueue(self.config, self.judge, BATCH)
        waiting: deque[list[_Planned]] = deque()
        before: Volume | None = None
        for volume, masks in cases:
            if volume is not before:
                check_image(volume, self.config.intensity)
                before = volume
            waiting.append([self._plan(name, mask, volume, queue) for name, mask in masks.items()])
            while waiting and _end(waiting[0], queue.forgotten) <= queue.done:
                yield self._take(waiting.popleft(), queue)
        queue.finish()
        while waiting:
            yield self._take(waiting.popleft(), queue)

    def structure_index(self, name: str) -> int | None:
        """Which of `structures` a name means: the same spelling, words or anatomy; None for none of them.

        >>> from sentinel.text import embed_names
        >>> known = ("kidney_left", "liver")
        >>> sentinel = Sentinel(config=SentinelConfig(), structures=known, embeddings=embed_names(known))
        >>> sentinel.structure_index("Left Kidney"), sentinel.structure_index("spleen")
        (0, None)
        """
        if name not in self._index:
            self._index[name] = self._find(name)
        return self._index[name]

    def not_trained_for(self, name: str) -> str:
        """What to tell about a structure that the sentinel cannot score, with those that it knows."""
        return (
            f"This sentinel was not trained for structure {name!r}; it knows {self._known(name)}: correct "
            "the name, train one for it, or leave the structure out"
        )

    def check_knows(self, names: Iterable[str]) -> None:
        """Refuse structures that the sentinel cannot score.

        Raises:
            ModelError: naming the first of them.
        """
        for name in names:
            self._require(name)

    def predict(self, slices: NDArray[np.uint8], structure_index: NDArray[np.int64]) -> NDArray[np.float32]:
        """Predicted DSC of slices that are already cut.

        Args:
            slices: (N, 2, S, S), image and mask in 0..255.
            structure_index: (N,), into `structures`.

        Returns:
            (N,), not clamped.
        """
        return self.judge(slices, structure_index)[:, 0]

    def judge(self, slices: NDArray[np.uint8], structure_index: NDArray[np.int64]) -> NDArray[np.float32]:
        """All that is thought of slices that are already cut.

        Args:
            slices: as `predict`.
            structure_index: as `predict`.

        Returns:
            (N, 3), see `sentinel.planning.JUDGEMENTS`. With a dense head the score is the mean of both
            heads' opinions.
        """
        device = resolve_device(self.config.device)
        network, dense = self._ready(device)
        found = [np.zeros((0, JUDGEMENTS), dtype=np.float32)]
        for start in range(0, len(slices), BATCH):
            cut = torch.from_numpy(slices[start : start + BATCH]).to(device)
            text = torch.from_numpy(self.embeddings[structure_index[start : start + BATCH]]).to(device)
            with torch.inference_mode(), autocast(self.config.precision, device):
                found.append(_judged(network, dense, cut, text).cpu().numpy())
        return np.concatenate(found)

    def _ready(self, device: torch.device) -> tuple[QualitySentinel, DenseHead | None]:
        """Network and dense head as they compute: on the device, folded where bfloat16 rounds more anyway."""
        for part in (self.network, self.dense):
            if part is not None:
                part.to(device=device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        if not uses_bfloat16(self.config.precision, device):
            return self.network, self.dense
        parts = [part for part in (self.network, self.dense) if part is not None]
        version = tuple(weights_version(part) for part in parts)
        if self._folded is None or self._folded[0] != version:
            dense = None if self.dense is None else folded(self.dense)
            self._folded = version, folded(self.network), dense
        return self._folded[1], self._folded[2]

    def save(self, path: Path) -> None:
        """Write weights, config, structures, embeddings and calibration as one file, atomically."""
        from sentinel.files import save_sentinel

        save_sentinel(self, path)

    @classmethod
    def load(
        cls,
        path: Path | str,
        embeddings: Path | str | None = None,
        *,
        precision: str | None = None,
        device: str | None = None,
    ) -> "Sentinel":
        """Read a sentinel: a file that `save` wrote, or published weights with their text embeddings.

        Args:
            path: a .safetensors file of ours; or the published state dict (.pth), which is read without
                executing what a pickle may carry.
            embeddings: the published `label_embedding.pkl`, for published weights.
            precision: "auto", "float32" or "bfloat16" in place of the file's own.
            device: "auto", "cpu" or "cuda" in place of the file's own.

        Raises:
            ModelError: if a file is missing, broken, or not what it should be.
            ConfigError: for an unknown precision or a device that is not there.
        """
        from sentinel.files import load_sentinel

        wanted = None if embeddings is None else Path(embeddings)
        return load_sentinel(Path(path), wanted, precision=precision, device=device)

    def _find(self, name: str) -> int | None:
        keys = [name_key(own) for own in self.structures]
        if name_key(name) in keys:
            return keys.index(name_key(name))
        known = find_structure(name)
        anatomy = [find_structure(own) for own in self.structures]
        return anatomy.index(known) if known is not None and known in anatomy else None

    def _require(self, name: str) -> int:
        index = self.structure_index(name)
        if index is None:
            raise ModelError(self.not_trained_for(name))
        return index

    def _plan(self, name: str, mask: Mask, volume: Volume, queue: SliceQueue) -> "_Planned":
        index = self._require(name)
        check_mask(name, mask, volume)
        start = queue.length
        indices, sizes = queue.add(volume, mask, index)
        return _Planned(name=name, structure=index, indices=indices, sizes=sizes, start=start)

    def _known(self, name: str) -> str:
        """The structures in a message: all of a few, of many those that are spelled most alike."""
        if len(self.structures) <= 12:
            return ", ".join(self.structures)
        keys = {name_key(own): own for own in self.structures}
        near = difflib.get_close_matches(name_key(name), keys, n=3, cutoff=0.5)
        shown = f", nearest to it {', '.join(keys[key] for key in near)}" if near else ""
        return f"{len(self.structures)} structures{shown}"

    def _take(self, planned: Sequence["_Planned"], queue: SliceQueue) -> list[MaskScore]:
        found = [self._mask_score(each, queue.scores(each.start, len(each.indices))) for each in planned]
        queue.forget(_end(planned, queue.forgotten))
        return found

    def _mask_score(self, planned: "_Planned", judged: NDArray[np.float32]) -> MaskScore:
        name, indices = planned.name, planned.indices
        if not indices:
            return MaskScore(structure=name, predicted_dsc=math.nan, reason=EMPTY_MASK)
        raw = aggregate(judged, planned.sizes, self.config.aggregation)
        if not (math.isfinite(raw) and np.isfinite(judged[:, 0]).all()):
            raise ModelError(
                f"The sentinel gave no number for a slice of {name!r}: its weights are broken; train "
                "it or get the file again"
            )
        found = self.calibration.apply(self.structures[planned.structure], raw)
        missing = math.isnan(found.predicted_dsc)
        return MaskScore(
            structure=name,
            predicted_dsc=raw if missing else found.predicted_dsc,
            raw=raw,
            lower=found.lower,
            upper=found.upper,
            slice_indices=indices,
            slice_scores=tuple(float(score) for score in judged[:, 0]),
            reason=found.reason,
        )


def _judged(network: QualitySentinel, dense: DenseHead | None, cut: Tensor, text: Tensor) -> Tensor:
    pyramid = network.pyramid(normalise(cut).contiguous(memory_format=torch.channels_last))
    score = network.head(pyramid[-1], text).float()
    if dense is None:
        return torch.stack([score, *[torch.full_like(score, math.nan)] * 2], dim=1)
    overlap = drawn_overlap(dense(pyramid, text).float(), halved(cut[:, 1]))
    drawn_dsc = 2.0 * overlap[:, 0] / (1.0 + overlap[:, 1])
    both = torch.where(drawn_dsc.isnan(), score, 0.5 * (score + drawn_dsc))
    return torch.cat([both[:, None], overlap], dim=1)


def new_dense(config: SentinelConfig) -> DenseHead | None:
    """A dense head with random weights, None where the config has none."""
    return (
        DenseHead(backbone=config.backbone, text_dim=config.text_dim) if config.dense_weight > 0.0 else None
    )


def new_network(config: SentinelConfig) -> QualitySentinel:
    """A network of a config's size, with random weights from torch's current generator."""
    return QualitySentinel(backbone=config.backbone, text_dim=config.text_dim, hidden_dim=config.hidden_dim)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Planned:
    """A mask whose slices are on their way: where they begin in the queue, and what they are of."""

    name: str
    structure: int
    indices: tuple[int, ...]
    sizes: tuple[int, ...]
    start: int


def _end(planned: Sequence[_Planned], start: int) -> int:
    """Past the last slice of a case."""
    return max((each.start + len(each.indices) for each in planned), default=start)


def _as_volume(volume: Volume | Array, spacing_mm: Spacing | None) -> Volume:
    if isinstance(volume, Volume):
        return volume
    if spacing_mm is None:
        raise GeometryError("Bare voxels need spacing_mm, the size of a voxel in (D, H, W) in millimetres")
    if min(spacing_mm) <= 0.0:
        raise DataError(f"spacing_mm is {tuple(spacing_mm)}, expected three sizes above 0 in millimetres")
    depth, height, width = spacing_mm
    return Volume(array=np.asarray(volume), affine=np.diag([width, height, depth, 1.0]))
