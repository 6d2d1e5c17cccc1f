"""The stages of a round: which files each is made from, and the task that makes it."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

from cohort.annotation import Annotation
from cohort.case import Case, Structure
from cohort.pseudo_labels import PseudoLabel
from cohort.records import Checkpoint, GradedMask, Prediction, TrainingCase
from cohort.seeds import derive_seed
from flows import rounds, tasks
from flows.campaign import WORKSPACE
from flows.config import ActiveLearningConfig
from flows.data import Cohort
from flows.progress import Display
from flows.promotion import pseudo_cases, pseudo_labels_version
from flows.segmenter_stages import SegmenterStages
from flows.sentinel_stage import train_sentinel_stage
from flows.stages import file_sha256, json_sha256, run_stage
from segmenters.base import Report
from segmenters.evaluation import StructureResult
from sentinel.estimators.registry import estimator_entry


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossFit:
    """A segmenter that left some labelled cases out, and what it makes of these.

    Args:
        name: of the fold.
        repeat: which split of the labelled cases it belongs to.
        checkpoint: its last one.
        graded: label maps of the cases that it left out, by all its checkpoints, with their references.
        last: those of the last checkpoint, with uncertainty where that was asked for.
    """

    name: str
    repeat: int
    checkpoint: Checkpoint
    graded: tuple[GradedMask, ...]
    last: tuple[Prediction, ...]


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
        pseudo_labels: that the segmenter of this round learns from beside; what judges masks never does.
        called: what to call a round on the display.
    """

    number: int
    folder: Path
    config: ActiveLearningConfig
    cohort: Cohort
    fingerprints: Mapping[str, str]
    annotations: tuple[Annotation, ...]
    display: Display
    pseudo_labels: tuple[PseudoLabel, ...] = ()
    called: str = "round"

    @property
    def structures(self) -> tuple[Structure, ...]:
        """The structures of the campaign."""
        return self.cohort.dataset.structures

    @property
    def segmenter(self) -> SegmenterStages:
        """The stages of the campaign's segmenter in this round."""
        return SegmenterStages(
            folder=self.folder,
            workspace=self.config.folder / WORKSPACE,
            config=self.config.segmenter,
            structures=self.structures,
            fingerprints=self.fingerprints,
            step=self.step,
        )

    def training_set(self) -> tuple[TrainingCase, ...]:
        """The labelled cases of this round."""
        return rounds.training_cases(self.annotations, self.cohort.dataset.by_id)

    def train(self) -> Checkpoint:
        """The segmenter of this round, from all labelled cases and pseudo-labels, from scratch."""
        cases = (*self.training_set(), *pseudo_cases(self.pseudo_labels, self.cohort.dataset.by_id))
        return self._fit("train", "train segmenter", cases, self.config.segmenter.steps, ())[-1]

    def segment(self, what: str, cases: Sequence[Case], checkpoint: Checkpoint) -> tuple[Prediction, ...]:
        """Label maps of cases that the checkpoint has not learned from, seen without their references."""
        kinds = self.estimator_needs() if what == "pool" else ()
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
            with self.step("measure held-out cases") as report:
                results = tasks.evaluate(cases, masks, self.structures, tolerance_mm, report)
            rounds.write_table(folder / rounds.RESULTS, results)

        return rounds.read_results(run_stage(self.folder, "evaluate", inputs, make) / rounds.RESULTS)

    def cross_fit(self, kinds: Sequence[str] = ()) -> tuple[CrossFit, ...]:
        """Segmenters that each left some labelled cases out, and their label maps of these.

        Args:
            kinds: of uncertainty, for the label maps of each segmenter's last checkpoint.
        """
        settings = self.config.cross_fitting
        return tuple(
            self._one_fit(repeat, number, left_out, kinds)
            for repeat in range(settings.repeats)
            for number, left_out in enumerate(
                rounds.folds(
                    self.training_set(),
                    settings.folds,
                    derive_seed(self.config.seed, "cross-fitting", self.number, *_again(repeat)),
                )
            )
        )

    def train_sentinel(self, graded: Sequence[GradedMask], name: str = "sentinel") -> Path:
        """A sentinel of this round, from graded masks of labelled cases alone."""
        return train_sentinel_stage(
            self.folder,
            name,
            graded,
            self.structures,
            self.config.sentinel,
            seed=derive_seed(self.config.seed, name, self.number),
            step=self.step,
        )

    def estimator_needs(self) -> tuple[str, ...]:
        """Kinds of uncertainty that the estimators of the pool read."""
        needs = frozenset[str]().union(*(estimator_entry(n).needs for n in self.config.estimator_names))
        return tuple(sorted(needs))

    def _one_fit(self, repeat: int, number: int, left_out: Sequence[str], kinds: Sequence[str]) -> CrossFit:
        settings, by_id = self.config.cross_fitting, self.cohort.dataset.by_id
        name = f"fold{number}" if repeat == 0 else f"repeat{repeat}-fold{number}"
        shown = f"cross-fit, fold {number + 1}/{settings.folds}"
        if settings.repeats > 1:
            shown += f", repeat {repeat + 1}/{settings.repeats}"
        learned = tuple(case for case in self.training_set() if case.case_id not in left_out)
        checkpoints = self._fit(name, shown, learned, settings.steps, settings.checkpoint_steps)
        views = [by_id[case_id].view() for case_id in left_out]
        graded: list[GradedMask] = []
        predictions: tuple[Prediction, ...] = ()
        for checkpoint in checkpoints:
            asked = kinds if checkpoint is checkpoints[-1] else ()
            label = f"{name}-step{checkpoint.step}"
            predictions = self.segmenter.predict(label, views, checkpoint, asked)
            source = f"{name}/step{checkpoint.step}"
            graded.extend(rounds.graded_masks(predictions, self.annotations, by_id, source))
        return CrossFit(
            name=name, repeat=repeat, checkpoint=checkpoints[-1], graded=tuple(graded), last=predictions
        )

    def _fit(
        self,
        name: str,
        shown: str,
        cases: Sequence[TrainingCase],
        steps: int,
        checkpoint_steps: Sequence[int],
    ) -> tuple[Checkpoint, ...]:
        learned = {case.case_id for case in cases}
        version = rounds.training_set_version([a for a in self.annotations if a.case_id in learned])
        if any(case.pseudo for case in cases):
            version = json_sha256([version, pseudo_labels_version(self.pseudo_labels)])
        return self.segmenter.fit(
            name,
            shown,
            cases,
            version,
            steps=steps,
            checkpoint_steps=checkpoint_steps,
            seed=derive_seed(self.config.seed, "segmenter", name, self.number),
        )

    def step(self, shown: str) -> AbstractContextManager[Report]:
        """Show the progress of a step of this round."""
        return self.display.step(f"{self.called} {self.number}: {shown}")


def _again(repeat: int) -> tuple[int, ...]:
    """What tells the seed of another split of the labelled cases from that of the first."""
    return (repeat,) if repeat else ()
