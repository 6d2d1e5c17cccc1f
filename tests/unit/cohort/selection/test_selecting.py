from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from cohort.annotation import Request
from cohort.budget import Budget, Cost
from cohort.errors import SelectionError
from cohort.selection import STRATEGIES, Candidate, RoundContext, Selection, select

CASES = Budget(currency="cases", per_round=2.0)


@dataclass(frozen=True, kw_only=True)
class Given:
    """A strategy whose priorities are given."""

    by_id: dict[str, float]
    needs_scores: bool = False
    needs_features: bool = False
    name: str = "given"

    def priorities(
        self, candidates: Sequence[Candidate], rng: np.random.Generator, context: RoundContext
    ) -> np.ndarray:
        return np.array([self.by_id[c.case_id] for c in candidates])


def candidates(ids: str, **costs: float) -> list[Candidate]:
    return [
        Candidate(
            case_id=i, patient_id=i, structures=("liver",), cost=Cost(cases=1.0, minutes=costs.get(i, 1.0))
        )
        for i in ids
    ]


def chosen(priorities: dict[str, float], budget: Budget = CASES, **costs: float) -> Selection:
    return select(Given(by_id=priorities), candidates("".join(priorities), **costs), budget, round=0, seed=0)


def test_the_highest_priorities_are_selected_in_rank_order() -> None:
    selection = chosen({"a": 0.1, "b": 0.9, "c": -3.0, "d": 0.5})
    assert selection.selected == ("b", "d")
    assert [place[:3] for place in selection.ranked] == [
        ("b", 0.9, 0),
        ("d", 0.5, 1),
        ("a", 0.1, 2),
        ("c", -3.0, 3),
    ]
    assert [place.selected for place in selection.ranked] == [True, True, False, False]
    assert selection.requests == tuple(Request(case_id=i, structures=("liver",)) for i in "bd")
    assert selection.ranked[0].case_id == "b"
    assert selection.predicted_cost == Cost(cases=2.0, minutes=2.0)
    assert (selection.round, selection.strategy, selection.seed) == (0, "given", 0)


def test_a_case_that_does_not_fit_is_skipped_for_a_cheaper_one() -> None:
    budget = Budget(currency="minutes", per_round=10.0)
    selection = chosen({"a": 4.0, "b": 3.0, "c": 2.0, "d": 1.0}, budget, a=6.0, b=5.0, c=4.0, d=1.0)
    assert selection.selected == ("a", "c")
    assert selection.predicted_cost.minutes == 10.0


def test_a_budget_that_affords_nothing_selects_nothing() -> None:
    selection = chosen({"a": 4.0, "b": 3.0}, Budget(currency="cases", per_round=0.5))
    assert selection.selected == ()
    assert selection.predicted_cost == Cost.zero()
    assert len(selection.ranked) == 2


def test_no_candidates_no_selection() -> None:
    for strategy in STRATEGIES.values():
        selection = select(strategy, [], CASES, round=0, seed=0)
        assert (selection.selected, selection.ranked) == ((), ())


def test_ties_are_broken_by_a_seeded_hash_and_not_by_name() -> None:
    tied = dict.fromkeys("abcdefgh", 1.0)
    orders = set()
    for seed in range(8):
        pool = candidates("abcdefgh")
        selections = [
            select(Given(by_id=tied), ordered, CASES, round=0, seed=seed) for ordered in (pool, pool[::-1])
        ]
        assert selections[0] == selections[1]
        orders.add(selections[0].selected)
    assert len(orders) > 4
    rounds = {
        select(Given(by_id=tied), candidates("abcdefgh"), CASES, round=n, seed=0).selected for n in range(8)
    }
    assert len(rounds) > 4


def test_a_case_that_comes_twice_is_refused() -> None:
    with pytest.raises(SelectionError, match="Candidate a comes twice"):
        select(Given(by_id={"a": 1.0}), candidates("aa"), CASES, round=0, seed=0)


@pytest.mark.parametrize("priority", [float("nan"), float("inf")])
def test_a_priority_that_is_not_finite_is_refused(priority: float) -> None:
    with pytest.raises(SelectionError, match=f"'given' gave case b the priority {priority}"):
        chosen({"a": 1.0, "b": priority})


def test_priorities_must_be_one_a_candidate() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Short(Given):
        def priorities(
            self, candidates: Sequence[Candidate], rng: np.random.Generator, context: RoundContext
        ) -> np.ndarray:
            return np.zeros(1)

    with pytest.raises(SelectionError, match=r"shape \(1,\) for 2 candidates"):
        select(Short(by_id={}), candidates("ab"), CASES, round=0, seed=0)


def test_scores_that_a_strategy_needs_must_be_there() -> None:
    with pytest.raises(SelectionError, match="'given' needs quality scores, but a has none"):
        select(Given(by_id={}, needs_scores=True), candidates("a"), CASES, round=0, seed=0)


def test_one_more_candidate_does_not_reshuffle_a_random_order() -> None:
    def order(ids: str) -> list[str]:
        ranked = select(STRATEGIES["random"], candidates(ids), CASES, round=3, seed=5).ranked
        return [place.case_id for place in ranked if place.case_id != "x"]

    assert order("abcdefgh") == order("xabcdefgh")
