"""The steps of a round as functions from files to files. No Prefect, no MLflow, no ledger here."""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cohort.agreement import agreement
from cohort.annotation import Annotation
from cohort.budget import CostModel, predicted_cost
from cohort.case import MIN_EVALUATED_FRACTION, Case, CaseView, Structure
from cohort.metrics import dsc_per_structure
from cohort.records import NO_REFERENCE, GradedMask, Prediction, QualityScore, TrainingCase
from cohort.seeds import generator
from cohort.selection.base import Candidate, Selection
from cohort.volume import read_label_map, write_bytes
from flows.stages import json_sha256
from segmenters.base import Report
from segmenters.evaluation import StructureResult, evaluate_case

SCORES, RESULTS, RANKED = "scores.csv", "results.csv", "ranked.csv"
_TEXT = frozenset({"case_id", "structure", "estimator", "reason"})


def training_cases(annotations: Sequence[Annotation], by_id: Mapping[str, Case]) -> tuple[TrainingCase, ...]:
    """The labelled cases, as a segmenter takes them, in the order of their ids."""
    latest = {annotation.case_id: annotation for annotation in annotations}
    return tuple(
        TrainingCase(
            case_id=case_id,
            patient_id=by_id[case_id].patient_id,
            image=by_id[case_id].image,
            label_map=latest[case_id].path,
            annotated=frozenset(latest[case_id].structures),
        )
        for case_id in sorted(latest)
    )


def training_set_version(annotations: Sequence[Annotation]) -> str:
    """Hash of what a segmenter learns from: cases, the bytes of their annotations, and their structures."""
    return json_sha256(sorted([a.case_id, a.sha256, sorted(a.structures.items())] for a in annotations))


def unseen_structures(annotations: Sequence[Annotation], structures: Sequence[Structure]) -> list[str]:
    """Structures that no labelled case has yet."""
    seen = {name for annotation in annotations for name in annotation.structures}
    return [structure.name for structure in structures if structure.name not in seen]


def folds(cases: Sequence[TrainingCase], count: int, seed: int) -> list[tuple[str, ...]]:
    """Split the labelled cases into folds, the cases of a patient together.

    Returns:
        The case ids that each fold leaves out; as many folds as `count`, or as there are patients.
    """
    patients = sorted({case.patient_id for case in cases})
    order = generator(seed, "folds").permutation(len(patients))
    number = min(count, len(patients))
    fold_of = {patients[index]: position % number for position, index in enumerate(order)}
    return [
        tuple(case.case_id for case in cases if fold_of[case.patient_id] == fold) for fold in range(number)
    ]


def graded_masks(
    predictions: Sequence[Prediction],
    annotations: Sequence[Annotation],
    by_id: Mapping[str, Case],
    source: str,
) -> tuple[GradedMask, ...]:
    """Predictions of labelled cases beside what was annotated in them."""
    latest = {annotation.case_id: annotation for annotation in annotations}
    return tuple(
        GradedMask(
            case_id=prediction.case_id,
            patient_id=by_id[prediction.case_id].patient_id,
            image=by_id[prediction.case_id].image,
            mask=prediction.mask,
            reference=latest[prediction.case_id].path,
            evaluated=_evaluated(latest[prediction.case_id]),
            source=source,
        )
        for prediction in predictions
    )


def evaluate(
    cases: Sequence[Case],
    masks: Mapping[str, Path],
    structures: Sequence[Structure],
    tolerance_mm: float | Mapping[str, float],
    report: Report,
) -> tuple[StructureResult, ...]:
    """DSC and NSD of predicted label maps against the references of their cases."""
    results: list[StructureResult] = []
    for done, case in enumerate(cases, start=1):
        results.extend(evaluate_case(case, masks[case.case_id], structures, tolerance_mm=tolerance_mm))
        report(done, len(cases), {})
    return tuple(results)


def write_table(path: Path, rows: Sequence[object]) -> None:
    """Write dataclasses as CSV, atomically."""
    table = pd.DataFrame([asdict(row) for row in rows])  # type: ignore[call-overload]
    write_bytes(path, table.to_csv(index=False).encode())


def read_results(path: Path) -> tuple[StructureResult, ...]:
    """Read what `write_table` wrote of an evaluation."""
    return tuple(StructureResult(**row) for row in _rows(path))


def read_scores(path: Path) -> tuple[QualityScore, ...]:
    """Read what `write_table` wrote of an estimator's scores."""
    return tuple(QualityScore(**row) for row in _rows(path))


def candidates(
    cases: Sequence[CaseView],
    predictions: Sequence[Prediction],
    scores: Sequence[QualityScore],
    structures: Sequence[Structure],
    costs: CostModel,
) -> tuple[Candidate, ...]:
    """What a strategy may know of each case of the pool."""
    by_case: dict[str, dict[str, float]] = {case.case_id: {} for case in cases}
    for score in scores:
        if score.reason != NO_REFERENCE:  # an oracle's "unknown" must not look like a mask that was missed
            by_case[score.case_id][score.structure] = score.raw
    predicted = {p.case_id: p for p in expected_sizes(predictions, structures)}
    return tuple(
        Candidate(
            case_id=case.case_id,
            patient_id=case.patient_id,
            scores=by_case[case.case_id],
            cost=predicted_cost(predicted[case.case_id], structures, costs),
        )
        for case in cases
    )


def expected_sizes(
    predictions: Sequence[Prediction], structures: Sequence[Structure]
) -> tuple[Prediction, ...]:
    """Predictions as the budget should see them: a mask that was missed will not be free to annotate.

    Returns:
        The predictions, with the median size over the masks that are not empty in place of an empty one.
    """

    def filled(counts: Mapping[str, int], medians: Mapping[str, int]) -> dict[str, int]:
        return {name: counts.get(name, 0) or median for name, median in medians.items()}

    voxels = {s.name: _median(p.voxels.get(s.name, 0) for p in predictions) for s in structures}
    slices = {s.name: _median(p.slices.get(s.name, 0) for p in predictions) for s in structures}
    return tuple(
        replace(p, voxels=filled(p.voxels, voxels), slices=filled(p.slices, slices)) for p in predictions
    )


def _median(counts: Iterable[int]) -> int:
    found = [count for count in counts if count > 0]
    return int(np.median(found)) if found else 1


def ranked_table(
    selection: Selection, scores: Sequence[QualityScore], structures: Sequence[Structure]
) -> pd.DataFrame:
    """The pool in the order of the selection, with each structure's predicted quality."""
    quality: dict[str, dict[str, float]] = {}
    for score in scores:
        quality.setdefault(score.case_id, {})[score.structure] = (
            score.raw if math.isnan(score.predicted_dsc) else score.predicted_dsc
        )
    selected = set(selection.selected)
    rows = [
        {
            **{s.name: quality.get(ranked.case_id, {}).get(s.name, math.nan) for s in structures},
            "rank": ranked.rank,
            "case_id": ranked.case_id,
            "priority": ranked.priority,
            "selected": ranked.case_id in selected,
        }
        for ranked in selection.ranked
    ]
    table = pd.DataFrame(rows)
    first = ["rank", "case_id", "priority", "selected"]
    return table[first + [name for name in table.columns if name not in first]]


def revealed_dsc(
    annotations: Sequence[Annotation], predictions: Mapping[str, Path], structures: Sequence[Structure]
) -> dict[tuple[str, str], float]:
    """DSC of the masks that were scored, now that their annotation is back.

    Returns:
        (case id, structure) -> DSC, for structures that were annotated, are mostly in the field of view and
        not empty.
    """
    found: dict[tuple[str, str], float] = {}
    for annotation in annotations:
        evaluated = _evaluated(annotation)
        reference = read_label_map(annotation.path).array
        predicted = read_label_map(predictions[annotation.case_id]).array
        counted = [structure for structure in structures if structure.name in evaluated]
        for name, value in dsc_per_structure(predicted, reference, counted).items():
            if not math.isnan(value):
                found[annotation.case_id, name] = value
    return found


def estimator_trial(
    scores: Sequence[QualityScore], revealed: Mapping[tuple[str, str], float]
) -> dict[str, float | int | None]:
    """How well an estimator's values agreed with the DSC that annotation revealed.

    Returns:
        "pearson" and "spearman" of the value that ranked, "mae" where the estimator predicts a DSC, "n" the
        number of masks and "missing" the number without a score; None where not defined.
    """
    pairs = [
        (score, revealed[score.case_id, score.structure])
        for score in scores
        if (score.case_id, score.structure) in revealed
    ]
    scored = [(score, true) for score, true in pairs if not score.missing]
    raw = np.array([score.raw for score, _ in scored])
    true = np.array([value for _, value in scored])
    predicted = np.array([score.predicted_dsc for score, _ in scored])
    found = agreement(raw, predicted, true)
    return {**found, "n": len(scored), "missing": len(pairs) - len(scored)}


def _evaluated(annotation: Annotation) -> frozenset[str]:
    return frozenset(
        name for name, fraction in annotation.structures.items() if fraction >= MIN_EVALUATED_FRACTION
    )


def _rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a table that `write_table` wrote: exact numbers (NaN where empty), and text as it was."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            {key: value if key in _TEXT else float(value or "nan") for key, value in row.items()}
            for row in csv.DictReader(file)
        ]
