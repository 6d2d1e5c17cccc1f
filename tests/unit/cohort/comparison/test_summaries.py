import math
from collections.abc import Callable

import pytest

from cohort.comparison.runs import ArmRuns
from cohort.comparison.summaries import band, difference_band, overlap, ranges, saving, summary

Make = Callable[..., ArmRuns]
CONTROL = [[0.5, 0.6, 0.7], [0.5, 0.6, 0.7]]


def test_a_summary_by_hand(make_runs: Make) -> None:
    runs = make_runs("random", [[0.4, 0.6, 0.6], [0.6, 0.6, 0.8]])
    found = summary(runs, "cases", ranges([runs], "cases"))
    assert found.n == 2
    assert found.area == pytest.approx((0.55 + 0.65) / 2.0)
    assert found.final == pytest.approx(0.7)
    assert found.final_sd == pytest.approx(0.2 / math.sqrt(2.0))
    assert (found.final_lower, found.final_upper) == pytest.approx((0.6, 0.8))
    assert found.spent == 12.0


def test_ranges_are_those_of_the_arms_of_a_seed(make_runs: Make) -> None:
    one = make_runs("random", CONTROL, seeds=(0, 1))
    other = make_runs("dear", [[0.5, 0.6, 0.7]], seeds=(1,), spent=(4.0, 7.0, 10.0))
    assert ranges([one, other], "cases") == {0: (4.0, 12.0), 1: (4.0, 10.0)}


def test_one_seed_has_no_deviation(make_runs: Make) -> None:
    runs = make_runs("random", CONTROL[:1])
    assert math.isnan(summary(runs, "cases", ranges([runs], "cases")).final_sd)


def test_cases_widen_the_band_and_the_mean_stays(make_runs: Make) -> None:
    found = band(make_runs("random", CONTROL, scatter=0.05), "cases")
    assert found.dsc == pytest.approx((0.5, 0.6, 0.7))
    assert found.spent == (4.0, 8.0, 12.0)
    assert all(
        lower < mean < upper for lower, mean, upper in zip(found.lower, found.dsc, found.upper, strict=True)
    )


class TestSaving:
    def test_by_hand(self, make_runs: Make) -> None:
        """The arm has 0.7 at 8 cases, the control at 12."""
        found = saving(make_runs("quality", [[0.5, 0.7, 0.7]] * 2), make_runs("random", CONTROL), "cases")
        assert found is not None
        assert (found.saved, found.lower, found.upper) == pytest.approx((4.0, 4.0, 4.0))
        assert (found.reached, found.seeds_reached, found.n) == (1.0, 2, 2)

    def test_draws_that_never_reach_it_are_counted(self, make_runs: Make) -> None:
        """One seed reaches 0.7 and one does not, and the mean does not; a quarter of the draws does."""
        found = saving(
            make_runs("quality", [[0.5, 0.7, 0.7], [0.5, 0.6, 0.6]]), make_runs("random", CONTROL), "cases"
        )
        assert found is not None
        assert found.saved == -math.inf
        assert found.lower == -math.inf
        assert found.upper == pytest.approx(4.0)
        assert found.reached == pytest.approx(0.25, abs=0.03)
        assert found.seeds_reached == 1

    def test_needs_a_shared_seed(self, make_runs: Make) -> None:
        other = make_runs("quality", CONTROL, seeds=(5, 6))
        assert saving(other, make_runs("random", CONTROL), "cases") is None


def test_overlap_of_nothing_is_not_a_number() -> None:
    assert math.isnan(overlap([], []))
    assert overlap(["a"], ["a"]) == 1.0


def test_a_difference_is_paired_round_by_round(make_runs: Make) -> None:
    """Seeds and cases scatter much more than the arms differ, but alike in both."""
    wide = [[0.1, 0.2, 0.3], [0.7, 0.8, 0.9]]
    better = [[value + 0.01 for value in curve] for curve in wide]
    found = difference_band(
        make_runs("quality", better, scatter=0.04), make_runs("random", wide, scatter=0.04), "cases"
    )
    assert found is not None
    for values in (found.dsc, found.lower, found.upper):
        assert values == pytest.approx((0.01, 0.01, 0.01))
    assert (
        difference_band(make_runs("quality", better, seeds=(8, 9)), make_runs("random", wide), "cases")
        is None
    )
