import numpy as np
import pytest

from cohort.budget import Budget, Cost
from cohort.selection import Candidate, RoundContext, select
from cohort.selection.power import Power, Schedule, shares
from cohort.selection.quality import Quality

ONE = Budget(currency="cases", per_round=1.0)


def pool(*quality: float) -> list[Candidate]:
    return [
        Candidate(
            case_id=f"c{n}", patient_id="p", structures=("liver",), scores={"liver": q}, cost=Cost(cases=1.0)
        )
        for n, q in enumerate(quality)
    ]


def test_shares_do_not_depend_on_scale_or_zero() -> None:
    values = np.array([-0.9, -0.5, -0.7, -0.9])
    np.testing.assert_allclose(shares(values), [0.2, 1.0, 0.6, 0.2])
    np.testing.assert_allclose(shares(values * 3.0 + 40.0), shares(values))
    assert shares(np.array([0.3, 0.3])).tolist() == [1.0, 1.0]
    assert shares(np.zeros(0)).shape == (0,)


@pytest.mark.parametrize(("round", "beta"), [(0, 1.0), (1, 2.0), (2, 4.0), (9, 4.0)])
def test_a_schedule_is_geometric_and_stays_at_its_end(round: int, beta: float) -> None:
    assert Schedule(start=1.0, end=4.0).at(RoundContext(round=round, rounds=3)) == pytest.approx(beta)


def test_a_single_round_has_the_start() -> None:
    assert Schedule(start=3.0, end=4.0).at(RoundContext(round=0, rounds=1)) == 3.0


def test_the_first_draw_is_in_proportion_to_the_power_of_the_share() -> None:
    strategy = Power(inner=Quality(), schedule=Schedule(start=2.0, end=2.0))
    candidates = pool(0.0, 0.5, 0.75, 1.0)
    expected = (np.array([1.0, 0.5, 0.25, 0.0]) + 0.25) ** 2
    counts = dict.fromkeys((c.case_id for c in candidates), 0)
    for seed in range(3000):
        counts[select(strategy, candidates, ONE, round=0, seed=seed).selected[0]] += 1
    found = np.array(list(counts.values())) / 3000
    np.testing.assert_allclose(found, expected / expected.sum(), atol=0.03)


def test_a_large_beta_is_the_inner_order() -> None:
    strategy = Power(inner=Quality(), schedule=Schedule(start=1e6, end=1e6))
    candidates = pool(0.9, 0.1, 0.5, 0.3, 1.0)
    for seed in range(5):
        ranked = select(strategy, candidates, ONE, round=0, seed=seed).ranked
        assert [place.case_id for place in ranked] == ["c1", "c3", "c2", "c0", "c4"]


def test_a_draw_belongs_to_a_case_and_not_to_its_place() -> None:
    strategy, candidates = Power(inner=Quality()), pool(0.9, 0.1, 0.5)
    forward = strategy.priorities(candidates, np.random.default_rng(0))
    backward = strategy.priorities(candidates[::-1], np.random.default_rng(0))
    np.testing.assert_array_equal(forward, backward[::-1])
