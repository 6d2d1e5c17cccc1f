"""The sentinel as a quality estimator."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cohort.case import CaseView, Structure
from cohort.records import Prediction, QualityScore
from cohort.volume import check_same_grid, read_grid, read_image, read_label_map
from sentinel.config import Report
from sentinel.estimators.base import matched
from sentinel.planning import CaseMasks
from sentinel.scoring import MaskScore, Sentinel
from sentinel.slices import stored_slices


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SentinelEstimator:
    """Scores masks by a trained sentinel: raw is its score; predicted_dsc is calibrated, or raw in [0, 1].

    Args:
        sentinel: trained for the structures that are to be scored.
        name: of the estimator.
        needs: nothing of the segmenter's uncertainty.
    """

    sentinel: Sentinel
    name: str = "sentinel"
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
            DataError: for a case without a prediction, or with two, or a file that is missing or broken.
            GeometryError: for a mask that is not on its image's grid.
            ModelError: for a structure that the sentinel was not trained for.
        """
        self.sentinel.check_knows(structure.name for structure in structures)
        scores = self.sentinel.score_many(_masks(cases, predictions, structures, report))
        return tuple(
            self._quality(case, score)
            for case, of_case in zip(cases, scores, strict=True)
            for score in of_case
        )

    def _quality(self, case: CaseView, score: MaskScore) -> QualityScore:
        missing = math.isnan(score.predicted_dsc)
        slices = self._slices(case, score)
        return QualityScore(
            case_id=case.case_id,
            structure=score.structure,
            raw=score.raw,
            predicted_dsc=math.nan if missing else min(1.0, max(0.0, score.predicted_dsc)),
            lower=score.lower,
            upper=score.upper,
            estimator=self.name,
            reason=score.reason if missing else "",
            slice_indices=tuple(slices),
            slice_scores=tuple(slices.values()),
        )

    def _slices(self, case: CaseView, score: MaskScore) -> dict[int, float]:
        """Slice of the image as stored -> its score; none where the sentinel slices along another axis."""
        indices: tuple[int, ...] | None = score.slice_indices
        if indices and self.sentinel.config.orientation == "canonical":
            indices = stored_slices(indices, read_grid(case.image))
        return {} if indices is None else dict(sorted(zip(indices, score.slice_scores, strict=True)))


def _masks(
    cases: Sequence[CaseView],
    predictions: Sequence[Prediction],
    structures: Sequence[Structure],
    report: Report | None,
) -> Iterator[CaseMasks]:
    for done, (case, prediction) in enumerate(matched(cases, predictions), start=1):
        image, labels = read_image(case.image), read_label_map(prediction.mask)
        check_same_grid(image, labels, case.image, prediction.mask)
        yield image, {s.name: labels.array == s.label for s in structures}
        if report is not None:
            report(done, len(cases), {})
