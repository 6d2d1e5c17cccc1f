"""The steps of a round as functions from files to files. No Prefect, no MLflow, no ledger here."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd

from cohort.annotation import Annotation
from cohort.case import MIN_EVALUATED_FRACTION, Case, Structure
from cohort.metrics import dsc_per_structure
from cohort.records import GradedMask, Prediction, QualityScore, TrainingCase
from cohort.seeds import generator
from cohort.slabs import Slab, bounds, cropped
from cohort.volume import read_label_map, write_bytes
from flows.stages import json_sha256
from segmenters.base import Report
from segmenters.evaluation import StructureResult, evaluate_case

SCORES, RESULTS, RANKED = "scores.csv", "results.csv", "ranked.csv"
SLICE_SCORES = "slice_scores.csv"
_SLICE_FIELDS = ("slice_indices", "slice_scores")
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
            slabs=latest[case_id].slabs,
        )
        for case_id in sorted(latest)
    )


def training_set_version(annotations: Sequence[Annotation]) -> str:
    """Hash of what a segmenter learns from: cases, bytes of their annotations, structures and slabs."""
    return json_sha256(
        sorted([a.case_id, a.sha256, sorted(a.structures.items()), *bounds(a.slabs)] for a in annotations)
    )


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
            slabs=latest[prediction.case_id].slabs,
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
    """Write dataclasses as CSV, atomically; scores of slices have a table of their own."""
    table = pd.DataFrame([asdict(row) for row in rows])  # type: ignore[call-overload]
    table = table.drop(columns=[name for name in _SLICE_FIELDS if name in table])
    write_bytes(path, table.to_csv(index=False).encode())


def read_results(path: Path) -> tuple[StructureResult, ...]:
    """Read what `write_table` wrote of an evaluation."""
    return tuple(StructureResult(**row) for row in _rows(path))


def write_scores(folder: Path, scores: Sequence[QualityScore], *, by_slice: bool = False) -> None:
    """Write an estimator's scores, and those of single slices where they are asked for."""
    write_table(folder / SCORES, scores)
    if by_slice:
        table = [
            {"case_id": s.case_id, "structure": s.structure, "slice": index, "score": value}
            for s in scores
            for index, value in zip(s.slice_indices, s.slice_scores, strict=True)
        ]
        columns = ["case_id", "structure", "slice", "score"]
        data = pd.DataFrame(table, columns=columns).to_csv(index=False).encode()
        write_bytes(folder / SLICE_SCORES, data)


def read_scores(path: Path) -> tuple[QualityScore, ...]:
    """Read what `write_table` wrote of scores, and those of slices where they lie beside."""
    slices: dict[tuple[str, str], dict[int, float]] = {}
    beside = path.with_name(SLICE_SCORES)
    for row in _rows(beside) if beside.is_file() else ():
        slices.setdefault((row["case_id"], row["structure"]), {})[int(row["slice"])] = row["score"]
    found = [QualityScore(**row) for row in _rows(path)]
    own = [slices.get((score.case_id, score.structure), {}) for score in found]
    return tuple(
        replace(score, slice_indices=tuple(each), slice_scores=tuple(each.values())) if each else score
        for score, each in zip(found, own, strict=True)
    )


def revealed_dsc(
    annotations: Sequence[Annotation],
    predictions: Mapping[str, Path],
    structures: Sequence[Structure],
    slabs: Mapping[str, Sequence[Slab]] | None = None,
) -> dict[tuple[str, str], float]:
    """DSC of the masks that were scored, now that their annotation is back.

    Args:
        annotations: that are back.
        predictions: case id -> the mask that was scored.
        structures: of the campaign.
        slabs: case id -> slabs that were asked for, where only slabs were: DSC is measured in these alone.

    Returns:
        (case id, structure) -> DSC, for structures that were annotated, are mostly in the field of view and
        not empty.
    """
    found: dict[tuple[str, str], float] = {}
    for annotation in annotations:
        evaluated = _evaluated(annotation)
        asked = (slabs or {}).get(annotation.case_id, ())
        reference = cropped(read_label_map(annotation.path).array, asked)
        predicted = cropped(read_label_map(predictions[annotation.case_id]).array, asked)
        counted = [structure for structure in structures if structure.name in evaluated]
        for name, value in dsc_per_structure(predicted, reference, counted).items():
            if not math.isnan(value):
                found[annotation.case_id, name] = value
    return found


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
