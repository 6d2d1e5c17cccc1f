import math
from dataclasses import replace

import pytest

from cohort.records import QualityScore
from cohort.slab_scores import score_within, scores_within
from cohort.slabs import Slab

SCORE = QualityScore(
    case_id="a",
    structure="liver",
    raw=0.6,
    predicted_dsc=0.7,
    lower=0.5,
    upper=0.9,
    estimator="sentinel",
    slice_indices=(4, 6, 8, 9),
    slice_scores=(0.2, 0.4, 0.9, 1.1),
)


def value(*slabs: tuple[int, int]) -> float:
    return score_within(SCORE, [Slab(first=first, last=last) for first, last in slabs]).raw


def test_the_mean_over_the_slices_in_the_slabs() -> None:
    assert value((4, 7)) == pytest.approx(0.3)
    assert value((4, 7), (8, 8)) == pytest.approx(0.5)


def test_a_slab_without_a_judged_slice_has_the_nearest_one() -> None:
    assert value((0, 1)) == 0.2
    assert value((12, 15)) == 1.1
    assert value((7, 7)) == 0.4, "of two as near the first"


def test_a_slab_has_a_predicted_dsc_without_the_bounds_of_whole_masks() -> None:
    found = score_within(SCORE, [Slab(first=9, last=9)])
    assert (found.raw, found.predicted_dsc) == (1.1, 1.0)
    assert math.isnan(found.lower)
    assert math.isnan(found.upper)
    uncalibrated = replace(SCORE, predicted_dsc=math.nan)
    assert math.isnan(score_within(uncalibrated, [Slab(first=9, last=9)]).predicted_dsc)


def test_estimators_of_whole_masks_and_empty_masks_keep_their_score() -> None:
    whole = replace(SCORE, slice_indices=(), slice_scores=())
    empty = replace(whole, raw=math.nan, reason="empty mask")
    for score in (whole, empty):
        assert score_within(score, [Slab(first=0, last=3)]) is score


def test_only_cases_of_which_slabs_are_asked_change() -> None:
    other = replace(SCORE, case_id="b")
    found = scores_within([SCORE, other], {"a": (Slab(first=4, last=5),), "b": ()})
    assert [score.raw for score in found] == [0.2, 0.6]
