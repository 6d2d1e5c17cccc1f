"""The stages of a round: which files each is made from, and the task that makes it."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

from cohort.annotation import Annotation
from cohort.case import Case, CaseView, Structure
from cohort.records import Checkpoint, GradedMask, Prediction, QualityScore, TrainingCase
from cohort.seeds import derive_seed
from flows import rounds, tasks
from flows.config import ActiveLearningConfig
from flows.data import Cohort
from flows.progress import Display
from flows.stages import file_sha256, json_sha256, run_stage, write_json
from segmenters.base import Report
from segmenters.checkpoints import load_checkpoint
from segmenters.evaluation import StructureResult
from segmenters.predictions import read_prediction
from segmenters.torch_segmenter import TorchSegmenter
from sentinel.estimators.registry import build_estimator, estimator_entry
from sentinel.scoring import Sentinel

CHUNK = 50
"""Cases in one Prefect task of segmentation."""

SENTINEL_FILE = "sentinel.safetensors"
CURVES = "curves.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundStages:
    """Runs the stages of one round in the round's folder.

    Args:
        number: of the round, from 0.
        folder: of the round.
        config: of the campaign.
        cohort: of the campaign.
        fingerprints: case id -> hash of its files.
        annotations: all that were let in before this round.
        display: shows progress.
    """

    number: int
    folder: Path
    config: ActiveLearningConfig
    cohort: Cohort
    fingerprints: Mapping[str, str]
    annotations: tuple[Annotation, ...]
    display: Display

    @property
    def structures(self) -> tuple[Structure, ...]:
        """The structures of the campaign."""
        return self.cohort.dataset.structures

    @property
    def segmenter(self) -> TorchSegmenter:
        """The segmenter of the campaign."""
        return TorchSegmenter(self.config.segmenter)

    def training_set(self) -> tuple[TrainingCase, ...]:
        """The labelled cases of this round."""
        return rounds.training_cases(self.annotations, self.cohort.dataset.by_id)

    def train(self) -> Checkpoint:
        """The segmenter of this round, from all labelled cases, from scratch."""
        return self._fit("train", "train segmenter", self.training_set(), self.config.segmenter.steps, ())[-1]

    def segment(self, what: str, cases: Sequence[Case], checkpoint: Checkpoint) -> tuple[Prediction, ...]:
        """Label maps of cases that the checkpoint has not learned from, seen without their references."""
        kinds = self._estimator_needs() if what == "pool" else ()
        return self._predict(f"segment-{what}", [case.view() for case in cases], checkpoint, kinds)

    def evaluate(
        self, predictions: Sequence[Prediction], cases: Sequence[Case]
    ) -> tuple[StructureResult, ...]:
        """DSC and NSD on the held-out cases."""
        tolerance_mm = self.config.evaluation.tolerance_mm
        masks = {prediction.case_id: prediction.mask for prediction in predictions}
        inputs = {
            "masks": {case_id: file_sha256(path) for case_id, path in sorted(masks.items())},
            "cases": {case.case_id: self.fingerprints[case.case_id] for case in cases},
            "structures": [asdict(structure) for structure in self.structures],
            "tolerance_mm": tolerance_mm,
        }

        def make(folder: Path) -> None:
            with self._step("measure held-out cases") as report:
                results = tasks.evaluate(cases, masks, self.structures, tolerance_mm, report)
            rounds.write_table(folder / rounds.RESULTS, results)

        return rounds.read_results(run_stage(self.folder, "evaluate", inputs, make) / rounds.RESULTS)

    def cross_fit(self) -> tuple[GradedMask, ...]:
        """Masks of labelled cases from checkpoints that did not learn from them, with their references."""
        cases = self.training_set()
        settings = self.config.cross_fitting
        seed = derive_seed(self.config.seed, "cross-fitting", self.number)
        graded: list[GradedMask] = []
        for number, left_out in enumerate(rounds.folds(cases, settings.folds, seed)):
            learned = tuple(case for case in cases if case.case_id not in left_out)
            name = f"fold{number}"
            checkpoints = self._fit(
                name,
                f"cross-fit, fold {number + 1}/{settings.folds}",
                learned,
                settings.steps,
                settings.checkpoint_steps,
            )
            for checkpoint in checkpoints:
                graded.extend(self._grade(name, left_out, checkpoint))
        return tuple(graded)

    def train_sentinel(self, graded: Sequence[GradedMask]) -> Path:
        """The sentinel of this round, from graded masks of labelled cases alone."""
        seed = derive_seed(self.config.seed, "sentinel", self.number)
        inputs = {
            "graded": [
                [
                    mask.case_id,
                    mask.source,
                    file_sha256(mask.mask),
                    file_sha256(mask.reference),
                    sorted(mask.evaluated),
                ]
                for mask in graded
            ],
            "sentinel": asdict(self.config.sentinel),
            "structures": [asdict(structure) for structure in self.structures],
            "seed": seed,
        }

        def make(folder: Path) -> None:
            with self._step("train sentinel") as report:
                curve, recorded = _recorded(report)
                trained = tasks.train_sentinel(
                    graded, self.structures, self.config.sentinel, seed=seed, report=recorded
                )
            trained.save(folder / SENTINEL_FILE)
            write_json(folder / CURVES, curve)

        return run_stage(self.folder, "sentinel", inputs, make) / SENTINEL_FILE

    def score(self, cases: Sequence[Case], predictions: Sequence[Prediction]) -> tuple[QualityScore, ...]:
        """The estimator's scores of the pool's masks; nothing for a strategy that needs none."""
        name = self.config.estimator_name
        if name is None or not cases:
            return ()
        trains = estimator_entry(name).needs_sentinel
        weights = self.train_sentinel(self.cross_fit()) if trains else None
        inputs = {
            "estimator": name,
            "weights": file_sha256(weights) if weights else None,
            "masks": {p.case_id: [file_sha256(p.mask), json_sha256(p.uncertainty)] for p in predictions},
            "images": {case.case_id: self.fingerprints[case.case_id] for case in cases},
            "structures": [asdict(structure) for structure in self.structures],
        }

        def make(folder: Path) -> None:
            estimator = build_estimator(name, Sentinel.load(weights) if weights else None)
            views = [case.view() for case in cases]
            with self._step("score the pool") as report:
                scores = tasks.score(estimator, views, predictions, self.structures, report=report)
            rounds.write_table(folder / rounds.SCORES, scores)

        return rounds.read_scores(run_stage(self.folder, "score", inputs, make) / rounds.SCORES)

    def _estimator_needs(self) -> tuple[str, ...]:
        name = self.config.estimator_name
        return tuple(sorted(estimator_entry(name).needs)) if name else ()

    def _grade(self, name: str, left_out: Sequence[str], checkpoint: Checkpoint) -> tuple[GradedMask, ...]:
        by_id = self.cohort.dataset.by_id
        views = [by_id[case_id].view() for case_id in left_out]
        predictions = self._predict(f"{name}-step{checkpoint.step}", views, checkpoint, ())
        source = f"{name}/step{checkpoint.step}"
        return rounds.graded_masks(predictions, self.annotations, by_id, source)

    def _fit(
        self,
        name: str,
        shown: str,
        cases: Sequence[TrainingCase],
        steps: int,
        checkpoint_steps: Sequence[int],
    ) -> tuple[Checkpoint, ...]:
        seed = derive_seed(self.config.seed, "segmenter", name, self.number)
        learned = {case.case_id for case in cases}
        inputs = {
            "training_set": rounds.training_set_version(
                [annotation for annotation in self.annotations if annotation.case_id in learned]
            ),
            "images": {case.case_id: self.fingerprints[case.case_id] for case in cases},
            "segmenter": asdict(self.config.segmenter),
            "structures": [asdict(structure) for structure in self.structures],
            "steps": steps,
            "checkpoint_steps": list(checkpoint_steps),
            "seed": seed,
        }

        def make(folder: Path) -> None:
            with self._step(shown) as report:
                curve, recorded = _recorded(report)
                tasks.train_segmenter(
                    self.segmenter,
                    cases,
                    self.structures,
                    folder,
                    seed=seed,
                    steps=steps,
                    checkpoint_steps=tuple(checkpoint_steps),
                    report=recorded,
                )
            write_json(folder / CURVES, curve)

        finished = run_stage(self.folder, name, inputs, make)
        found = [load_checkpoint(path) for path in sorted(finished.glob("step_*.safetensors"))]
        return tuple(sorted(found, key=lambda checkpoint: checkpoint.step))

    def _predict(
        self, name: str, cases: Sequence[CaseView], checkpoint: Checkpoint, kinds: Sequence[str]
    ) -> tuple[Prediction, ...]:
        inputs = {
            "cases": {case.case_id: self.fingerprints[case.case_id] for case in cases},
            "checkpoint": checkpoint.sha256,
            "segmenter": asdict(self.config.segmenter),
            "uncertainty": list(kinds),
        }

        def make(folder: Path) -> None:
            with self._step(name.replace("-", " ", 1)) as report:
                for start in range(0, len(cases), CHUNK):
                    tasks.segment_chunk(
                        self.segmenter,
                        cases[start : start + CHUNK],
                        checkpoint,
                        self.structures,
                        folder,
                        uncertainty=tuple(kinds),
                        report=_shifted(report, start, len(cases)),
                    )

        finished = run_stage(self.folder, name, inputs, make)
        return tuple(read_prediction(finished / f"{case.case_id}.json") for case in cases)

    def _step(self, shown: str) -> AbstractContextManager[Report]:
        return self.display.step(f"round {self.number}: {shown}")


def _shifted(report: Report, start: int, all_cases: int) -> Report:
    def shifted(step: int, total: int, metrics: Mapping[str, float]) -> None:
        report(start + step, all_cases, metrics)

    return shifted


def _recorded(report: Report) -> tuple[list[dict[str, float]], Report]:
    """A list that collects what is reported, and the function to report through."""
    curve: list[dict[str, float]] = []

    def recorded(step: int, total: int, metrics: Mapping[str, float]) -> None:
        if metrics:
            curve.append({"step": step, **metrics})
        report(step, total, metrics)

    return curve, recorded
