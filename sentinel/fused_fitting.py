"""Fits the fused estimator on cross-fitted masks of labelled cases; no part judges what it learned from."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cohort.case import CaseView, Structure
from cohort.metrics import dsc_per_structure
from cohort.records import GradedMask, Prediction, TrainingCase
from cohort.seeds import generator
from cohort.volume import read_label_map
from sentinel.calibration import LEVEL, Observation, fit_calibration
from sentinel.config import Report
from sentinel.estimators.fused import FusedEstimator, VolumeRange, evidence
from sentinel.fusion import FusionRow, cross_validated, fit_fusion
from sentinel.scoring import Sentinel

SENTINELS = 3
"""Sentinels that each leave a part of the labelled patients out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossFittedMask:
    """A label map of a labelled case by a model that did not learn from it.

    Args:
        graded: the label map beside its reference; masks of one `source`, of the same split of the labelled
            cases, are compared with each other.
        view: of the case.
        prediction: the same label map with its uncertainty.
    """

    graded: GradedMask
    view: CaseView
    prediction: Prediction


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PartialSentinel:
    """A sentinel that left some patients out.

    Args:
        left_out: ids of the patients that taught it nothing.
        sentinel: trained.
    """

    left_out: frozenset[str]
    sentinel: Sentinel


def patients_left_out(patient_ids: Sequence[str], seed: int) -> list[frozenset[str]]:
    """Which patients each of the sentinels leaves out: every patient once.

    Args:
        patient_ids: in any order, repeated or not.
        seed: of the choice.

    >>> [len(left_out) for left_out in patients_left_out(["a", "b", "c", "d", "a"], 0)]
    [2, 1, 1]
    """
    patients = sorted(set(patient_ids))
    order = generator(seed, "fused", "patients").permutation(len(patients))
    number = min(SENTINELS, len(patients))
    return [
        frozenset(patients[int(index)] for position, index in enumerate(order) if position % number == part)
        for part in range(number)
    ]


def usual_volumes(cases: Sequence[TrainingCase], structures: Sequence[Structure]) -> dict[str, VolumeRange]:
    """How large each structure is in the labelled cases; structures that none of them has are left out.

    Cases of which only some slices are annotated do not tell.
    """
    sizes: dict[str, list[float]] = {}
    for case in (case for case in cases if not case.slabs):
        labels = read_label_map(case.label_map)
        counts = np.bincount(labels.array.ravel(), minlength=256)
        for structure in structures:
            if structure.name in case.annotated and counts[structure.label]:
                volume_mm3 = float(counts[structure.label]) * math.prod(labels.spacing_mm)
                sizes.setdefault(structure.name, []).append(volume_mm3)
    return {name: VolumeRange.of(found) for name, found in sizes.items()}


def fusion_rows(
    masks: Sequence[CrossFittedMask],
    structures: Sequence[Structure],
    sentinels: Sequence[PartialSentinel],
    cases: Sequence[TrainingCase],
    report: Report | None = None,
) -> tuple[FusionRow, ...]:
    """Cross-fitted masks with what is known of them from other patients alone.

    Args:
        masks: of labelled cases.
        structures: of the label maps.
        sentinels: each judges the masks of the patients that it left out.
        cases: labelled, for how large structures usually are in other patients.
        report: told of the parts done.

    Raises:
        DataError, GeometryError: for a file that is missing, broken or on another grid.
    """
    rows: list[FusionRow] = []
    sources = sorted({mask.graded.source for mask in masks})
    for done, (part, source) in enumerate(((p, s) for p in sentinels for s in sources), start=1):
        volumes = usual_volumes([c for c in cases if c.patient_id not in part.left_out], structures)
        own = [m for m in masks if m.graded.source == source and m.graded.patient_id in part.left_out]
        known = evidence(
            [mask.view for mask in own],
            [mask.prediction for mask in own],
            structures,
            [part.sentinel],
            volumes,
        )
        for mask in own:
            for name, dsc in _true_dsc(mask.graded, structures).items():
                features = known.get((mask.graded.case_id, name))
                if features is not None and not math.isnan(dsc):
                    rows.append(
                        FusionRow(
                            patient_id=mask.graded.patient_id,
                            structure=name,
                            source=source,
                            features=features,
                            dsc=dsc,
                        )
                    )
        if report is not None:
            report(done, len(sentinels) * len(sources), {})
    return tuple(rows)


def fit_fused(
    masks: Sequence[CrossFittedMask],
    structures: Sequence[Structure],
    sentinels: Sequence[PartialSentinel],
    cases: Sequence[TrainingCase],
    *,
    level: float = LEVEL,
    seed: int = 0,
    report: Report | None = None,
) -> FusedEstimator:
    """Fit fusion and calibration.

    Args:
        masks: of labelled cases by models that did not learn from them.
        structures: of the label maps.
        sentinels: each judges the masks of the patients that it left out; all of them judge new masks.
        cases: labelled, for how large structures usually are.
        level: of the bounds.
        seed: of the folds.
        report: told of the parts done.

    Raises:
        DataError, GeometryError: for a file that is missing, broken or on another grid.
        ModelError: for too few masks or patients.
    """
    rows = fusion_rows(masks, structures, sentinels, cases, report)
    values = cross_validated(rows)
    observed = [
        Observation(patient_id=row.patient_id, structure=row.structure, raw=value, dsc=row.dsc)
        for row, value in zip(rows, values, strict=True)
    ]
    return FusedEstimator(
        fusion=fit_fusion(rows),
        sentinels=tuple(part.sentinel for part in sentinels),
        volumes=usual_volumes(cases, structures),
        calibration=fit_calibration(observed, level=level, seed=seed),
    )


def _true_dsc(graded: GradedMask, structures: Sequence[Structure]) -> dict[str, float]:
    asked = [structure for structure in structures if structure.name in graded.evaluated]
    predicted, reference = read_label_map(graded.mask), read_label_map(graded.reference)
    return dsc_per_structure(predicted.array, reference.array, asked)
