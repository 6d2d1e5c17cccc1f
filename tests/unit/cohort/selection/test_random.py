import numpy as np
from scipy import stats

from cohort.budget import Budget, Cost
from cohort.selection import Candidate, select
from cohort.selection.random import Random

POOL = [
    Candidate(case_id=f"c{n:04d}", patient_id="p", structures=("liver",), cost=Cost(cases=1.0))
    for n in range(2000)
]


def test_draws_are_uniform() -> None:
    draws = Random().priorities(POOL, np.random.default_rng(0))
    assert draws.shape == (2000,)
    assert stats.kstest(draws, "uniform").pvalue > 0.01


def test_draws_belong_to_the_case_and_not_to_its_place() -> None:
    forward = Random().priorities(POOL, np.random.default_rng(0))
    backward = Random().priorities(POOL[::-1], np.random.default_rng(0))
    np.testing.assert_array_equal(forward, backward[::-1])
    assert not np.array_equal(forward, Random().priorities(POOL, np.random.default_rng(1)))


def test_every_case_is_selected_about_equally_often() -> None:
    counts = dict.fromkeys((c.case_id for c in POOL[:10]), 0)
    for seed in range(400):
        budget = Budget(currency="cases", per_round=2.0)
        for case_id in select(Random(), POOL[:10], budget, round=0, seed=seed).selected:
            counts[case_id] += 1
    assert sum(counts.values()) == 800
    assert stats.chisquare(list(counts.values())).pvalue > 0.01


def test_rounds_draw_afresh() -> None:
    budget = Budget(currency="cases", per_round=2.0)
    assert len({select(Random(), POOL, budget, round=n, seed=0).selected for n in range(5)}) == 5
