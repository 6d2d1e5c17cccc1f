"""Disagreement of other models with a mask, by hand."""

import math
from pathlib import Path

import numpy as np
import pytest

from cohort.case import Structure
from cohort.errors import DataError
from cohort.records import Prediction
from segmenters.committee import COMMITTEE, with_committee
from segmenters.predictions import write_prediction

SHAPE = (8, 12, 16)
Structures = tuple[Structure, ...]


@pytest.fixture
def predict(tmp_path: Path, affine: np.ndarray, structures: Structures):
    """Case, rows of liver and rows of spleen -> a prediction on disk."""
    made: list[Prediction] = []

    def make(case_id: str, liver: range, spleen: range = range(0)) -> Prediction:
        labels = np.zeros(SHAPE, dtype=np.uint8)
        labels[2:5, list(liver), 1:6] = 2
        labels[2:5, list(spleen), 9:14] = 5
        folder = tmp_path / str(len(made))
        uncertainty = {"entropy": {"liver": 0.5}}
        made.append(write_prediction(folder, case_id, labels, affine, structures, "sha", uncertainty))
        return made[-1]

    return make


def test_one_minus_the_mean_dsc_with_every_member(predict, structures: Structures) -> None:
    own = predict("a", range(2, 6), range(3, 5))
    members = [predict("a", range(2, 6), range(3, 5)), predict("a", range(4, 8)), predict("a", range(6))]
    (found,) = with_committee([own], {"a": members}, structures)
    values = found.uncertainty[COMMITTEE]
    # 4 rows against the same 4, against 4 of which 2 are shared, and against 6 of which 4 are
    assert values["liver"] == pytest.approx(1.0 - (1.0 + 4 / 8 + 8 / 10) / 3)
    # two members have no spleen at all
    assert values["spleen"] == pytest.approx(1.0 - 1 / 3)


def test_an_empty_mask_has_none_and_a_lonely_one_has_all(predict, structures: Structures) -> None:
    own, other = predict("a", range(2, 6)), predict("a", range(6, 10), range(3, 5))
    (found,) = with_committee([own], {"a": [other]}, structures)
    assert found.uncertainty[COMMITTEE]["liver"] == 1.0
    assert math.isnan(found.uncertainty[COMMITTEE]["spleen"])
    assert math.isnan(found.uncertainty[COMMITTEE]["stomach"])


def test_predictions_keep_their_order_and_what_they_knew(predict, structures: Structures) -> None:
    own = [predict("b", range(2, 6)), predict("a", range(2, 6))]
    members = {"a": [predict("a", range(2, 6))], "b": [predict("b", range(4, 8))]}
    found = with_committee(own, members, structures)
    assert [(p.case_id, p.mask) for p in found] == [(p.case_id, p.mask) for p in own]
    assert [p.uncertainty[COMMITTEE]["liver"] for p in found] == pytest.approx([0.5, 0.0])
    assert [p.uncertainty["entropy"] for p in found] == [{"liver": 0.5}] * 2
    assert COMMITTEE not in own[0].uncertainty


@pytest.mark.parametrize("members", [{}, {"a": []}])
def test_a_case_without_a_member(
    predict, structures: Structures, members: dict[str, list[Prediction]]
) -> None:
    with pytest.raises(DataError, match="No other model predicted case a"):
        with_committee([predict("a", range(2, 6))], members, structures)


def test_a_member_whose_file_is_broken(predict, structures: Structures) -> None:
    own, other = predict("a", range(2, 6)), predict("a", range(2, 6))
    other.mask.write_bytes(other.mask.read_bytes()[:-20])
    with pytest.raises(DataError, match=other.mask.name):
        with_committee([own], {"a": [other]}, structures)
