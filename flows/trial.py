"""The estimator on trial in a campaign: what the ledger remembers of it, and what follows from that."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cohort.records import QualityScore
from cohort.seeds import derive_seed
from cohort.selection import Strategy, resolve
from cohort.trial import RankEvidence, RevealedMask, rank_evidence, revealed_masks, verdict
from flows.campaign import Campaign
from flows.config import ActiveLearningConfig
from flows.stages import json_number
from sentinel.estimators.registry import estimator_entry
from sentinel.recalibration import recalibrated, recalibration

_NUMBERS = ("raw", "predicted_dsc", "lower", "upper", "dsc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What earlier rounds of a campaign say about its estimator.

    Args:
        config: of the campaign.
        masks: of earlier rounds, whose DSC annotation revealed.
    """

    config: ActiveLearningConfig
    masks: tuple[RevealedMask, ...]

    @classmethod
    def before(cls, campaign: Campaign, config: ActiveLearningConfig, number: int) -> "Trial":
        """What the rounds before one say."""
        entries = [entry for entry in campaign.events("trial") if entry.payload["round"] < number]
        masks = (mask for entry in entries for mask in _masks(entry.payload))
        return cls(config=config, masks=tuple(masks))

    def recalibrated(self, scores: Sequence[QualityScore]) -> tuple[QualityScore, ...]:
        """Scores with predicted DSC and bounds put right; what ranks stays as it is."""
        if not self.config.trial.recalibrate:
            return tuple(scores)
        calibration = recalibration(self.masks, seed=derive_seed(self.config.seed, "recalibration"))
        return recalibrated(scores, calibration)

    def evidence(self) -> RankEvidence:
        """Whether the estimator's order had to do with DSC."""
        return rank_evidence(self.masks, seed=derive_seed(self.config.seed, "trial"))

    def strategy(self) -> tuple[Strategy, str, RankEvidence | None]:
        """The strategy of the round, its name in the config, and what the choice rests on.

        Returns:
            The evidence is None where there is nothing to judge: a strategy without scores, one that reads
            references, no fallback, or too few annotated cases yet.
        """
        chosen, estimator = self.config.resolved_strategy
        fallback = self.config.trial.fallback
        if fallback is None or estimator is None or estimator_entry(estimator).reads_references:
            return chosen, self.config.strategy, None
        found = self.evidence()
        if found.cases < self.config.trial.min_cases:
            return chosen, self.config.strategy, None
        if found.p <= 1.0 - self.config.trial.confidence:
            return chosen, self.config.strategy, found
        return resolve(fallback)[0], fallback, found


def trial_entry(
    scores: Sequence[QualityScore],
    revealed: Mapping[tuple[str, str], float],
    patients: Mapping[str, str],
    number: int,
) -> dict[str, Any]:
    """What the ledger keeps of a round's trial: the verdict, and every mask, to be judged again later."""
    masks = revealed_masks(scores, revealed, patients, number)
    return {
        "estimator": verdict(masks) if scores else {},
        "revealed_dsc": [[*key, value] for key, value in sorted(revealed.items())],
        "masks": [
            {
                "case_id": mask.case_id,
                "patient_id": mask.patient_id,
                "structure": mask.structure,
                **{name: json_number(getattr(mask, name)) for name in _NUMBERS},
            }
            for mask in masks
        ],
    }


def _masks(payload: Mapping[str, Any]) -> list[RevealedMask]:
    """The masks of a ledger's entry; none where it was written before they were kept."""
    return [
        RevealedMask(
            case_id=mask["case_id"],
            patient_id=mask["patient_id"],
            structure=mask["structure"],
            round=payload["round"],
            **{name: math.nan if mask[name] is None else mask[name] for name in _NUMBERS},
        )
        for mask in payload.get("masks", ())
    ]
