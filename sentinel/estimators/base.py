"""What every quality estimator is."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

from cohort.case import CaseView, Structure
from cohort.errors import DataError
from cohort.records import Prediction, QualityScore
from sentinel.config import Report


@runtime_checkable
class QualityEstimator(Protocol):
    """Answers "how good is this mask" for predicted masks without a reference.

    Attributes:
        name: short, of the registry.
        needs: kinds of `Prediction.uncertainty` that it reads, for the segmenter to compute.
    """

    @property
    def name(self) -> str:
        """Short name, of the registry."""
        ...

    @property
    def needs(self) -> frozenset[str]:
        """Kinds of uncertainty that it reads."""
        ...

    def estimate(
        self,
        cases: Sequence[CaseView],
        predictions: Sequence[Prediction],
        structures: Sequence[Structure],
        report: Report | None = None,
    ) -> tuple[QualityScore, ...]:
        """Score every structure of every case; higher is better.

        Args:
            cases: in any order.
            predictions: one for each case, in any order.
            structures: to score.
            report: told of the cases done.

        Returns:
            One score per case and structure, in the order of cases, then structures. Where the predicted
            mask is empty: raw NaN and reason "empty mask".

        Raises:
            DataError: for a case without a prediction, or with two.
        """
        ...


def matched(
    cases: Sequence[CaseView], predictions: Sequence[Prediction]
) -> Iterator[tuple[CaseView, Prediction]]:
    """Each case with its prediction, in the order of cases.

    Raises:
        DataError: for a case without a prediction, or with two.
    """
    by_id: Mapping[str, list[Prediction]] = {case.case_id: [] for case in cases}
    for prediction in predictions:
        by_id.get(prediction.case_id, []).append(prediction)
    for case in cases:
        found = by_id[case.case_id]
        if len(found) != 1:
            raise DataError(
                f"Case {case.case_id} has {len(found)} predictions, expected one; "
                "predict it once before estimating"
            )
        yield case, found[0]


def score_each(
    cases: Sequence[CaseView],
    predictions: Sequence[Prediction],
    report: Report | None,
    judge: Callable[[CaseView, Prediction], Iterable[QualityScore]],
) -> tuple[QualityScore, ...]:
    """The scores of every case in turn, for an estimator that judges one case at a time.

    Raises:
        DataError: for a case without a prediction, or with two.
    """
    scores: list[QualityScore] = []
    for done, (case, prediction) in enumerate(matched(cases, predictions), start=1):
        scores.extend(judge(case, prediction))
        if report is not None:
            report(done, len(cases), {})
    return tuple(scores)


def predicted_voxels(prediction: Prediction, structure: Structure) -> int:
    """How many voxels a prediction gives to a structure.

    Raises:
        DataError: if the prediction does not say.
    """
    if structure.name not in prediction.voxels:
        raise DataError(
            f"The prediction of case {prediction.case_id} does not count the voxels of {structure.name!r}; "
            "expected a count for every structure, 0 for an empty mask: predict the case again"
        )
    return prediction.voxels[structure.name]
