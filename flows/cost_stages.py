"""The stages that measure what estimating quality costs."""

from collections.abc import Sequence
from pathlib import Path

from cohort.case import CaseView
from cohort.records import Prediction
from flows.environment import use_threads
from flows.estimator_stages import learned_files
from flows.quality_cost import SEGMENTATION, CostJob, QualityCost, learning_seconds, measure_apart, read_cost
from flows.round_stages import RoundStages
from flows.stages import file_sha256, run_stage
from sentinel.estimators.registry import estimator_entry

COST = "cost.json"


def measure_cost(
    stages: RoundStages,
    cases: Sequence[CaseView],
    predictions: Sequence[Prediction],
    name: str,
    *,
    sentinel: Path | None = None,
) -> QualityCost:
    """What judging some masks takes, measured once.

    Args:
        stages: of the round whose segmenter made the masks.
        cases: to judge.
        predictions: their masks.
        name: of the estimator, or `SEGMENTATION`.
        sentinel: file of a trained sentinel, in place of one that learned in the round.
    """
    checkpoint = stages.train()
    learned = () if name == SEGMENTATION else learned_files(name, stages, sentinel=sentinel)
    threads = use_threads(stages.config.threads)
    inputs = {
        "estimator": name,
        "learned": [file_sha256(path) for path in learned],
        "checkpoint": checkpoint.sha256,
        "cases": {case.case_id: stages.fingerprints[case.case_id] for case in cases},
        "masks": [file_sha256(prediction.mask) for prediction in predictions],
        "threads": threads,
    }
    job = CostJob(
        estimator=name,
        learned=learned,
        segmenter=stages.config.segmenter,
        checkpoint=checkpoint,
        cases=tuple(cases),
        predictions=tuple(predictions),
        structures=stages.structures,
        threads=threads,
    )

    def make(folder: Path) -> None:
        with stages.step(f"cost of {name}"):
            measure_apart(job, folder)

    return read_cost(run_stage(stages.folder, f"cost-{name}", inputs, make) / COST)


def cost_row(
    name: str, own: QualityCost, plain: QualityCost, cases: int, folder: Path
) -> dict[str, float | None]:
    """What a table says of an estimator: what it takes beyond the masks themselves.

    Args:
        name: of the estimator.
        own: its cost; with that of the masks where it needs another look at the segmenter.
        plain: cost of the masks alone.
        cases: that were judged.
        folder: of the round in which it learned.
    """
    again = bool(estimator_entry(name).needs)
    return {
        "seconds_per_case": max(0.0, own.seconds - (plain.seconds if again else 0.0)) / cases,
        "loading_seconds": own.loading_seconds,
        "peak_mb": own.peak_mb,
        "peak_over_idle_mb": own.peak_mb - own.idle_mb,
        "disk_mb": max(0.0, own.disk_mb - (plain.disk_mb if again else 0.0)),
        "learning_seconds": learning_seconds(folder, name),
    }
