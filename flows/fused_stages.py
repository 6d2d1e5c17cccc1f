"""The stages of a round that fit the fused estimator: partial sentinels, a committee, and the fusion."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cohort.case import Case
from cohort.records import GradedMask, Prediction
from cohort.seeds import derive_seed
from flows import tasks
from flows.round_stages import CrossFit, RoundStages
from flows.stages import file_sha256, json_sha256, run_stage, write_json
from segmenters.committee import with_committee
from sentinel.fused_fitting import CrossFittedMask, PartialSentinel, patients_left_out
from sentinel.scoring import Sentinel

FUSED_FILE = "fused.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedStages:
    """Fits the fused estimator in a round's folder.

    Args:
        round: the stages of the round.
    """

    round: RoundStages

    def fit(self, fits: Sequence[CrossFit]) -> tuple[Path, ...]:
        """Fit on the label maps of cross-fitted segmenters.

        It weighs features of whole masks, so cases are left out while only slabs of them are annotated.

        Returns:
            The files of the estimator: its numbers first, then its sentinels.
        """
        graded = [mask for fit in fits for mask in fit.graded if not mask.slabs]
        seed = derive_seed(self.round.config.seed, "fused", self.round.number)
        left_out = patients_left_out([mask.patient_id for mask in graded], seed)
        weights = tuple(
            self.round.train_sentinel(
                [mask for mask in graded if mask.patient_id not in patients], f"sentinel{number}"
            )
            for number, patients in enumerate(left_out)
        )
        masks = self._cross_fitted(fits)
        inputs = {
            "sentinels": [file_sha256(path) for path in weights],
            "left_out": [sorted(patients) for patients in left_out],
            "masks": [
                [
                    m.graded.case_id,
                    m.graded.source,
                    file_sha256(m.graded.mask),
                    json_sha256(m.prediction.uncertainty),
                ]
                for m in masks
            ],
            "references": [file_sha256(m.graded.reference) for m in masks],
            "seed": seed,
        }

        def make(folder: Path) -> None:
            partial = [
                PartialSentinel(left_out=patients, sentinel=Sentinel.load(path))
                for patients, path in zip(left_out, weights, strict=True)
            ]
            cases = self.round.training_set()
            with self.round.step("fit the fused estimator") as report:
                fitted = tasks.fit_fused(
                    masks, self.round.structures, partial, cases, seed=seed, report=report
                )
            write_json(folder / FUSED_FILE, fitted.as_dict())

        return (run_stage(self.round.folder, "fused", inputs, make) / FUSED_FILE, *weights)

    def with_members(
        self, cases: Sequence[Case], predictions: Sequence[Prediction], fits: Sequence[CrossFit]
    ) -> tuple[Prediction, ...]:
        """Predictions of the pool with the disagreement of the cross-fitted segmenters.

        With one split of the labelled cases no second segmenter judges a labelled case, so nothing could be
        learned of such disagreement, and the predictions stay as they are.
        """
        if self.round.config.cross_fitting.repeats < 2:
            return tuple(predictions)
        views = [case.view() for case in cases]
        members: dict[str, list[Prediction]] = {case.case_id: [] for case in cases}
        for fit in fits:
            for found in self.round.segmenter.predict(f"{fit.name}-pool", views, fit.checkpoint):
                members[found.case_id].append(found)
        return with_committee(predictions, members, self.round.structures)

    def _cross_fitted(self, fits: Sequence[CrossFit]) -> tuple[CrossFittedMask, ...]:
        graded = {(m.case_id, m.mask): m for fit in fits for m in fit.graded if not m.slabs}
        by_repeat: dict[int, dict[str, Prediction]] = {}
        for fit in fits:
            by_repeat.setdefault(fit.repeat, {}).update(
                {p.case_id: p for p in fit.last if (p.case_id, p.mask) in graded}
            )
        found: list[CrossFittedMask] = []
        for repeat, own in sorted(by_repeat.items()):
            others = [maps for other, maps in sorted(by_repeat.items()) if other != repeat]
            found.extend(self._judged(own, others, graded, f"repeat{repeat}"))
        return tuple(found)

    def _judged(
        self,
        own: Mapping[str, Prediction],
        others: Sequence[Mapping[str, Prediction]],
        graded: Mapping[tuple[str, Path], GradedMask],
        source: str,
    ) -> list[CrossFittedMask]:
        predictions: Sequence[Prediction] = [own[case_id] for case_id in sorted(own)]
        if others:
            members = {case_id: [maps[case_id] for maps in others] for case_id in own}
            predictions = with_committee(predictions, members, self.round.structures)
        by_id = self.round.cohort.dataset.by_id
        return [
            CrossFittedMask(
                graded=replace(graded[found.case_id, found.mask], source=source),
                view=by_id[found.case_id].view(),
                prediction=found,
            )
            for found in predictions
        ]
