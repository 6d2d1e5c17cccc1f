"""The filter on trial: what it kept against what references say of all masks; nothing learns from it."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from cohort.case import Case, Structure
from cohort.filtering import Verdict, filter_masks, make_filter
from cohort.filtering.base import ABSENT
from cohort.filtering.fraction import RandomFraction, TopFraction
from cohort.filtering.outcome import outcome, outcomes
from cohort.filtering.registry import FilterSettings
from cohort.metrics import dsc_per_structure
from cohort.records import EMPTY_MASK, Prediction, QualityScore
from cohort.trial import revealed_masks, verdict
from cohort.volume import check_same_grid, read_label_map, write_bytes
from flows.filter_config import PseudoLabelsModel
from segmenters.base import Report

Dscs = Mapping[tuple[str, str], float]
Alike = Literal["structure", "all"]
ORACLE, RANDOM = "oracle", "random"
"""Bounds that are always shown beside: perfect knowledge, and none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskDsc:
    """The true DSC of one mask: 0 for voxels of what is not there, NaN where mask and reference are empty."""

    case_id: str
    structure: str
    dsc: float


def measure_masks(
    cases: Sequence[Case], predictions: Sequence[Prediction], structures: Sequence[Structure], report: Report
) -> tuple[MaskDsc, ...]:
    """DSC of masks against references, of the cases that have one; for the books alone.

    Raises:
        DataError, GeometryError: for a file that is missing, broken or on another grid.
    """
    masks = {prediction.case_id: prediction.mask for prediction in predictions}
    found: list[MaskDsc] = []
    for done, case in enumerate(cases, start=1):
        if case.reference is not None:
            path = masks[case.case_id]
            predicted, reference = read_label_map(path), read_label_map(case.reference)
            check_same_grid(reference, predicted, case.reference, path)
            counted = [structure for structure in structures if structure.name in case.evaluated]
            dscs = dsc_per_structure(predicted.array, reference.array, counted)
            invented = {
                s.name for s in counted if math.isnan(dscs[s.name]) and (predicted.array == s.label).any()
            }
            found.extend(
                MaskDsc(case_id=case.case_id, structure=name, dsc=0.0 if name in invented else value)
                for name, value in dscs.items()
            )
        report(done, len(cases), {})
    return tuple(found)


def read_dscs(path: Path) -> dict[tuple[str, str], float]:
    """(case id, structure) -> DSC of a table of `MaskDsc`; those without one are left out."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [(row["case_id"], row["structure"], row["dsc"]) for row in csv.DictReader(file)]
    return {(case_id, structure): float(dsc) for case_id, structure, dsc in rows if dsc}


def trial(
    settings: PseudoLabelsModel,
    structures: Sequence[str],
    verdicts: Sequence[Verdict],
    plain: Sequence[QualityScore],
    scores: Mapping[str, Sequence[QualityScore]],
    dscs: Dscs,
    *,
    round: int,
    seed: int,
) -> dict[str, Any]:
    """What the ledger keeps of a filter's trial.

    Args:
        settings: of the filter.
        structures: names.
        verdicts: of the filter.
        plain: the masks that the filter could keep, without a value.
        scores: estimator -> its scores of the same masks, of the filter's own and of its rivals.
        dscs: true ones, where known.
        round: or generation.
        seed: of the campaign.

    Returns:
        "estimator" (as in a campaign, of the filter's own), "filter" and "filter_per_structure"
        (`cohort.filtering.outcome`), and "rivals": name -> both of a filter that keeps as many masks by that
        estimator; "random" and, where all is known, "oracle" among them. "alike" says whether that is as many
        of each "structure", or in "all", where that is what the filter decides.
    """
    own, alike = settings.filter.estimator_name, _alike(settings)
    cases = {mask.case_id: mask.case_id for mask in plain}  # no test asks for patients

    def agreement(judged: Sequence[QualityScore]) -> dict[str, float | int | None]:
        return verdict(revealed_masks(judged, dscs, cases, round))

    return {
        "estimator": agreement(scores[own]) if own and dscs else {},
        "good_dsc": settings.good_dsc,
        "filter": outcome(verdicts, dscs, good_dsc=settings.good_dsc),
        "filter_per_structure": outcomes(verdicts, dscs, structures, good_dsc=settings.good_dsc),
        "alike": alike,
        "rivals": {
            name: {
                "estimator": agreement(judged) if dscs and name != RANDOM else {},
                "filter": outcome(
                    _keep_alike(name, judged, verdicts, alike, round, seed), dscs, good_dsc=settings.good_dsc
                ),
            }
            for name, judged in {**scores, **bounds(plain, dscs)}.items()
        },
    }


def retention(
    scores: Mapping[str, Sequence[QualityScore]], dscs: Dscs, keeps: Sequence[float]
) -> dict[str, list[float]]:
    """Mean true DSC of what is kept over the fraction that is kept of each structure, for each estimator.

    For a random part that is what is expected of it, whatever the fraction.
    """
    return {
        name: [_kept_dsc(judged, dscs, 1.0 if name == RANDOM else keep, name) for keep in keeps]
        for name, judged in scores.items()
    }


def _kept_dsc(scores: Sequence[QualityScore], dscs: Dscs, keep: float, name: str) -> float:
    rule = RandomFraction(keep=keep) if name == RANDOM else TopFraction(keep=keep)
    found = outcome(filter_masks(rule, scores, round=0, seed=0), dscs, good_dsc=0.5)["dsc_kept"]
    return math.nan if found is None else found


def write_judged(
    path: Path, verdicts: Sequence[Verdict], scores: Mapping[str, Sequence[QualityScore]], dscs: Dscs
) -> None:
    """A table of every mask: verdict, all estimators' values, true DSC where known."""
    table = pd.DataFrame([asdict(verdict) for verdict in verdicts])
    for name, judged in scores.items():
        values = {(s.case_id, s.structure): s.raw for s in judged}
        table[f"raw_{name}"] = [values.get(key, math.nan) for key in _keys(table)]
    table["dsc"] = [dscs.get(key, math.nan) for key in _keys(table)]
    write_bytes(path, table.to_csv(index=False).encode())


def _keys(table: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(table["case_id"], table["structure"], strict=True))


def _keep_alike(
    name: str,
    scores: Sequence[QualityScore],
    verdicts: Sequence[Verdict],
    alike: Alike,
    round: int,
    seed: int,
) -> tuple[Verdict, ...]:
    """As many masks as a filter kept, of each structure or in all, by another estimator.

    Fewer where it judges fewer.
    """
    kind = "random" if name == RANDOM else "top_fraction"
    groups = sorted({score.structure for score in scores}) if alike == "structure" else [None]
    found: list[Verdict] = []
    for group in groups:
        own = [score for score in scores if group in (None, score.structure)]
        wanted = sum(v.kept for v in verdicts if group in (None, v.structure) and v.reason != ABSENT)
        judged = sum(s.reason != EMPTY_MASK and (name == RANDOM or not math.isnan(s.raw)) for s in own)
        keep = min(1.0, wanted / judged) if judged else 1.0
        rule = make_filter(FilterSettings(kind=kind, keep=keep or 1.0, per=alike))
        made = filter_masks(rule, own, round=round, seed=seed)
        found.extend(made if keep else (replace(v, weight=0.0) for v in made))
    return tuple(found)


def _alike(settings: PseudoLabelsModel) -> Alike:
    """Whether a filter decides how many masks of each structure it keeps, or how many in all."""
    filter_ = settings.filter
    by_value = filter_.kind in ("threshold", "lower_bound")
    return "all" if by_value or filter_.per == "all" else "structure"


def bounds(plain: Sequence[QualityScore], dscs: Dscs) -> dict[str, tuple[QualityScore, ...]]:
    """What no knowledge would say of the masks, and what perfect knowledge would, where it is known.

    Args:
        plain: the masks that a filter may keep, without a value.
        dscs: true ones, where known.
    """
    none = {RANDOM: tuple(plain)}
    return {**none, ORACLE: oracle_scores(plain, dscs)} if dscs else none


def oracle_scores(masks: Sequence[QualityScore], dscs: Dscs) -> tuple[QualityScore, ...]:
    """What an estimator would say that reads references: the true DSC; nothing where it is not known."""
    return tuple(
        QualityScore(
            case_id=mask.case_id,
            structure=mask.structure,
            raw=math.nan if mask.reason == EMPTY_MASK else dscs.get((mask.case_id, mask.structure), math.nan),
            estimator=ORACLE,
            reason=mask.reason,
        )
        for mask in masks
    )
