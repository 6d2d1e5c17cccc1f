from math import nan

import numpy as np
import pytest

from cohort.budget import Cost
from cohort.errors import SelectionError
from cohort.selection import Candidate
from cohort.selection.per_cost import Deficit, PerCost
from cohort.selection.quality import Quality


def candidate(case_id: str, minutes: float, **scores: float) -> Candidate:
    return Candidate(
        case_id=case_id,
        patient_id="p",
        structures=tuple(scores),
        scores=scores,
        cost=Cost(cases=1.0, minutes=minutes),
    )


def priorities(strategy: Deficit | PerCost, *pool: Candidate) -> list[float]:
    return strategy.priorities(pool, np.random.default_rng(0)).tolist()


def test_a_deficit_is_summed_over_structures() -> None:
    found = priorities(Deficit(), candidate("a", 1.0, liver=0.75, aorta=0.5), candidate("b", 1.0, liver=0.25))
    assert found == [0.75, 0.75]


def test_values_beyond_a_dsc_are_clipped_and_empty_masks_count_as_the_worst() -> None:
    found = priorities(
        Deficit(),
        candidate("a", 1.0, liver=1.5),
        candidate("b", 1.0, liver=nan),
        candidate("c", 1.0, liver=0.5),
    )
    assert found == [0.0, 0.5, 0.5]


def test_a_gain_is_divided_by_minutes() -> None:
    strategy = PerCost(inner=Deficit(), from_zero=True)
    assert priorities(strategy, candidate("a", 4.0, liver=0.0), candidate("b", 1.0, liver=0.5)) == [0.25, 0.5]


def test_in_another_currency() -> None:
    strategy = PerCost(inner=Deficit(), currency="cases", from_zero=True)
    assert priorities(strategy, candidate("a", 4.0, liver=0.0), candidate("b", 1.0, liver=0.5)) == [1.0, 0.5]


def test_the_lowest_priority_is_no_gain_for_an_estimator_without_a_zero() -> None:
    pool = (candidate("a", 1.0, liver=-3.0), candidate("b", 2.0, liver=-3.0), candidate("c", 1.0, liver=-1.0))
    found = priorities(PerCost(inner=Quality()), *pool)
    assert found == pytest.approx([1.0, 0.5, 0.25])


def test_what_costs_nothing_has_no_gain_per_cost() -> None:
    with pytest.raises(SelectionError, match="Case a is expected to cost no minutes"):
        priorities(PerCost(inner=Deficit()), candidate("a", 0.0, liver=0.5))
