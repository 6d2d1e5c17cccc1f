"""The segmenter's own uncertainty as a quality estimator: entropy, MC dropout, inconsistency."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cohort.case import CaseView, Structure
from cohort.errors import DataError
from cohort.records import EMPTY_MASK, NO_REGION, Prediction, QualityScore
from sentinel.config import Report
from sentinel.estimators.base import predicted_voxels, score_each

KINDS = ("entropy", "inconsistency", "mc_dropout", "predictive_entropy", "bald")


@dataclass(frozen=True, slots=True, kw_only=True)
class UncertaintyEstimator:
    """Ranks masks by one kind of the segmenter's uncertainty: raw is minus that; not calibrated to DSC.

    Args:
        name: of the estimator and of the uncertainty, one of `KINDS`.
    """

    name: str

    @property
    def needs(self) -> frozenset[str]:
        """The segmenter's uncertainty of that name."""
        return frozenset({self.name})

    def estimate(
        self,
        cases: Sequence[CaseView],
        predictions: Sequence[Prediction],
        structures: Sequence[Structure],
        report: Report | None = None,
    ) -> tuple[QualityScore, ...]:
        """Score every structure of every case; see `QualityEstimator.estimate`.

        Raises:
            DataError: for a case without a prediction, or with two, or a prediction without the uncertainty.
        """
        return score_each(
            cases,
            predictions,
            report,
            lambda case, of: (self._quality(case, of, structure) for structure in structures),
        )

    def _quality(self, case: CaseView, prediction: Prediction, structure: Structure) -> QualityScore:
        empty = predicted_voxels(prediction, structure) == 0
        raw = math.nan if empty else -self._uncertainty(prediction, structure)
        return QualityScore(
            case_id=case.case_id,
            structure=structure.name,
            raw=raw,
            estimator=self.name,
            reason=EMPTY_MASK if empty else NO_REGION if math.isnan(raw) else "",
        )

    def _uncertainty(self, prediction: Prediction, structure: Structure) -> float:
        found = prediction.uncertainty.get(self.name, {})
        if structure.name not in found:
            raise DataError(
                f"The prediction of case {prediction.case_id} has no {self.name} for {structure.name!r}, "
                f"though its mask is not empty; predict with uncertainty=({self.name!r},)"
            )
        return found[structure.name]
