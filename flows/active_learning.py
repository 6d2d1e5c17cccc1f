"""The active-learning campaign: train, measure, segment the pool, score, select, annotate, and again.

The flow reads everything from the campaign's folder and ledger, so it can be killed anywhere and started
again: what is done is not done twice.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from uuid import UUID

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.states import Crashed
from rich.markup import escape

from cohort.annotation import Annotation, Request
from cohort.budget import Cost
from cohort.case import Case
from cohort.errors import AnnotationError, CampaignError
from cohort.records import Prediction, QualityScore
from cohort.slab_scores import scores_within
from flows import campaign as campaigns
from flows import data, report, rounds
from flows.annotation_work import make_annotator, note_waiting, work_items
from flows.annotators.oracle import Oracle
from flows.campaign import Campaign
from flows.config import ActiveLearningConfig
from flows.config_files import as_dict, config_sha256
from flows.environment import code_version, use_threads
from flows.estimator_stages import score_pool
from flows.intake import Intake
from flows.progress import Display
from flows.promotion import Promoter, counted, shown
from flows.requests import Unit, askable, only_requested, requested
from flows.round_choice import RoundChoice
from flows.round_figures import draw_round
from flows.round_stages import RoundStages
from flows.stages import file_sha256, json_number, json_sha256
from flows.tracking import Tracker
from flows.trial import Trial, trial_entry
from segmenters.base import SegmenterSettings
from segmenters.config import SegmenterConfig
from segmenters.evaluation import summarise


@flow(name="active-learning", validate_parameters=False, persist_result=False)
def active_learning(loop: "Loop", killed_flow_run: str | None) -> None:
    """The flow: every round of the campaign that is not in the ledger yet.

    Args:
        loop: the campaign, opened and locked for this process.
        killed_flow_run: id of a flow run of this campaign whose process was killed, None if there is none.
    """
    campaigns.record_process(loop.campaign.folder, str(flow_run.id))
    if killed_flow_run:
        mark_crashed(killed_flow_run)
    campaigns.forget_failure(loop.campaign.folder)
    try:
        loop.run()
    except Exception as error:
        campaigns.record_failure(loop.campaign.folder, error)
        loop.tracker.sync()
        raise
    finally:
        campaigns.forget_process(loop.campaign.folder)


def mark_crashed(flow_run_id: str) -> None:
    """Tell Prefect that a flow run was killed, where it still believes that it runs."""
    with get_client(sync_client=True) as client:
        try:
            client.set_flow_run_state(
                UUID(flow_run_id), Crashed(message="the process was killed"), force=True
            )
        except ObjectNotFound:
            return


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """One campaign's rounds.

    Args:
        config: of the campaign.
        campaign: its folder and ledger.
        cohort: its cases, and which are held out.
        fingerprints: case id -> hash of its files.
        display: shows progress.
        tracker: shows the ledger in MLflow.
        called: what to call a round on the display.
    """

    config: ActiveLearningConfig
    campaign: Campaign
    cohort: data.Cohort
    fingerprints: dict[str, str]
    display: Display
    tracker: Tracker
    called: str = "round"

    def run(self) -> None:
        """Every round that the ledger does not hold yet."""
        use_threads(self.config.threads)
        self._start()
        self._prepare()
        self.tracker.sync()
        for number in range(self.config.rounds):
            more = self._round(number)
            self.tracker.sync()
            if not more:
                return

    def _start(self) -> None:
        start = {
            "dataset": self.cohort.dataset.name,
            "dataset_sha256": json_sha256(sorted(self.fingerprints.items())),
            "patients_known": self.cohort.dataset.patients_known,
            "structures": [asdict(structure) for structure in self.cohort.dataset.structures],
            "held_out": list(self.cohort.held_out),
            "start": list(self.cohort.start),
            "pool": list(self.cohort.pool),
            "seed": self.config.seed,
        }
        begun = self.campaign.event("start")
        if begun is None:
            made_by = {"config_sha256": config_sha256(as_dict(self.config)), "code_version": code_version()}
            self.campaign.append("start", **made_by, **start)
        else:
            self._check_unchanged(begun.payload, start)
        names = tuple(structure.name for structure in self.cohort.dataset.structures)
        given = Oracle(by_id=self.cohort.dataset.by_id, name="given at the start")
        requests = tuple(Request(case_id=case_id, structures=names) for case_id in self.cohort.start)
        taken = self._intake("case").take_in(None, requests, given)
        if taken.refused:
            raise AnnotationError("\n".join(taken.refused.values()))

    def _prepare(self) -> None:
        """What a flow of another kind does before its first round."""

    def _check_unchanged(self, begun: Mapping[str, object], now: Mapping[str, object]) -> None:
        """Refuse to go on with other data, another split or other structures than the campaign began with."""
        current = json.loads(json.dumps(now))
        changed = [name for name in current if begun.get(name) != current[name]]
        if changed:
            raise CampaignError(
                f"The campaign {self.campaign.folder} started with other data: {', '.join(changed)} changed "
                "since then; restore the data set and the config, or start a new campaign with --set name=..."
            )

    def _round(self, number: int) -> bool:
        """Run a round; whether the campaign can go on."""
        stages = self._stages(number)
        if self.campaign.event("result", number) is None:
            self._measure(stages)
            self.tracker.sync()
        self._draw_curve()
        if number == self.config.rounds - 1:
            return self._finish("all rounds are done")
        if self.campaign.event("trial", number):
            return True
        pool = self._pool(stages)
        if not pool:
            return self._finish("the pool is empty")
        return self._use_pool(stages, pool, stages.segment("pool", pool, stages.train()))

    def _use_pool(self, stages: RoundStages, pool: Sequence[Case], predictions: Sequence[Prediction]) -> bool:
        """Spend the round's budget, and promote pseudo-labels where asked; whether the campaign can go on."""
        trial = Trial.before(self.campaign, self.config, stages.number)
        found = score_pool(stages, pool, predictions, self.config.estimator_name, taught=self._taught(stages))
        scores = trial.recalibrated(found)
        if self.campaign.event("selection", stages.number) is None:
            asked = self._askable(stages)
            choice = RoundChoice(campaign=self.campaign, stages=stages, asked=asked)
            if not choice.make(pool, predictions, scores, trial):
                return self._finish("no slab of the pool is left to annotate")
        if self._promoter is not None:
            self._promote(self._promoter, stages, pool, predictions, scores)
        return self._annotate(stages, predictions, scores)

    def _taught(self, stages: RoundStages) -> RoundStages:
        """The round whose labelled cases teach the estimator of a round."""
        ago = stages.number % self.config.trial.retrain_every
        return self._stages(stages.number - ago) if ago else stages

    @property
    def _promoter(self) -> Promoter | None:
        if self.config.pseudo_labels is None:
            return None
        return Promoter(
            campaign=self.campaign,
            cohort=self.cohort,
            settings=self.config.pseudo_labels,
            seed=self.config.seed,
            images_too=_learns_from_images(self.config.segmenter),
        )

    def _promote(
        self,
        promoter: Promoter,
        stages: RoundStages,
        pool: Sequence[Case],
        predictions: Sequence[Prediction],
        scores: Sequence[QualityScore],
    ) -> None:
        """The best masks of the pool teach the next round, but for those that people correct in this one.

        The filter reads the strategy's scores where its estimator is the same.
        """
        selection = self.campaign.event("selection", stages.number)
        if self.campaign.event("promotion", stages.number) is not None or selection is None:
            return
        filter_ = promoter.settings.filter
        if filter_.estimator_name != self.config.estimator_name or filter_.sentinel is not None:
            scores = score_pool(
                stages,
                pool,
                predictions,
                filter_.estimator_name,
                taught=self._taught(stages),
                sentinel=filter_.sentinel,
            )
        elif selection.payload["used_strategy"] != self.config.strategy:
            self.display.say(
                f"[yellow]round {stages.number}: {filter_.estimator_name} chooses the pseudo-labels all "
                "the same[/yellow]"
            )
        promoter.promote(
            stages.number,
            pool,
            predictions,
            scores,
            taken=frozenset(selection.payload["selected"]),
            untrained=rounds.unseen_structures(stages.annotations, stages.structures),
            allow_nothing=True,
        )

    def _stages(self, number: int) -> RoundStages:
        known = [
            (entry.payload["round"], _unaltered(annotation))
            for entry, annotation in zip(
                self.campaign.events("annotation"), self.campaign.annotations(), strict=True
            )
        ]
        return RoundStages(
            number=number,
            folder=self.campaign.round_folder(number),
            config=self.config,
            cohort=self.cohort,
            fingerprints=self.fingerprints,
            annotations=tuple(a for made_in, a in known if made_in is None or made_in < number),
            display=self.display,
            pseudo_labels=self._promoter.in_force(number) if self._promoter is not None else (),
            called=self.called,
        )

    def _pool(self, stages: RoundStages) -> list[Case]:
        by_id = self.cohort.dataset.by_id
        return [by_id[case_id] for case_id in self._askable(stages)]

    def _askable(self, stages: RoundStages) -> dict[str, tuple[str, ...]]:
        """Case of the pool -> structures that may be asked for in a round, in the order of case ids.

        Cases that somebody skipped in an earlier round wait until no other is left: asked for again, they
        would take the place of others in every round.
        """
        names = [structure.name for structure in self.cohort.dataset.structures]
        answered = None
        if self.config.annotator.kind == "oracle":
            answered = {case.case_id: frozenset(case.annotated) for case in self.cohort.dataset.cases}
        found = askable(sorted(self.cohort.pool), names, stages.annotations, self.config.unit, answered)
        skips = (entry.payload for entry in self.campaign.events("skip"))
        skipped = {
            skip["case_id"] for skip in skips if skip["round"] is None or skip["round"] < stages.number
        }
        return {name: asked for name, asked in found.items() if name not in skipped} or found

    def _measure(self, stages: RoundStages) -> None:
        """Train, segment the held-out cases, measure, and write the round's result into the ledger."""
        structures = [structure.name for structure in stages.structures]
        for name in rounds.unseen_structures(stages.annotations, stages.structures):
            self.display.say(
                f"[yellow]round {stages.number}: no labelled case has {name!r} yet; it is not trained and "
                "its DSC counts 0[/yellow]"
            )
        checkpoint = stages.train()
        held_out = [self.cohort.dataset.by_id[case_id] for case_id in self.cohort.held_out]
        results = stages.evaluate(stages.segment("held-out", held_out, checkpoint), held_out)
        summary = summarise(results, structures)
        cost = Cost.total(annotation.cost for annotation in stages.annotations)
        labelled = {annotation.case_id for annotation in stages.annotations}
        self.campaign.append(
            "result",
            round=stages.number,
            labelled_cases=len(labelled),
            budget=cost.as_dict(),
            **_known({"dsc": summary.dsc, "nsd": summary.nsd}),
            dsc_per_structure=_known(summary.per_structure_dsc),
            nsd_per_structure=_known(summary.per_structure_nsd),
            untrained=rounds.unseen_structures(stages.annotations, stages.structures),
            **({} if self._promoter is None else {"pseudo_labels": counted(stages.pseudo_labels)}),
            training_set=rounds.training_set_version(stages.annotations),
            checkpoint_sha256=checkpoint.sha256,
            code_version=code_version(),
            threads=use_threads(self.config.threads),
        )
        self.display.say(
            f"[bold]{self.called} {stages.number}[/bold]: {len(labelled)} labelled cases, "
            f"{shown(stages.pseudo_labels)}DSC {summary.dsc:.3f}, NSD {summary.nsd:.3f}"
        )

    def _annotate(
        self, stages: RoundStages, predictions: Sequence[Prediction], scores: Sequence[QualityScore]
    ) -> bool:
        """Have the selected cases annotated; whether all of them are back."""
        made = self.campaign.event("selection", stages.number)
        if made is None:
            raise CampaignError(f"Round {stages.number} has no selection to annotate")
        requests = requested(made.payload, [structure.name for structure in stages.structures])
        masks = {prediction.case_id: prediction.mask for prediction in predictions}
        asked = {request.case_id: request.slabs for request in requests}
        scores = scores_within(scores, asked)
        intake = self._intake(self.config.unit)
        annotator = make_annotator(self.config, self.campaign, self.cohort, stages.number, asked)
        waiting = intake.open(stages.number, requests)
        annotator.send(
            work_items(waiting, masks, scores, self.cohort.dataset, annotator, self.config.strategy)
        )
        taken = intake.take_in(stages.number, requests, annotator, masks)
        note_waiting(self.campaign, stages.number, annotator, taken)
        if taken.refused:
            raise AnnotationError("\n".join(taken.refused.values()))
        if taken.open:
            return False
        for why in taken.unsettled.values():
            self.display.say(f"  {escape(why)}")
        returned = self.campaign.annotations(stages.number)
        measured = rounds.revealed_dsc(returned, masks, stages.structures, asked)
        revealed = only_requested(measured, requests)
        with report.drawing(f"figures of round {stages.number}"):
            draw_round(stages, returned, masks, scores, revealed, self.campaign.name)
        patients = {case.case_id: case.patient_id for case in self.cohort.dataset.cases}
        found = trial_entry(scores, revealed, patients, stages.number)
        self.campaign.append("trial", round=stages.number, **found)
        return True

    def _draw_curve(self) -> None:
        results = [entry.payload for entry in self.campaign.events("result")]
        with report.drawing("curve of DSC"):
            report.dsc_curve(self.campaign.folder / report.FIGURES / "dsc.png", results, self.campaign.name)

    def _intake(self, unit: Unit) -> Intake:
        return Intake(
            campaign=self.campaign,
            dataset=self.cohort.dataset,
            costs=self.config.budget.cost_model,
            unit=unit,
        )

    def _finish(self, why: str) -> bool:
        if self.campaign.event("finished") is None:
            self.campaign.append("finished", why=why)
        return False


def _unaltered(annotation: Annotation) -> Annotation:
    """Refuse a file that is no longer what was let in: the ledger would name another hash."""
    if not annotation.path.is_file() or file_sha256(annotation.path) != annotation.sha256:
        raise CampaignError(
            f"The annotation {annotation.path} is not the file that was let in; restore it from a copy"
        )
    return annotation


def _learns_from_images(segmenter: SegmenterSettings) -> bool:
    """Whether a training uses images without masks, for consistency."""
    return isinstance(segmenter, SegmenterConfig) and segmenter.semi_supervision.consistency > 0.0


def _known(values: Mapping[str, float]) -> dict[str, float | None]:
    """Values for the ledger: None where nothing could be measured."""
    return {name: json_number(value) for name, value in values.items()}
