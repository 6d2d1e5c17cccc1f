import dataclasses
import math
import pickle
from pathlib import Path

import pytest

from cohort.errors import DataError
from cohort.records import Checkpoint, GradedMask, Prediction, QualityScore, TrainingCase

RECORDS = [
    TrainingCase(
        case_id="a", patient_id="a", image=Path("a"), label_map=Path("b"), annotated=frozenset({"liver"})
    ),
    Checkpoint(path=Path("c"), sha256="0" * 64, step=10, structures=("liver",)),
    Prediction(case_id="a", mask=Path("m"), checkpoint_sha256="0" * 64, voxels={"liver": 3}),
    GradedMask(
        case_id="a",
        patient_id="a",
        image=Path("a"),
        mask=Path("m"),
        reference=Path("r"),
        evaluated=frozenset({"liver"}),
        source="fold0/step10",
    ),
    QualityScore(case_id="a", structure="liver", raw=0.5, estimator="entropy"),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_hashes_and_cannot_be_changed(record: object) -> None:
    assert len({record, record}) == 1
    with pytest.raises(AttributeError, match="cannot assign"):
        setattr(record, dataclasses.fields(record)[0].name, "b")  # type: ignore[arg-type]


@pytest.mark.parametrize("record", RECORDS[:-1], ids=lambda record: type(record).__name__)
def test_a_record_pickles(record: object) -> None:
    assert pickle.loads(pickle.dumps(record)) == record


def test_a_score_without_a_value_is_missing() -> None:
    score = QualityScore(case_id="a", structure="liver", raw=math.nan, estimator="e", reason="empty mask")
    assert score.missing
    assert not QualityScore(case_id="a", structure="liver", raw=0.0, estimator="e").missing


@pytest.mark.parametrize("weights", [{"liver": 0.0}, {"liver": 1.1}, {"liver": math.nan}, {"spleen": 0.5}])
def test_weights_outside_0_to_1_or_of_other_structures_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(DataError, match=r"Training case a gives '(liver|spleen)' the weight"):
        TrainingCase(
            case_id="a",
            patient_id="a",
            image=Path("i"),
            label_map=Path("l"),
            annotated=frozenset({"liver"}),
            weights=weights,
        )
