"""A sentinel's scores of masks whose true DSC is known, for calibration and evaluation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cohort.case import Structure
from cohort.metrics import dsc_per_structure
from cohort.records import GradedMask
from cohort.slabs import within
from cohort.volume import Volume, check_same_grid, read_image, read_label_map
from sentinel.calibration import Observation
from sentinel.config import Report
from sentinel.evaluation import ScoredMask
from sentinel.planning import CaseMasks
from sentinel.scoring import MaskScore, Sentinel
from sentinel.slices import Mask, oriented


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Known:
    """What is known of one mask beside its score."""

    graded: GradedMask
    structure: str
    dsc: float
    slice_dsc: NDArray[np.float64]


def score_graded(
    graded: Sequence[GradedMask],
    structures: Sequence[Structure],
    sentinel: Sentinel,
    *,
    group: str = "",
    report: Report | None = None,
) -> tuple[ScoredMask, ...]:
    """Score masks beside their true DSC.

    Args:
        graded: masks of labelled cases; only the structures in `evaluated` count.
        structures: of the label maps.
        sentinel: to score with.
        group: name of where the masks come from, such as the architecture.
        report: told of the label maps done.

    Returns:
        One per mask, by case, source and structure. Structures whose reference is empty are left out; an
        empty mask has the score NaN and the DSC 0.

    Raises:
        DataError, GeometryError: for a file that is missing, broken or on another grid.
        ModelError: for a structure that the sentinel was not trained for.
    """
    known: list[list[_Known]] = []

    def scenes() -> Iterator[CaseMasks]:
        image: Volume | None = None
        before = ""
        for done, mask in enumerate(ordered, start=1):
            if image is None or mask.case_id != before:
                image, before = read_image(mask.image), mask.case_id
            masks, facts = _masks(mask, image, structures, sentinel.config.orientation)
            known.append(facts)
            yield image, masks
            if report is not None:
                report(done, len(ordered), {})

    ordered = sorted(graded, key=lambda mask: (mask.case_id, mask.source))
    found: list[ScoredMask] = []
    for number, scores in enumerate(sentinel.score_stream(scenes())):
        found.extend(_scored(fact, score, group) for fact, score in zip(known[number], scores, strict=True))
        known[number] = []
    return tuple(found)


def observations(scored: Sequence[ScoredMask]) -> tuple[Observation, ...]:
    """What a calibration learns from; empty masks have no score and are left out."""
    return tuple(
        Observation(patient_id=mask.patient_id, structure=mask.structure, raw=mask.raw, dsc=mask.dsc)
        for mask in scored
        if not np.isnan(mask.raw)
    )


def _masks(
    graded: GradedMask, image: Volume, structures: Sequence[Structure], orientation: str
) -> tuple[dict[str, Mask], list[_Known]]:
    predicted, reference = read_label_map(graded.mask), read_label_map(graded.reference)
    check_same_grid(image, predicted, graded.image, graded.mask)
    check_same_grid(image, reference, graded.image, graded.reference)
    labels, true = (within(volume.array, 0, graded.slabs) for volume in (predicted, reference))
    asked = [structure for structure in structures if structure.name in graded.evaluated]
    dscs = dsc_per_structure(labels, true, asked)
    masks: dict[str, Mask] = {}
    facts: list[_Known] = []
    turned = [
        oriented(Volume(array=array, affine=image.affine), orientation).array for array in (labels, true)
    ]
    for structure in asked:
        dsc = float(dscs[structure.name])
        if np.isnan(dsc):
            continue
        masks[structure.name] = labels == structure.label
        slice_dsc = _slice_dsc(turned[0] == structure.label, turned[1] == structure.label)
        facts.append(_Known(graded=graded, structure=structure.name, dsc=dsc, slice_dsc=slice_dsc))
    return masks, facts


def _slice_dsc(predicted: Mask, reference: Mask) -> NDArray[np.float64]:
    """DSC of every slice, NaN where both are empty."""
    overlap = (predicted & reference).sum(axis=(1, 2))
    size = predicted.sum(axis=(1, 2)) + reference.sum(axis=(1, 2))
    return np.where(size > 0, 2.0 * overlap / np.maximum(size, 1), np.nan)


def _scored(known: _Known, score: MaskScore, group: str) -> ScoredMask:
    return ScoredMask(
        case_id=known.graded.case_id,
        patient_id=known.graded.patient_id,
        structure=known.structure,
        source=known.graded.source,
        raw=score.raw,
        predicted_dsc=min(1.0, max(0.0, score.predicted_dsc)) if score.slice_scores else score.predicted_dsc,
        lower=score.lower,
        upper=score.upper,
        dsc=known.dsc,
        slice_scores=score.slice_scores,
        slice_dsc=tuple(float(known.slice_dsc[index]) for index in score.slice_indices),
        group=group,
    )
