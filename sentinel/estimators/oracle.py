"""The upper bound: masks judged by their references. It shows what perfect knowledge of quality would buy."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cohort.case import CaseView, Structure
from cohort.errors import DataError
from cohort.metrics import dsc_per_structure
from cohort.records import EMPTY_MASK, NO_REFERENCE, Prediction, QualityScore
from cohort.volume import check_same_grid, read_label_map
from sentinel.config import Report
from sentinel.estimators.base import predicted_voxels, score_each


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The annotation of a case, which only an oracle may read.

    Args:
        path: of the label map.
        evaluated: structures in it that are fit for a metric.
    """

    path: Path
    evaluated: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """What an oracle knows.

    Args:
        by_case: case id -> its annotation.
    """

    by_case: Mapping[str, Reference] = field(hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class OracleEstimator:
    """Reads references: raw, predicted_dsc and both bounds are the mask's true DSC.

    No honest strategy can use it. A structure that a case's annotator did not contour gets no score with the
    reason "no reference of this structure", and so does one that is not there, whether its mask is empty or
    not. An empty mask of a structure that is there has none with the reason "empty mask", as with every
    estimator.

    Args:
        references: of every case that is to be scored.
        name: of the estimator.
        needs: nothing of the segmenter's uncertainty.
    """

    references: References
    name: str = "oracle"
    needs: frozenset[str] = frozenset()

    def estimate(
        self,
        cases: Sequence[CaseView],
        predictions: Sequence[Prediction],
        structures: Sequence[Structure],
        report: Report | None = None,
    ) -> tuple[QualityScore, ...]:
        """Score every structure of every case; see `QualityEstimator.estimate`.

        Raises:
            DataError: for a case without a prediction, or with two, or without a reference.
            GeometryError: for a mask that is not on its reference's grid.
        """
        return score_each(cases, predictions, report, lambda case, of: self._of_case(case, of, structures))

    def _of_case(
        self, case: CaseView, prediction: Prediction, structures: Sequence[Structure]
    ) -> list[QualityScore]:
        reference = self.references.by_case.get(case.case_id)
        if reference is None:
            raise DataError(
                f"Case {case.case_id} has no reference, so the oracle cannot judge its mask; "
                "take another estimator"
            )
        mask, true = read_label_map(prediction.mask), read_label_map(reference.path)
        check_same_grid(true, mask, reference.path, prediction.mask)
        known = [s for s in structures if s.name in reference.evaluated]
        dscs = dsc_per_structure(mask.array, true.array, known)
        return [self._quality(case, prediction, s, dscs.get(s.name, math.nan)) for s in structures]

    def _quality(
        self, case: CaseView, prediction: Prediction, structure: Structure, dsc: float
    ) -> QualityScore:
        empty = predicted_voxels(prediction, structure) == 0
        value = math.nan if empty else dsc
        reason = NO_REFERENCE if math.isnan(dsc) else EMPTY_MASK if empty else ""
        return QualityScore(
            case_id=case.case_id,
            structure=structure.name,
            raw=value,
            predicted_dsc=value,
            lower=value,
            upper=value,
            estimator=self.name,
            reason=reason,
        )
