"""What a training does beside its flow; whole trainings are in tests/integration."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from cohort.case import Case
from cohort.records import QualityScore
from flows.semi_supervised import SelfTraining

POOL = (
    Case(
        case_id="a",
        patient_id="a",
        image=Path("a"),
        reference=Path("a"),
        annotated={"liver": 1.0, "spleen": 0.1},
    ),
    Case(case_id="b", patient_id="b", image=Path("b")),
)
SCORES = tuple(
    QualityScore(case_id=case_id, structure=name, raw=0.5, estimator="entropy")
    for case_id in "ab"
    for name in ("liver", "spleen")
)


@pytest.mark.parametrize(("contoured_only", "kept"), [(False, 4), (True, 1)])
def test_of_incomplete_references_only_what_they_hold_is_a_candidate(contoured_only: bool, kept: int) -> None:
    """The spleen of a is only in part in its reference, b has none at all."""
    training = SimpleNamespace(training=SimpleNamespace(contoured_only=contoured_only))
    found = SelfTraining._candidates_among(training, SCORES, POOL)  # type: ignore[arg-type]
    assert len(found) == kept
    assert found[0] == SCORES[0]
