"""What a round spends its budget on: candidates from masks and scores, a strategy, and the ledger's entry."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from cohort.case import Case
from cohort.errors import SelectionError
from cohort.records import Prediction, QualityScore
from cohort.selection import Candidate, select
from cohort.trial import RankEvidence
from cohort.volume import write_bytes
from flows import rounds
from flows.campaign import Campaign
from flows.candidates import NO_FEATURES, candidates, ranked_table
from flows.config import ActiveLearningConfig
from flows.features import CACHE, FeatureTable, feature_stage, segmenter_table
from flows.requests import annotated_slabs, as_listed
from flows.round_stages import RoundStages
from flows.slab_candidates import SlabPool
from flows.stages import file_sha256
from flows.trial import Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundChoice:
    """The choice of one round.

    Args:
        campaign: whose ledger gets the selection.
        stages: of the round.
        asked: case of the pool -> structures that may be asked for.
    """

    campaign: Campaign
    stages: RoundStages
    asked: Mapping[str, tuple[str, ...]]

    def make(
        self,
        pool: Sequence[Case],
        predictions: Sequence[Prediction],
        scores: Sequence[QualityScore],
        trial: Trial,
    ) -> bool:
        """Rank the pool, select within the budget, and write the selection into the ledger.

        Args:
            pool: cases that are not wholly annotated.
            predictions: their masks.
            scores: of the masks, recalibrated.
            trial: of the estimator, which may put another strategy in the place of the campaign's.

        Returns:
            False where slabs are asked for and none is left; the ledger gets nothing then.

        Raises:
            SelectionError: if nothing of the pool fits into the budget.
        """
        looks = self._looks(predictions)
        among = self._candidates(pool, predictions, scores, looks)
        if not among and self._config.unit == "slices":
            return False
        self._select(among, looks, scores, trial)
        return True

    @property
    def _config(self) -> ActiveLearningConfig:
        return self.stages.config

    def _candidates(
        self,
        pool: Sequence[Case],
        predictions: Sequence[Prediction],
        scores: Sequence[QualityScore],
        looks: FeatureTable,
    ) -> tuple[Candidate, ...]:
        stages = self.stages
        slabs = None
        if self._config.unit == "slices":
            done = annotated_slabs(stages.annotations)
            slabs = SlabPool.read(predictions, stages.structures, self._config.slices_per_slab, done)
        return candidates(
            [case.view() for case in pool],
            predictions,
            scores,
            stages.structures,
            self._config.budget.cost_model,
            unit=self._config.unit,
            asked=self.asked,
            looks=looks,
            slabs=slabs,
        )

    def _select(
        self,
        among: Sequence[Candidate],
        looks: FeatureTable,
        scores: Sequence[QualityScore],
        trial: Trial,
    ) -> None:
        strategy, used, evidence = trial.strategy()
        if used != self._config.strategy and evidence is not None:
            self._say_why(used, evidence)
        stages = self.stages
        budget = self._config.budget.limit
        selection = select(
            strategy,
            among,
            budget,
            round=stages.number,
            rounds=self._config.rounds - 1,
            labelled=looks.of(sorted({annotation.case_id for annotation in stages.annotations})),
            seed=self._config.seed,
        )
        if not selection.selected:
            raise SelectionError(
                f"Round {stages.number}: no case of the pool fits into a budget of {budget.per_round:g} "
                f"{budget.currency}; start a campaign with a larger budget.per_round"
            )
        table = ranked_table(selection, scores, stages.structures).to_csv(index=False).encode()
        write_bytes(stages.folder / rounds.RANKED, table)
        self.campaign.append(
            "selection",
            round=stages.number,
            strategy=self._config.strategy,
            estimator=self._config.estimator_name,
            used_strategy=used,
            evidence=asdict(evidence) if evidence is not None else None,
            selected=list(selection.selected),
            requests=as_listed(selection.requests),
            held_back=[[*key, why] for key, why in selection.held_back.items()],
            predicted_cost=selection.predicted_cost.as_dict(),
            ranked_sha256=file_sha256(stages.folder / rounds.RANKED),
        )

    def _say_why(self, used: str, evidence: RankEvidence) -> None:
        self.stages.display.say(
            f"[yellow]round {self.stages.number}: {evidence.cases} annotated cases do not show that the "
            f"order of {self._config.estimator_name} has to do with DSC (rank correlation "
            f"{evidence.correlation:.2f}, p {evidence.p:.2f}); this round is chosen by {used}[/yellow]"
        )

    def _looks(self, predictions: Sequence[Prediction]) -> FeatureTable:
        """How alike the labelled cases and the pool are, where the strategy asks for it."""
        if not self._config.uses_features:
            return NO_FEATURES
        stages = self.stages
        by_id = stages.cohort.dataset.by_id
        table = feature_stage(
            self.campaign.folder,
            [by_id[case_id].view() for case_id in (*stages.cohort.start, *stages.cohort.pool)],
            stages.fingerprints,
            self._config.campaigns_root / CACHE,
            stages.step,
        )
        if self._config.features == "image":
            return table
        known = {prediction.case_id for prediction in predictions}
        annotated = sorted({annotation.case_id for annotation in stages.annotations} - known)
        labelled = stages.segment("labelled", [by_id[name] for name in annotated], stages.train())
        return segmenter_table([*predictions, *labelled], table.broken)
