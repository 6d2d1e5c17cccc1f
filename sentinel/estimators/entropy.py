"""The segmenter's own uncertainty as a quality estimator."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cohort.case import CaseView, Structure
from cohort.errors import DataError
from cohort.records import Prediction, QualityScore
from sentinel.config import Report
from sentinel.estimators.base import EMPTY_MASK, matched, predicted_voxels


@dataclass(frozen=True, slots=True, kw_only=True)
class EntropyEstimator:
    """Ranks masks by the segmenter's entropy: raw is minus the entropy; not calibrated to DSC.

    Args:
        name: of the estimator.
        needs: the segmenter's "entropy" per structure.
    """

    name: str = "entropy"
    needs: frozenset[str] = frozenset({"entropy"})

    def estimate(
        self,
        cases: Sequence[CaseView],
        predictions: Sequence[Prediction],
        structures: Sequence[Structure],
        report: Report | None = None,
    ) -> tuple[QualityScore, ...]:
        """Score every structure of every case; see `QualityEstimator.estimate`.

        Raises:
            DataError: for a case without a prediction, or with two, or a prediction without entropy.
        """
        scores: list[QualityScore] = []
        for done, (case, prediction) in enumerate(matched(cases, predictions), start=1):
            scores.extend(self._quality(case, prediction, structure) for structure in structures)
            if report is not None:
                report(done, len(cases), {})
        return tuple(scores)

    def _quality(self, case: CaseView, prediction: Prediction, structure: Structure) -> QualityScore:
        empty = predicted_voxels(prediction, structure) == 0
        return QualityScore(
            case_id=case.case_id,
            structure=structure.name,
            raw=math.nan if empty else -_entropy(prediction, structure),
            estimator=self.name,
            reason=EMPTY_MASK if empty else "",
        )


def _entropy(prediction: Prediction, structure: Structure) -> float:
    value = prediction.uncertainty.get("entropy", {}).get(structure.name, math.nan)
    if math.isnan(value):
        raise DataError(
            f"The prediction of case {prediction.case_id} has no entropy for {structure.name!r}, though its "
            "mask is not empty; predict with uncertainty=('entropy',)"
        )
    return value
