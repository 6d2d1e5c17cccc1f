"""Scoring of single masks from files, without a campaign or a server around it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from cohort.errors import ConfigError
from cohort.volume import check_same_grid, read_image, read_label_map
from flows.stages import json_number
from sentinel.scoring import MaskScore, Sentinel
from sentinel.slices import Mask


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskRequest:
    """A mask to score.

    Args:
        structure: name.
        path: of the mask; several requests may name one label map.
        label: of the structure in it, None for any voxel above 0.
    """

    structure: str
    path: Path
    label: int | None = None


def mask_requests(
    masks: Sequence[Path], structures: Sequence[str], labels: Sequence[int]
) -> tuple[MaskRequest, ...]:
    """Put together what the command line names.

    Args:
        masks: one per structure, or one label map for all of them.
        structures: names.
        labels: one per structure, or none: then every mask is binary.

    Raises:
        ConfigError: if the numbers of masks, structures and labels do not fit each other.
    """
    if not masks or not structures:
        raise ConfigError("Name at least one --mask and its --structure")
    if len(masks) not in {1, len(structures)}:
        raise ConfigError(
            f"{len(masks)} masks are named for {len(structures)} structures; give one --mask for each "
            "--structure, or one label map with a --label for each"
        )
    if labels and len(labels) != len(structures):
        raise ConfigError(
            f"{len(labels)} labels are named for {len(structures)} structures; give one --label for each"
        )
    if len(masks) == 1 and len(structures) > 1 and not labels:
        raise ConfigError(
            f"One mask is named for {len(structures)} structures; say with --label which label of it each is"
        )
    if len(set(structures)) != len(structures):
        raise ConfigError("A structure is named twice; name each once")
    paths = list(masks) * len(structures) if len(masks) == 1 else list(masks)
    chosen: Sequence[int | None] = labels or [None] * len(structures)
    return tuple(
        MaskRequest(structure=name, path=path, label=label)
        for name, path, label in zip(structures, paths, chosen, strict=True)
    )


def score_files(image: Path, requests: Sequence[MaskRequest], sentinel: Sentinel) -> list[MaskScore]:
    """Score masks of one image.

    Raises:
        DataError, GeometryError: for a file that is missing, broken, or not on the image's grid.
        ModelError: for a structure that the sentinel was not trained for.
    """
    volume = read_image(image)
    files = {path: read_label_map(path) for path in dict.fromkeys(request.path for request in requests)}
    for path, labels in files.items():
        check_same_grid(volume, labels, image, path)
    masks: dict[str, Mask] = {}
    for request in requests:
        labels = files[request.path]
        found = labels.array > 0 if request.label is None else labels.array == request.label
        masks[request.structure] = np.ascontiguousarray(found)
    return sentinel.score(volume, masks)


def as_json(scores: Sequence[MaskScore], about: Mapping[str, str]) -> dict[str, Any]:
    """Scores as JSON values; what is missing is None."""
    return {
        **about,
        "scores": [
            {
                "structure": score.structure,
                "predicted_dsc": json_number(score.predicted_dsc),
                "lower": json_number(score.lower),
                "upper": json_number(score.upper),
                "raw": json_number(score.raw),
                "reason": score.reason,
                "slices": [
                    {"index": index, "raw": value}
                    for index, value in zip(score.slice_indices, score.slice_scores, strict=True)
                ],
            }
            for score in scores
        ],
    }


def as_table(scores: Sequence[MaskScore]) -> Table:
    """Scores for a terminal."""
    table = Table()
    table.add_column("structure")
    for name in ("predicted DSC", "bounds", "slices", "worst slice, raw"):
        table.add_column(name, justify="right")
    table.add_column("note")
    for score in scores:
        table.add_row(
            score.structure,
            _shown(score.predicted_dsc),
            f"{_shown(score.lower)} to {_shown(score.upper)}" if not math.isnan(score.lower) else "-",
            str(len(score.slice_indices)),
            _worst(score),
            score.reason,
        )
    return table


def _worst(score: MaskScore) -> str:
    if not score.slice_scores:
        return "-"
    position = int(np.argmin(score.slice_scores))
    return f"{score.slice_indices[position]}: {score.slice_scores[position]:.3f}"


def _shown(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
