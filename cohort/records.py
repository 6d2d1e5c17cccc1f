"""What is handed from room to room: training cases, checkpoints, predictions, graded masks, quality scores.

Frozen, small and picklable: ids, paths and numbers, never voxels.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cohort.errors import DataError
from cohort.slabs import Slab

EMPTY_MASK = "empty mask"
"""The reason of a mask without a voxel, which has no score."""

UNTRAINED = "not trained: no labelled case has this structure yet"
"""The reason of an empty mask of a structure that its network never learned."""

NO_REFERENCE = "no reference of this structure"
"""The reason of a mask that an oracle cannot judge, since nobody contoured its structure in that case."""

NO_REGION = "no region on the segmenter's grid"
"""The reason of a mask so small that it only appears when a prediction is brought to the image's grid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingCase:
    """A case that a segmenter may learn from.

    Args:
        case_id: of the case.
        patient_id: cross-fitting keeps the cases of a patient together.
        image: path of the image.
        label_map: path of the annotation (uint8 NIfTI on the image's grid).
        annotated: structures that the label map answers for. The loss treats any other structure as
            unknown: its voxels may hide in what the label map calls background.
        pseudo: whether a model made the label map. Such cases measure nothing, and their share of a batch is
            limited.
        weights: structure -> how much its labels count in the loss, in (0, 1]; 1 where none is named.
        slabs: slices that the label map answers for; none: the whole case. The loss ignores other slices.
    """

    case_id: str
    patient_id: str
    image: Path
    label_map: Path
    annotated: frozenset[str]
    pseudo: bool = False
    weights: Mapping[str, float] = field(default_factory=dict, hash=False)
    slabs: tuple[Slab, ...] = ()

    def __post_init__(self) -> None:
        for name, weight in self.weights.items():
            if name not in self.annotated or not 0.0 < weight <= 1.0:
                raise DataError(
                    f"Training case {self.case_id} gives {name!r} the weight {weight}; expected above 0 and "
                    f"up to 1, for a structure that it annotates ({sorted(self.annotated)})"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Weights of a trained segmenter, and what made them.

    Args:
        path: of the weights (safetensors, or what the family writes).
        sha256: of that file.
        step: optimiser steps taken.
        structures: names of the trained structures, in the order of the network's channels (background
            first, not named).
    """

    path: Path
    sha256: str
    step: int
    structures: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A segmenter's label map of one case.

    Args:
        case_id: of the case.
        mask: path of the predicted label map (uint8 NIfTI on the image's own grid).
        checkpoint_sha256: of the weights that made it.
        voxels: structure -> number of predicted voxels.
        slices: structure -> number of axial slices (first array axis) with a predicted voxel.
        uncertainty: kind ("entropy", ...) -> structure -> value, higher is less certain; NaN where a
            structure was not predicted at all.
        features: what the segmenter made of the image, to tell how alike two cases are to it; empty for a
            family that does not say.
    """

    case_id: str
    mask: Path
    checkpoint_sha256: str
    voxels: Mapping[str, int] = field(default_factory=dict, hash=False)
    slices: Mapping[str, int] = field(default_factory=dict, hash=False)
    uncertainty: Mapping[str, Mapping[str, float]] = field(default_factory=dict, hash=False)
    features: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GradedMask:
    """A predicted label map of a labelled case, so that its true DSC is known: what a sentinel learns from.

    Args:
        case_id: of the case.
        patient_id: validation splits go by it.
        image: path of the image.
        mask: path of the predicted label map, from a model that did not see the case.
        reference: path of the annotation.
        evaluated: structures whose reference in this case is fit for a metric.
        source: what made the mask, for example "fold1/step200".
        slabs: slices that the reference answers for; none: the whole case. Only these count, in image, mask
            and reference alike.
    """

    case_id: str
    patient_id: str
    image: Path
    mask: Path
    reference: Path
    evaluated: frozenset[str]
    source: str
    slabs: tuple[Slab, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityScore:
    """An estimator's answer for one structure of one case. Higher is better.

    Args:
        case_id: of the case.
        structure: name.
        raw: the estimator's own value; it only ranks. NaN where there is nothing to score.
        predicted_dsc: in [0, 1] where the estimator is calibrated to DSC, else NaN.
        lower: lower bound of the DSC, NaN where not calibrated.
        upper: upper bound of the DSC, NaN where not calibrated.
        estimator: its name.
        reason: why there is no score ("empty mask"), else "".
        slice_indices: slices of the mask that were judged one by one, ascending from 0 along the first axis
            of the image as stored; none for an estimator that judges whole masks.
        slice_scores: value of each of these slices, of the same kind as `raw`.
    """

    case_id: str
    structure: str
    raw: float
    predicted_dsc: float = math.nan
    lower: float = math.nan
    upper: float = math.nan
    estimator: str
    reason: str = ""
    slice_indices: tuple[int, ...] = ()
    slice_scores: tuple[float, ...] = ()

    @property
    def missing(self) -> bool:
        """Whether the estimator gave no value."""
        return math.isnan(self.raw)
