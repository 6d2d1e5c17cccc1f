from collections.abc import Mapping
from math import inf, nan

import numpy as np
import pytest

from cohort.budget import Cost
from cohort.errors import SelectionError
from cohort.selection import Candidate
from cohort.selection.quality import Quality


def priorities(*scores: Mapping[str, float]) -> list[float]:
    pool = [
        Candidate(case_id=f"c{n}", patient_id="p", scores=s, cost=Cost(cases=1.0))
        for n, s in enumerate(scores)
    ]
    values = Quality().priorities(pool, np.random.default_rng(0))
    assert values.dtype == np.float64
    return values.tolist()


def test_the_priority_is_minus_the_mean_quality() -> None:
    assert priorities({"liver": 0.5, "spleen": 0.75}, {"liver": 0.25, "spleen": 0.25}) == [-0.625, -0.25]


def test_a_worse_mask_comes_sooner() -> None:
    bad, good = priorities({"liver": 0.1}, {"liver": 0.9})
    assert bad > good


def test_an_empty_mask_counts_as_the_worst_of_its_structure() -> None:
    values = priorities(
        {"liver": 0.75, "spleen": nan}, {"liver": 0.75, "spleen": 0.25}, {"liver": 0.75, "spleen": 0.75}
    )
    assert values == [-0.5, -0.5, -0.75]


def test_worst_is_the_lowest_for_scores_below_zero_too() -> None:
    assert priorities({"liver": nan}, {"liver": -2.0}, {"liver": -1.0}) == [2.0, 2.0, 1.0]


def test_a_structure_that_nobody_has_a_score_for_is_left_out() -> None:
    assert priorities({"liver": 0.5, "aorta": nan}, {"liver": 0.25, "aorta": nan}) == [-0.5, -0.25]


def test_a_structure_that_was_not_asked_for_does_not_count() -> None:
    assert priorities({"liver": 0.5}, {"liver": 0.25, "spleen": 0.75}) == [-0.5, -0.5]


def test_a_case_that_is_left_with_nothing_counts_as_the_worst() -> None:
    assert priorities({"aorta": nan}, {"liver": 0.25}, {"liver": 0.75}) == [-0.25, -0.25, -0.75]


def test_where_nothing_is_scored_all_are_equal() -> None:
    assert priorities({"liver": nan}, {"liver": nan}) == [0.0, 0.0]
    assert priorities() == []


@pytest.mark.parametrize("score", [inf, -inf])
def test_an_infinite_score_is_refused(score: float) -> None:
    with pytest.raises(SelectionError, match="Case c1 has an infinite quality score for 'liver'"):
        priorities({"liver": 0.5}, {"liver": score})
