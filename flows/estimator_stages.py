"""The stages that score the pool: what the estimator has to learn first, and its scores."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from cohort.case import Case
from cohort.records import Prediction, QualityScore
from flows import rounds, tasks
from flows.fused_stages import FusedStages
from flows.round_stages import CrossFit, RoundStages
from flows.stages import file_sha256, json_sha256, read_json, run_stage
from sentinel.estimators.fused import FusedEstimator
from sentinel.estimators.oracle import Reference, References
from sentinel.estimators.registry import Learned, build_estimator, estimator_entry
from sentinel.scoring import Sentinel


def score_pool(
    stages: RoundStages,
    cases: Sequence[Case],
    predictions: Sequence[Prediction],
    name: str | None,
    *,
    taught: RoundStages | None = None,
    sentinel: Path | None = None,
) -> tuple[QualityScore, ...]:
    """An estimator's scores of the pool's masks.

    Args:
        stages: of the round.
        cases: of the pool.
        predictions: their masks.
        name: of the estimator; None gives no scores.
        taught: the round whose labelled cases the estimator learned from, None for this one.
        sentinel: file of a trained sentinel, in place of one that learns here.
    """
    if name is None or not cases:
        return ()
    learns, taught = estimator_entry(name).learns, taught or stages
    by_slice = stages.config.unit == "slices"
    learned = learned_files(name, taught, sentinel=sentinel)
    if learns == "fused":
        fused, fits = _fused(taught)
        predictions = fused.with_members(cases, predictions, fits)
    references = _references(cases) if estimator_entry(name).reads_references else None
    inputs = {
        "estimator": name,
        "learned": [file_sha256(path) for path in learned],
        "masks": {p.case_id: [file_sha256(p.mask), json_sha256(p.uncertainty)] for p in predictions},
        "images": {case.case_id: stages.fingerprints[case.case_id] for case in cases},
        "structures": [asdict(structure) for structure in stages.structures],
        **({"by_slice": True} if by_slice else {}),
    }

    def make(folder: Path) -> None:
        estimator = build_estimator(name, references or load_learned(learns, learned))
        views = [case.view() for case in cases]
        with stages.step("score the pool") as report:
            scores = tasks.score(estimator, views, predictions, stages.structures, report=report)
        rounds.write_scores(folder, scores, by_slice=by_slice)

    stage = "score" if name == stages.config.estimator_name else f"score-{name}"
    return rounds.read_scores(run_stage(stages.folder, stage, inputs, make) / rounds.SCORES)


def _references(cases: Sequence[Case]) -> References:
    """What an oracle reads; the scores' inputs hold the hashes of these files as the cases' fingerprints."""
    return References(
        by_case={
            case.case_id: Reference(path=case.reference, evaluated=case.evaluated)
            for case in cases
            if case.reference is not None
        }
    )


def learned_files(name: str, taught: RoundStages, *, sentinel: Path | None = None) -> tuple[Path, ...]:
    """Files of what an estimator learned from the labelled cases of a round; it learns unless they are there.

    Args:
        name: of the estimator.
        taught: the round whose labelled cases it learns from.
        sentinel: file of a trained sentinel, in place of one that learns.
    """
    if sentinel is not None:
        return (sentinel,)
    learns = estimator_entry(name).learns
    if learns == "sentinel":
        return (taught.train_sentinel([mask for fit in taught.cross_fit() for mask in fit.graded]),)
    if learns == "fused":
        fused, fits = _fused(taught)
        return fused.fit(fits)
    return ()


def _fused(taught: RoundStages) -> tuple[FusedStages, tuple[CrossFit, ...]]:
    kinds = tuple(sorted(estimator_entry("fused").needs))
    return FusedStages(round=taught), taught.cross_fit(kinds)


def load_learned(learns: str, files: Sequence[Path]) -> Learned:
    """What an estimator learned, from its files."""
    if learns == "fused":
        return FusedEstimator.from_dict(read_json(files[0]), [Sentinel.load(path) for path in files[1:]])
    return Sentinel.load(files[0]) if files else None
