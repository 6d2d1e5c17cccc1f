import math
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cohort.budget import CURRENCIES, Budget, Cost
from cohort.selection import STRATEGIES, Candidate, select
from cohort.selection.guards import Guarded
from cohort.slabs import Slab

AMOUNTS = st.floats(0.5, 100.0)
VOLUMES = st.sampled_from([0.0, 1.0, 20.0, 300.0])
FEATURES = st.lists(st.sampled_from([-1.0, 0.0, 0.25, 3.0]), min_size=2, max_size=2)
SCORES = st.one_of(st.just(math.nan), st.floats(-10.0, 10.0), st.sampled_from([0.0, 0.5, 1.0]))
BUDGETS = st.builds(
    Budget, currency=st.sampled_from(CURRENCIES), per_round=st.floats(0.01, 500.0, allow_subnormal=False)
)
NAMES = st.sampled_from(sorted(STRATEGIES))
ONE = Cost(**dict.fromkeys(CURRENCIES, 1.0))
SEEDS = st.integers(0, 2**32)


@st.composite
def pools(draw: st.DrawFn) -> list[Candidate]:
    ids = draw(st.lists(st.integers(0, 999), unique=True, max_size=25))
    return [
        Candidate(
            case_id=f"c{n}",
            patient_id=f"c{n}",
            structures=("liver", "spleen"),
            scores={"liver": draw(SCORES), "spleen": draw(SCORES)},
            volumes_ml={"liver": draw(VOLUMES), "spleen": draw(VOLUMES)},
            features=np.array(draw(FEATURES), dtype=np.float32),
            cost=Cost(**{name: draw(AMOUNTS) for name in CURRENCIES}),
        )
        for n in ids
    ]


@st.composite
def pools_of_slabs(draw: st.DrawFn) -> list[Candidate]:
    """Few cases with several slabs each, which share the look of their case and pay for it once."""
    places = st.tuples(st.integers(0, 4), st.integers(0, 5))
    looks = draw(st.lists(FEATURES, min_size=5, max_size=5))
    return [
        Candidate(
            case_id=f"c{n}",
            patient_id=f"c{n}",
            part=(slab := Slab(first=4 * turn, last=4 * turn + 3)).name,
            slab=slab,
            structures=("liver", "spleen"),
            scores={"liver": draw(SCORES), "spleen": draw(SCORES)},
            volumes_ml={"liver": draw(VOLUMES), "spleen": draw(VOLUMES)},
            features=np.array(looks[n], dtype=np.float32),
            cost=Cost(**{name: draw(AMOUNTS) for name in CURRENCIES}),
            further=Cost(**dict.fromkeys(CURRENCIES, 0.25)),
        )
        for n, turn in draw(st.lists(places, unique=True, max_size=20))
    ]


@given(pools(), BUDGETS, NAMES, SEEDS)
def test_a_selection_is_within_its_budget_and_takes_whatever_fits(
    pool: list[Candidate], budget: Budget, name: str, seed: int
) -> None:
    selection = select(STRATEGIES[name], pool, budget, round=0, seed=seed)
    cost = {c.case_id: budget.amount(c.cost) for c in pool}
    assert len(set(selection.selected)) == len(selection.selected)
    assert set(selection.selected) <= cost.keys()
    spent = budget.amount(selection.predicted_cost)
    assert spent <= budget.per_round * (1 + 1e-6)
    held = {key[0] for key in selection.held_back}
    for case_id in cost.keys() - set(selection.selected) - held:
        assert spent + cost[case_id] > budget.per_round * (1 - 1e-6)


@given(st.one_of(pools(), pools_of_slabs()), BUDGETS, NAMES, SEEDS, st.randoms(use_true_random=False))
def test_a_selection_is_stable_under_the_order_of_its_input(
    pool: list[Candidate], budget: Budget, name: str, seed: int, random: object
) -> None:
    shuffled = list(pool)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    expected = select(STRATEGIES[name], pool, budget, round=1, seed=seed)
    assert select(STRATEGIES[name], shuffled, budget, round=1, seed=seed) == expected


@given(pools(), BUDGETS, NAMES, SEEDS)
def test_ranks_are_complete_and_priorities_fall(
    pool: list[Candidate], budget: Budget, name: str, seed: int
) -> None:
    ranked = select(STRATEGIES[name], pool, budget, round=0, seed=seed).ranked
    assert sorted(place.case_id for place in ranked) == sorted(c.case_id for c in pool)
    assert [place.rank for place in ranked] == list(range(len(pool)))
    priorities = [place.priority for place in ranked]
    assert priorities == sorted(priorities, reverse=True)


@given(pools(), st.integers(1000, 9999), SEEDS)
def test_one_more_candidate_leaves_a_random_order_as_it_was(
    pool: list[Candidate], number: int, seed: int
) -> None:
    budget = Budget(currency="cases", per_round=1.0)
    more = [*pool, Candidate(case_id=f"c{number}", patient_id="n", structures=("liver",), cost=Cost.zero())]
    before, after = (
        [place.case_id for place in select(STRATEGIES["random"], p, budget, round=2, seed=seed).ranked]
        for p in (pool, more)
    )
    assert [case_id for case_id in after if case_id != f"c{number}"] == before


@given(pools(), BUDGETS, NAMES, SEEDS, st.floats(1.0, 10.0))
def test_a_larger_budget_never_buys_less_in_total_when_cases_cost_the_same(
    pool: list[Candidate], budget: Budget, name: str, seed: int, factor: float
) -> None:
    same = [replace(c, cost=ONE) for c in pool]
    small = Budget(currency="cases", per_round=budget.per_round)
    large = Budget(currency="cases", per_round=budget.per_round * factor)
    strategy = STRATEGIES[name]
    if isinstance(strategy, Guarded):  # its shares grow with the budget
        strategy = strategy.inner
    fewer = select(strategy, same, small, round=0, seed=seed).selected
    more = select(strategy, same, large, round=0, seed=seed).selected
    assert more[: len(fewer)] == fewer


@given(pools(), BUDGETS, NAMES, SEEDS, st.randoms(use_true_random=False))
def test_structures_of_cases_keep_all_this_too(
    pool: list[Candidate], budget: Budget, name: str, seed: int, random: object
) -> None:
    parts = [
        replace(
            whole,
            part=structure,
            structures=(structure,),
            scores={structure: whole.scores[structure]},
            volumes_ml={structure: whole.volumes_ml[structure]},
            further=Cost(**{n: amount / 2.0 for n, amount in whole.cost.as_dict().items()}),
        )
        for whole in pool
        for structure in ("liver", "spleen")
    ]
    labelled = {"known": np.array([0.25, 3.0], dtype=np.float32)}
    selection = select(STRATEGIES[name], parts, budget, round=1, rounds=3, seed=seed, labelled=labelled)
    assert budget.amount(selection.predicted_cost) <= budget.per_round * (1 + 1e-6)
    taken = {(place.case_id, place.part) for place in selection.ranked if place.selected}
    assert {(r.case_id, name) for r in selection.requests for name in r.structures} == taken
    assert len(set(selection.selected)) == len(selection.selected)
    opened = {case_id for case_id, _ in taken}
    costs = [budget.amount(part.cost) for part in parts if part.key in taken]
    assert budget.amount(selection.predicted_cost) <= sum(costs) * (1 + 1e-6)
    assert len(opened) == len(selection.requests)
    random.shuffle(parts)  # type: ignore[attr-defined]
    again = select(STRATEGIES[name], parts, budget, round=1, rounds=3, seed=seed, labelled=labelled)
    assert again == selection
