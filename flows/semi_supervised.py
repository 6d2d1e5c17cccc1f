"""Semi-supervised training: a teacher's masks, filtered by predicted quality, teach a student.

It is a campaign whose rounds annotate nothing: generation 0 is the teacher, each later one a student that
learns from the annotations and from the pseudo-labels that the generation before made. Ledger, stages, kill
and resume are those of a campaign.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cohort.case import Case
from cohort.errors import CampaignError
from cohort.filtering import Verdict
from cohort.records import Prediction, QualityScore
from flows import campaign as campaigns
from flows import filter_trial, rounds, semi_supervised_figures, tasks
from flows.active_learning import Loop, active_learning
from flows.config_files import as_dict, flatten
from flows.cost_stages import cost_row, measure_cost
from flows.environment import use_threads
from flows.estimator_stages import score_pool
from flows.promotion import unscored
from flows.quality_cost import SEGMENTATION
from flows.report import FIGURES, drawing
from flows.round_stages import RoundStages
from flows.semi_supervised_config import SemiSupervisedConfig
from flows.semi_supervised_report import write_report
from flows.shared_stages import PLANS_IN_THE_WORKSPACE, take_over
from flows.stages import file_sha256, run_stage
from sentinel.estimators.registry import estimator_entry

DSCS, JUDGED = "dsc.csv", "judged.csv"
_TEACHER = (
    "seed",
    "data.",
    "start.",
    "unlabelled",
    "segmenter.",
    "cross_fitting.",
    "sentinel.",
    "evaluation.",
)

_OF_STUDENTS = "segmenter.semi_supervision."
"""Keys of the segmenter that no teacher depends on: it learns from annotations alone."""

_log = logging.getLogger(__name__)

semi_supervised = active_learning.with_options(name="semi-supervised")
"""The flow: every generation that is not in the ledger yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfTraining(Loop):
    """One semi-supervised training.

    Args:
        training: its configuration; `config` is the same as a campaign.
        called: what to call a round on the display.
    """

    training: SemiSupervisedConfig
    called: str = "generation"

    def _prepare(self) -> None:
        """Take over what other trainings beside this one have computed of the same teacher."""
        if not self.training.share or self.training.segmenter.family in PLANS_IN_THE_WORKSPACE:
            return
        learning = ("fold", "repeat", "sentinel", "fused") if self.training.learning else ()
        target = self.campaign.round_folder(0)
        for other in campaigns.known_campaigns(self.campaign.folder.parent):
            source = self.campaign.folder.parent / other
            if other == self.campaign.name or not self._is_arm(source):
                continue
            taken = take_over(
                source / "rounds" / "000", target, ("train-", "segment-", "evaluate-", *learning)
            )
            if taken:
                self.display.say(f"  {len(taken)} stages of the teacher are those of {other}")

    def _is_arm(self, folder: Path) -> bool:
        """Whether a folder holds a training that differs in nothing that a teacher depends on."""
        try:
            other, own = flatten(campaigns.open_campaign(folder).values), flatten(as_dict(self.training))
        except CampaignError:  # broken, which is not this training's affair
            return False
        return "generations" in other and all(
            other.get(key) == value
            for key, value in own.items()
            if key.startswith(_TEACHER) and not key.startswith(_OF_STUDENTS)
        )

    def _candidates_among(
        self, scores: Sequence[QualityScore], pool: Sequence[Case]
    ) -> Sequence[QualityScore]:
        """Scores of the masks that can become pseudo-labels; see `SemiSupervisedConfig.contoured_only`."""
        if not self.training.contoured_only:
            return scores
        contoured = {case.case_id: case.evaluated for case in pool}
        return [score for score in scores if score.structure in contoured[score.case_id]]

    def _use_pool(self, stages: RoundStages, pool: Sequence[Case], predictions: Sequence[Prediction]) -> bool:
        """Filter the masks of this generation, for the next one to learn from."""
        promoter = self._promoter
        if promoter is None:
            raise CampaignError("A semi-supervised training without a filter of pseudo-labels has no student")
        scores = {
            name: self._candidates_among(found, pool)
            for name, found in self._scores(stages, pool, predictions).items()
        }
        plain = self._candidates_among(unscored(predictions), pool)
        own = promoter.settings.filter.estimator_name
        judged = scores[own] if own else plain
        untrained = rounds.unseen_structures(stages.annotations, stages.structures)
        verdicts = promoter.promote(stages.number, pool, predictions, judged, untrained=untrained)
        dscs = self._measured(stages, pool, predictions)
        filter_trial.write_judged(stages.folder / JUDGED, verdicts, scores, dscs)
        found = filter_trial.trial(
            promoter.settings,
            [structure.name for structure in stages.structures],
            verdicts,
            plain,
            scores,
            dscs,
            round=stages.number,
            seed=self.config.seed,
        )
        self._say(stages.number, found["filter"])
        with drawing(f"figures of generation {stages.number}"):
            shown = {**scores, **filter_trial.bounds(plain, dscs)}
            self._draw_filter(stages, verdicts, predictions, shown, dscs)
        if stages.number == 0 and self.training.cost_cases and self.campaign.event("cost") is None:
            try:
                self._measure_cost(stages, pool, predictions)
            except CampaignError as error:
                _log.warning("%s", error)
        self.campaign.append("trial", round=stages.number, **found)
        write_report(self.campaign)
        return True

    def _draw_curve(self) -> None:
        results = [entry.payload for entry in self.campaign.events("result")]
        with drawing("curve of DSC"):
            path = self.campaign.folder / FIGURES / "generations.png"
            semi_supervised_figures.generations(path, results, self.campaign.name)
        write_report(self.campaign)

    def _draw_filter(
        self,
        stages: RoundStages,
        verdicts: Sequence[Verdict],
        predictions: Sequence[Prediction],
        scores: Mapping[str, Sequence[QualityScore]],
        dscs: filter_trial.Dscs,
    ) -> None:
        folder, heading = stages.folder / FIGURES, f"{self.campaign.name}, generation {stages.number}"
        semi_supervised_figures.filtered(folder / "filter.png", verdicts, scores, dscs, heading)
        semi_supervised_figures.examples(
            folder / "kept_and_not.png",
            verdicts,
            self.cohort.dataset.by_id,
            predictions,
            stages.structures,
            dscs,
            heading,
        )

    def _scores(
        self, stages: RoundStages, pool: Sequence[Case], predictions: Sequence[Prediction]
    ) -> dict[str, tuple[QualityScore, ...]]:
        """What the filter's estimator and its rivals say; they learn once, from the labelled cases alone."""
        taught = self._stages(0)
        filter_ = self.training.filter
        return {
            name: score_pool(
                stages,
                pool,
                predictions,
                name,
                taught=taught,
                sentinel=filter_.sentinel if name == filter_.estimator_name else None,
            )
            for name in self.training.estimator_names
        }

    def _measured(
        self, stages: RoundStages, pool: Sequence[Case], predictions: Sequence[Prediction]
    ) -> Mapping[tuple[str, str], float]:
        """The true DSC of the masks, where references tell; nothing learns from it."""
        inputs = {
            "masks": {p.case_id: file_sha256(p.mask) for p in predictions},
            "cases": {case.case_id: stages.fingerprints[case.case_id] for case in pool},
            "structures": [asdict(structure) for structure in stages.structures],
        }

        def make(folder: Path) -> None:
            with stages.step("measure the pool's masks") as report:
                found = tasks.measure_masks(pool, predictions, stages.structures, report)
            rounds.write_table(folder / DSCS, found)

        return filter_trial.read_dscs(run_stage(stages.folder, "measure-pool", inputs, make) / DSCS)

    def _measure_cost(
        self, stages: RoundStages, pool: Sequence[Case], predictions: Sequence[Prediction]
    ) -> None:
        """Time, memory and disk of every estimator on the same few cases, each in a process of its own."""
        names = [n for n in self.training.estimator_names if not estimator_entry(n).reads_references]
        asked = self.training.cost_cases
        found = {
            name: measure_cost(
                stages,
                [case.view() for case in pool[:asked]],
                predictions[:asked],
                name,
                sentinel=self.training.filter.sentinel
                if name == self.training.filter.estimator_name
                else None,
            )
            for name in (SEGMENTATION, *names)
        }
        plain = found.pop(SEGMENTATION)
        cases = min(asked, len(pool))
        self.campaign.append(
            "cost",
            round=stages.number,
            cases=cases,
            threads=use_threads(self.config.threads),
            segmentation=asdict(plain),
            estimators={
                name: cost_row(name, own, plain, cases, stages.folder) for name, own in found.items()
            },
        )

    def _say(self, number: int, found: Mapping[str, float | None]) -> None:
        shown = f"{found['kept']:.0f} of {found['masks']:.0f} masks kept"
        if found["dsc"] is not None and found["dsc_kept"] is not None:
            shown += f", their DSC {found['dsc_kept']:.3f} against {found['dsc']:.3f} of all"
        self.display.say(f"generation {number}: {shown}; no new annotation")
