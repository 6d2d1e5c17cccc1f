"""The flow that trains a sentinel on labelled scans: graded masks, training, calibration, test, report."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from prefect import flow
from prefect.runtime import flow_run

from cohort.case import Case, Dataset
from cohort.errors import ConfigError
from cohort.records import Checkpoint, GradedMask, Prediction, TrainingCase
from cohort.seeds import derive_seed
from flows import campaign as campaigns
from flows import tasks
from flows.config_files import as_dict, config_sha256
from flows.environment import code_version
from flows.progress import Display
from flows.rounds import folds
from flows.segmenter_stages import SegmenterStages
from flows.sentinel_config import GradedMasksModel, SentinelTrainingConfig, UnseenModel
from flows.sentinel_report import Tested, write_report
from flows.sentinel_split import Split
from flows.sentinel_stage import SENTINEL_FILE, train_sentinel_stage
from flows.stages import file_sha256, json_sha256, read_json, run_stage, write_json
from segmenters.base import Report, SegmenterSettings
from sentinel.calibration import MIN_PATIENTS_FOR_LINE, fit_calibration
from sentinel.evaluation import ScoredMask
from sentinel.grading import observations
from sentinel.rivals import Key, describe_masks, mask_only_values, rival_scores, uncertainty_values
from sentinel.scoring import Sentinel

RIVALS = ("entropy", "inconsistency")
_SCORED = "scored.json"


@dataclass(frozen=True, kw_only=True)
class SentinelTraining:
    """One training with all its stages.

    Args:
        config: of the training.
        dataset: all cases.
        split: who trains, calibrates and tests.
        fingerprints: case id -> hash of its files.
        display: shows progress.
    """

    config: SentinelTrainingConfig
    dataset: Dataset
    split: Split
    fingerprints: Mapping[str, str]
    display: Display

    def run(self) -> Path:
        """Every stage that is not there yet, and the report.

        Returns:
            The sentinel's file.
        """
        graded = self.training_masks()
        checkpoints = self._own_checkpoints()
        trained = Sentinel.load(self._train(graded))
        calibrating = self._calibrating(checkpoints, trained)
        finished = calibrated(trained, calibrating.scored, self.config)
        path = self.config.folder / SENTINEL_FILE
        finished.save(path)
        tested = self._test(graded, calibrating, checkpoints, finished)
        write_report(self.config, self._about(path), finished, tested)
        return path

    def training_masks(self) -> tuple[GradedMask, ...]:
        """Masks of the training cases from checkpoints that did not learn from them."""
        cases = self._training_cases(self.split.train)
        settings = self.config.masks
        graded: list[GradedMask] = []
        for number, left_out in enumerate(
            folds(cases, settings.folds, derive_seed(self.config.seed, "folds"))
        ):
            learned = tuple(case for case in cases if case.case_id not in left_out)
            shown = f"cross-fit, fold {number + 1}/{settings.folds}"
            checkpoints = self._fit(f"fold{number}", shown, learned, self.config.segmenter, settings)
            for predicted in self._predicted(f"fold{number}", left_out, checkpoints, kinds=()):
                graded.extend(predicted.graded)
        return tuple(graded)

    def _calibrating(self, checkpoints: Sequence[Checkpoint], trained: Sentinel) -> "Calibrating":
        predicted = self._predicted("calibrate", self.split.calibrate, checkpoints)
        return Calibrating(predicted=predicted, scored=self._score("calibration", predicted, trained, "seen"))

    def _own_checkpoints(self) -> tuple[Checkpoint, ...]:
        cases = self._training_cases(self.split.train)
        return self._fit("seen", "train segmenter", cases, self.config.segmenter, self.config.masks)

    def _fit(
        self,
        name: str,
        shown: str,
        cases: Sequence[TrainingCase],
        segmenter: SegmenterSettings,
        masks: GradedMasksModel | UnseenModel,
    ) -> tuple[Checkpoint, ...]:
        version = json_sha256(sorted([case.case_id, self.fingerprints[case.case_id]] for case in cases))
        return self._stages(segmenter).fit(
            f"train-{name}",
            shown,
            cases,
            version,
            steps=masks.steps,
            checkpoint_steps=masks.checkpoint_steps,
            seed=derive_seed(self.config.seed, "segmenter", name),
        )

    def _predicted(
        self,
        name: str,
        case_ids: Sequence[str],
        checkpoints: Sequence[Checkpoint],
        segmenter: SegmenterSettings | None = None,
        kinds: Sequence[str] | None = None,
    ) -> "tuple[Predicted, ...]":
        """Masks of cases by every checkpoint, beside their references."""
        cases = [self.dataset.by_id[case_id] for case_id in case_ids]
        asked = (RIVALS if self.config.rivals else ()) if kinds is None else kinds
        stages = self._stages(segmenter or self.config.segmenter)
        return tuple(
            Predicted(
                predictions=predictions,
                graded=_graded(predictions, self.dataset, f"{name}/step{checkpoint.step}"),
            )
            for checkpoint in checkpoints
            for predictions in [
                stages.predict(
                    f"{name}-step{checkpoint.step}", [case.view() for case in cases], checkpoint, asked
                )
            ]
        )

    def _train(self, graded: Sequence[GradedMask]) -> Path:
        return train_sentinel_stage(
            self._work,
            "sentinel",
            graded,
            self.dataset.structures,
            self.config.sentinel,
            seed=derive_seed(self.config.seed, "sentinel"),
            step=self._step,
        )

    def _score(
        self, name: str, predicted: "Sequence[Predicted]", sentinel: Sentinel, group: str
    ) -> tuple[ScoredMask, ...]:
        graded = [mask for found in predicted for mask in found.graded]
        inputs = {
            "sentinel": sentinel.training_sha256,
            "config": asdict(sentinel.config),
            "calibration": sentinel.calibration.as_dict(),
            "masks": [
                [
                    mask.case_id,
                    mask.source,
                    file_sha256(mask.mask),
                    self.fingerprints[mask.case_id],
                    sorted(mask.evaluated),
                ]
                for mask in graded
            ],
            "structures": [asdict(structure) for structure in self.dataset.structures],
            "group": group,
        }

        def make(folder: Path) -> None:
            with self._step(f"score masks: {name}") as report:
                scored = tasks.score_graded(
                    graded, self.dataset.structures, sentinel, group=group, report=report
                )
            write_json(folder / _SCORED, [asdict(mask) for mask in scored])

        rows = read_json(run_stage(self._work, f"score-{name}", inputs, make) / _SCORED)
        return tuple(
            ScoredMask(
                **{
                    **row,
                    "slice_scores": tuple(row["slice_scores"]),
                    "slice_dsc": tuple(row["slice_dsc"]),
                }
            )
            for row in rows
        )

    def _test(
        self,
        graded: Sequence[GradedMask],
        calibrating: "Calibrating",
        checkpoints: Sequence[Checkpoint],
        sentinel: Sentinel,
    ) -> list[Tested]:
        groups = {"seen": self._predicted("test", self.split.test, checkpoints)}
        unseen = self.config.unseen
        if unseen is not None:
            learned = self._training_cases(self.split.train)
            shown = f"train {self.config.architectures['unseen']}, which the sentinel never sees"
            other = self._fit("unseen", shown, learned, unseen.segmenter, unseen)
            groups["unseen"] = self._predicted("test-unseen", self.split.test, other, unseen.segmenter)
        tested = []
        for group, predicted in groups.items():
            own = self._score(f"test-{group}", predicted, sentinel, group)
            scored = {"sentinel": own}
            if self.config.rivals:
                scored |= self._rivals(graded, calibrating, predicted, own)
            tested.append(Tested(group=group, architecture=self.config.architectures[group], scored=scored))
        return tested

    def _rivals(
        self,
        graded: Sequence[GradedMask],
        calibrating: "Calibrating",
        predicted: "Sequence[Predicted]",
        scored: Sequence[ScoredMask],
    ) -> dict[str, tuple[ScoredMask, ...]]:
        """What others would have said of the same masks, calibrated on the same patients."""
        values = {
            kind: [_uncertainty(calibrating.predicted, kind), _uncertainty(predicted, kind)]
            for kind in RIVALS
        }
        known_masks = [mask for part in calibrating.predicted for mask in part.graded]
        masks = [mask for part in predicted for mask in part.graded]
        with self._step("baseline that sees the mask alone") as report:
            learned, known, new = (
                describe_masks(part, self.dataset.structures, report) for part in (graded, known_masks, masks)
            )
        values["mask_only"] = [mask_only_values(learned, known), mask_only_values(learned, new)]
        found = {}
        for name, (before, now) in values.items():
            calibration = fit_calibration(
                observations(rival_scores(calibrating.scored, before)),
                level=self.config.level,
                seed=derive_seed(self.config.seed, "calibration"),
            )
            if not calibration.structures:
                self.display.say(
                    f"  {name} is not compared: calibrating it takes {MIN_PATIENTS_FOR_LINE} patients with "
                    "masks of a structure (split.calibration_patients)"
                )
            found[name] = rival_scores(scored, now, calibration)
        return found

    def _training_cases(self, case_ids: Sequence[str]) -> tuple[TrainingCase, ...]:
        return tuple(_training_case(self.dataset.by_id[case_id]) for case_id in case_ids)

    def _stages(self, segmenter: SegmenterSettings) -> SegmenterStages:
        return SegmenterStages(
            folder=self._work,
            workspace=self.config.folder / campaigns.WORKSPACE,
            config=segmenter,
            structures=self.dataset.structures,
            fingerprints=self.fingerprints,
            step=self._step,
        )

    @cached_property
    def _work(self) -> Path:
        return self.config.folder / "stages"

    def _step(self, shown: str) -> AbstractContextManager[Report]:
        return self.display.step(shown)

    def _about(self, path: Path) -> dict[str, str]:
        patients = {
            name: len({self.dataset.by_id[case_id].patient_id for case_id in ids})
            for name, ids in (
                ("training", self.split.train),
                ("calibration", self.split.calibrate),
                ("test", self.split.test),
            )
        }
        return {
            "data set": self.dataset.name,
            "modality": self.dataset.modality,
            "data set sha256": json_sha256(sorted(self.fingerprints.items())),
            "config sha256": config_sha256(as_dict(self.config)),
            "code version": code_version(),
            "seed": str(self.config.seed),
            "sentinel sha256": file_sha256(path),
            **{f"{name} patients": str(count) for name, count in patients.items()},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """Masks of cases by one checkpoint, twice: as predictions, and beside their references."""

    predictions: tuple[Prediction, ...]
    graded: tuple[GradedMask, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrating:
    """Masks of the calibrating patients, and the sentinel's scores of them before calibration."""

    predicted: tuple[Predicted, ...]
    scored: tuple[ScoredMask, ...]


def calibrated(sentinel: Sentinel, known: Sequence[ScoredMask], config: SentinelTrainingConfig) -> Sentinel:
    """The same sentinel, which from now on has its calibration from patients that it never learned from."""
    sentinel.calibration = fit_calibration(
        observations(known), level=config.level, seed=derive_seed(config.seed, "calibration")
    )
    return sentinel


def _training_case(case: Case) -> TrainingCase:
    if case.reference is None:
        raise ConfigError(f"Case {case.case_id} has no reference, so nothing can be learned from it")
    return TrainingCase(
        case_id=case.case_id,
        patient_id=case.patient_id,
        image=case.image,
        label_map=case.reference,
        annotated=frozenset(case.annotated),
    )


def _graded(predictions: Sequence[Prediction], dataset: Dataset, source: str) -> tuple[GradedMask, ...]:
    found = []
    for prediction in predictions:
        case = dataset.by_id[prediction.case_id]
        if case.reference is not None:
            found.append(
                GradedMask(
                    case_id=case.case_id,
                    patient_id=case.patient_id,
                    image=case.image,
                    mask=prediction.mask,
                    reference=case.reference,
                    evaluated=frozenset(case.evaluated),
                    source=source,
                )
            )
    return tuple(found)


def _uncertainty(predicted: "Sequence[Predicted]", kind: str) -> dict[Key, float]:
    values: dict[Key, float] = {}
    for part in predicted:
        values |= uncertainty_values(part.graded, part.predictions, kind)
    return values


@flow(name="train sentinel", validate_parameters=False)
def train_sentinel_flow(training: SentinelTraining) -> Path:
    """Run a training in Prefect."""
    folder = training.config.folder
    campaigns.record_process(folder, str(flow_run.id))
    try:
        return training.run()
    finally:
        campaigns.forget_process(folder)
