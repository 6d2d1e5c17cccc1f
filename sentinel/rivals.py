"""What others say of the same masks: the segmenter's uncertainty, and a baseline that sees the mask alone."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from cohort.case import Structure
from cohort.metrics import dsc_per_structure
from cohort.records import GradedMask, Prediction
from cohort.slabs import within
from cohort.volume import read_label_map
from sentinel.calibration import Calibration
from sentinel.config import Report
from sentinel.evaluation import ScoredMask
from sentinel.mask_only import MaskOnlyBaseline, mask_features

Key = tuple[str, str, str]
"""Case id, source and structure of a mask."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedMask:
    """A mask's shape in numbers.

    Args:
        key: which mask.
        features: see `sentinel.mask_only.mask_features`.
        dsc: measured, NaN where the reference is empty.
    """

    key: Key
    features: tuple[float, ...]
    dsc: float


def rival_scores(
    scored: Sequence[ScoredMask], raw: Mapping[Key, float], calibration: Calibration | None = None
) -> tuple[ScoredMask, ...]:
    """The same masks with another estimator's values.

    Args:
        scored: masks with their true DSC.
        raw: the estimator's value of each, higher is better; NaN for an empty mask.
        calibration: of that estimator, None for none yet.
    """
    found = []
    for mask in scored:
        value = raw.get((mask.case_id, mask.source, mask.structure), math.nan)
        known = (calibration or Calibration()).apply(mask.structure, value)
        found.append(
            replace(
                mask,
                raw=value,
                predicted_dsc=known.predicted_dsc,
                lower=known.lower,
                upper=known.upper,
                slice_scores=(),
                slice_dsc=(),
            )
        )
    return tuple(found)


def uncertainty_values(
    graded: Sequence[GradedMask], predictions: Sequence[Prediction], kind: str
) -> dict[Key, float]:
    """The segmenter's uncertainty of masks, with its sign turned: higher is better.

    Args:
        graded: masks, for their sources.
        predictions: the same masks with their uncertainty.
        kind: "entropy", "mc_dropout" or "inconsistency".
    """
    sources = {(mask.case_id, mask.mask): mask.source for mask in graded}
    return {
        (prediction.case_id, sources[prediction.case_id, prediction.mask], structure): -value
        for prediction in predictions
        for structure, value in prediction.uncertainty.get(kind, {}).items()
        if prediction.voxels.get(structure, 0) > 0
    }


def describe_masks(
    graded: Sequence[GradedMask], structures: Sequence[Structure], report: Report | None = None
) -> tuple[DescribedMask, ...]:
    """Shapes of the masks that are not empty, of the structures that count.

    Raises:
        DataError, GeometryError: for a file that is missing, broken or on another grid.
    """
    found: list[DescribedMask] = []
    for done, mask in enumerate(graded, start=1):
        found.extend(_described(mask, structures))
        if report is not None:
            report(done, len(graded), {})
    return tuple(found)


def mask_only_values(
    learned: Sequence[DescribedMask], described: Sequence[DescribedMask]
) -> dict[Key, float]:
    """DSC that a model without the image predicts.

    Args:
        learned: masks to learn from; those without a DSC are left out.
        described: masks to predict.
    """
    usable = [mask for mask in learned if not math.isnan(mask.dsc)]
    model = MaskOnlyBaseline.fit(
        [mask.key[2] for mask in usable], [mask.features for mask in usable], [mask.dsc for mask in usable]
    )
    values = model.predict([mask.key[2] for mask in described], [mask.features for mask in described])
    return {mask.key: float(value) for mask, value in zip(described, values, strict=True)}


def _described(graded: GradedMask, structures: Sequence[Structure]) -> Iterator[DescribedMask]:
    predicted, reference = read_label_map(graded.mask), read_label_map(graded.reference)
    labels, true = (within(volume.array, 0, graded.slabs) for volume in (predicted, reference))
    asked = [structure for structure in structures if structure.name in graded.evaluated]
    dscs = dsc_per_structure(labels, true, asked)
    for structure in asked:
        voxels = labels == structure.label
        if voxels.any():
            yield DescribedMask(
                key=(graded.case_id, graded.source, structure.name),
                features=mask_features(voxels, predicted.spacing_mm),
                dsc=dscs[structure.name],
            )
