"""The stages of a round: which files each is made from, and the task that makes it."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

from cohort.annotation import Annotation
from cohort.case import Case, Structure
from cohort.records import Checkpoint, GradedMask, Prediction, QualityScore, TrainingCase
from cohort.seeds import derive_seed
from flows import rounds, tasks
from flows.config import ActiveLearningConfig
from flows.data import Cohort
from flows.progress import Display, recorded
from flows.segmenter_stages import CURVES, SegmenterStages
from flows.stages import file_sha256, json_sha256, run_stage, write_json
from segmenters.base import Report
from segmenters.evaluation import StructureResult
from sentinel.estimators.registry import build_estimator, estimator_entry
from sentinel.scoring import Sentinel

SENTINEL_FILE = "sentinel.safetensors"


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
    def segmenter(self) -> SegmenterStages:
        """The stages of the campaign's segmenter in this round."""
        return SegmenterStages(
            folder=self.folder,
            config=self.config.segmenter,
            structures=self.structures,
            fingerprints=self.fingerprints,
            step=self._step,
        )

    def training_set(self) -> tuple[TrainingCase, ...]:
        """The labelled cases of this round."""
        return rounds.training_cases(self.annotations, self.cohort.dataset.by_id)

    def train(self) -> Checkpoint:
        """The segmenter of this round, from all labelled cases, from scratch."""
        return self._fit("train", "train segmenter", self.training_set(), self.config.segmenter.steps, ())[-1]

    def segment(self, what: str, cases: Sequence[Case], checkpoint: Checkpoint) -> tuple[Prediction, ...]:
        """Label maps of cases that the checkpoint has not learned from, seen without their references."""
        kinds = self._estimator_needs() if what == "pool" else ()
        return self.segmenter.predict(f"segment-{what}", [case.view() for case in cases], checkpoint, kinds)

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
                curve, recorder = recorded(report)
                trained = tasks.train_sentinel(
                    graded, self.structures, self.config.sentinel, seed=seed, report=recorder
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
        predictions = self.segmenter.predict(f"{name}-step{checkpoint.step}", views, checkpoint, ())
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
        learned = {case.case_id for case in cases}
        return self.segmenter.fit(
            name,
            shown,
            cases,
            rounds.training_set_version([a for a in self.annotations if a.case_id in learned]),
            steps=steps,
            checkpoint_steps=checkpoint_steps,
            seed=derive_seed(self.config.seed, "segmenter", name, self.number),
        )

    def _step(self, shown: str) -> AbstractContextManager[Report]:
        return self.display.step(f"round {self.number}: {shown}")
