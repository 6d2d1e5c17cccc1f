import math

import numpy as np
import pytest
from scipy import stats

from cohort.comparison.paired import paired_t_p, signed_rank_p, t_interval

DIFFERENCES = [0.012, -0.004, 0.02, 0.008, 0.015, -0.001, 0.006, 0.011]


def test_t_agrees_with_scipy() -> None:
    expected = stats.ttest_1samp(DIFFERENCES, 0.0)
    assert paired_t_p(DIFFERENCES) == pytest.approx(expected.pvalue)
    assert t_interval(DIFFERENCES) == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_t_by_hand() -> None:
    """Mean 2, standard deviation 1, three pairs: t = 2 sqrt(3) with 2 degrees of freedom, p = 0.0742."""
    assert paired_t_p([1.0, 2.0, 3.0]) == pytest.approx(0.0742, abs=5e-5)


def test_t_where_nothing_varies() -> None:
    assert math.isnan(paired_t_p([0.5]))
    assert math.isnan(paired_t_p([0.5, 0.5]))
    assert paired_t_p([0.0, 0.0]) == 1.0
    assert all(math.isnan(end) for end in t_interval([0.5]))


def test_ranks_agree_with_scipy() -> None:
    assert signed_rank_p(DIFFERENCES) == pytest.approx(stats.wilcoxon(DIFFERENCES, method="exact").pvalue)


def test_ranks_by_hand_with_a_tie_and_a_zero() -> None:
    """Ranks 1.5, 1.5 and 3 of 1, -1 and 2: the sum is 3, and 6 of the 8 flips reach it or more."""
    assert signed_rank_p([1.0, 0.0, -1.0, 2.0]) == 6.0 / 8.0


@pytest.mark.parametrize("pairs", [3, 5, 6, 8])
def test_the_smallest_p_of_ranks(pairs: int) -> None:
    assert signed_rank_p(list(np.linspace(0.1, 0.2, pairs))) == 2.0 / 2**pairs


def test_ranks_without_differences() -> None:
    assert math.isnan(signed_rank_p([]))
    assert signed_rank_p([0.0, 0.0]) == 1.0


def test_many_pairs_are_drawn_and_stay_near_scipy() -> None:
    values = np.random.default_rng(1).normal(0.3, 1.0, 30).tolist()
    found = signed_rank_p(values)
    assert found == signed_rank_p(values)
    assert found == pytest.approx(stats.wilcoxon(values).pvalue, abs=0.01)
