"""The pool as a strategy may see it, and as a table in the order of a selection."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from cohort.budget import Cost, CostModel, predicted_cost
from cohort.case import CaseView, Structure
from cohort.errors import SelectionError
from cohort.records import NO_REFERENCE, Prediction, QualityScore
from cohort.selection.base import Candidate, Selection
from flows.features import FeatureTable
from flows.requests import Unit
from flows.slab_candidates import SlabPool, slab_candidates

NO_FEATURES = FeatureTable()


def candidates(
    cases: Sequence[CaseView],
    predictions: Sequence[Prediction],
    scores: Sequence[QualityScore],
    structures: Sequence[Structure],
    costs: CostModel,
    *,
    unit: Unit = "case",
    asked: Mapping[str, Sequence[str]] | None = None,
    looks: FeatureTable = NO_FEATURES,
    slabs: SlabPool | None = None,
) -> tuple[Candidate, ...]:
    """What a strategy may know of each case of the pool, or of each structure or slab of it.

    Args:
        cases: of the pool.
        predictions: of these.
        scores: of the predictions; none for a strategy that needs none.
        structures: of the campaign.
        costs: estimates minutes.
        unit: what a candidate is.
        asked: case id -> structures that may be asked for, at least one; None: all of every case.
        looks: features of the cases, and which scans are broken.
        slabs: of the cases, for the unit "slices".

    Returns:
        For the unit "structure" without those that an oracle cannot judge, for "slices" without slabs that
        are annotated or far from what the model found.

    Raises:
        SelectionError: for the unit "slices" without `slabs`.
    """
    if unit == "slices" and slabs is None:
        raise SelectionError("Slabs are asked for, but nothing says where the model found what; pass slabs")
    usual = slabs.usual_sizes() if slabs is not None else {}
    by_case: dict[str, dict[str, QualityScore]] = {case.case_id: {} for case in cases}
    for score in scores:
        if score.reason != NO_REFERENCE:  # an oracle's "unknown" must not look like a mask that was missed
            by_case[score.case_id][score.structure] = score
    found = {p.case_id: p for p in predictions}
    sized = {p.case_id: p for p in expected_sizes(predictions, structures)}
    pool: list[Candidate] = []
    for case in cases:
        names = None if asked is None else set(asked[case.case_id])
        wanted = [s for s in structures if names is None or s.name in names]
        judged = {s.name: by_case[case.case_id][s.name] for s in wanted if s.name in by_case[case.case_id]}
        whole = replace(
            _candidate(case, found[case.case_id], wanted, judged),
            features=looks.rows.get(case.case_id),
            broken=looks.broken.get(case.case_id, ""),
        )
        if slabs is not None:
            pool.extend(slab_candidates(whole, judged, slabs, usual, costs))
        elif unit == "case":
            pool.append(replace(whole, cost=predicted_cost(sized[case.case_id], wanted, costs)))
        else:
            parts = [s for s in wanted if s.name in judged or not scores]
            pool.extend(_part(whole, sized[case.case_id], structure, costs) for structure in parts)
    return tuple(pool)


def _candidate(
    case: CaseView,
    prediction: Prediction,
    structures: Sequence[Structure],
    scores: Mapping[str, QualityScore],
) -> Candidate:
    voxel_ml = math.prod(case.spacing_mm) / 1000.0
    return Candidate(
        case_id=case.case_id,
        patient_id=case.patient_id,
        structures=tuple(s.name for s in structures),
        scores={name: score.raw for name, score in scores.items()},
        missing={name: score.reason for name, score in scores.items() if score.missing},
        volumes_ml={s.name: prediction.voxels.get(s.name, 0) * voxel_ml for s in structures},
        cost=Cost.zero(),
    )


def _part(whole: Candidate, sized: Prediction, structure: Structure, costs: CostModel) -> Candidate:
    """One structure of a case; opening the case is paid once a round."""
    name = structure.name
    beside = predicted_cost(sized, (structure,), replace(costs, minutes_per_case=0.0))
    return replace(
        whole,
        part=name,
        structures=(name,),
        scores={name: whole.scores[name]} if name in whole.scores else {},
        missing={name: whole.missing[name]} if name in whole.missing else {},
        volumes_ml={name: whole.volumes_ml[name]},
        cost=predicted_cost(sized, (structure,), costs),
        further=replace(beside, cases=0.0),
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
    """The pool in the order of the selection, with each structure's predicted quality.

    Returns:
        Columns "rank", "case_id", "part" (the structure or slab where one is the unit of selection),
        "priority", "selected", "guard" (why a candidate was held back), and one for each structure.
    """
    quality: dict[str, dict[str, float]] = {}
    for score in scores:
        quality.setdefault(score.case_id, {})[score.structure] = (
            score.raw if math.isnan(score.predicted_dsc) else score.predicted_dsc
        )
    first = ["rank", "case_id", "part", "priority", "selected", "guard"]
    rows = [
        {
            **{s.name: quality.get(ranked.case_id, {}).get(s.name, math.nan) for s in structures},
            **{name: getattr(ranked, name) for name in first},
        }
        for ranked in selection.ranked
    ]
    table = pd.DataFrame(rows)
    return table[first + [name for name in table.columns if name not in first]]
