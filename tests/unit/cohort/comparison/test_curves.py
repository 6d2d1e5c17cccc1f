import math

import numpy as np
import pytest

from cohort.comparison.curves import area_weights, common_range, height_weights, saved, spent_to_reach
from cohort.errors import ConfigError

SPENT = np.array([4.0, 8.0, 16.0])
DSC = np.array([0.6, 0.8, 0.7])


class TestArea:
    def test_by_hand(self) -> None:
        """4 x (0.6 + 0.8) / 2 + 8 x (0.8 + 0.7) / 2 = 2.8 + 6.0 over a length of 12."""
        assert area_weights(SPENT, 4.0, 16.0) @ DSC == pytest.approx(8.8 / 12.0)

    def test_of_a_part_by_hand(self) -> None:
        """6 to 12: heights 0.7, 0.8 and 0.75: 2 x 0.75 + 4 x 0.775 = 4.6 over a length of 6."""
        assert area_weights(SPENT, 6.0, 12.0) @ DSC == pytest.approx(4.6 / 6.0)

    def test_without_length_it_is_the_height(self) -> None:
        assert area_weights(SPENT, 6.0, 6.0) @ DSC == pytest.approx(0.7)
        assert area_weights(np.array([4.0]), 4.0, 4.0).tolist() == [1.0]

    def test_two_rounds_may_have_spent_the_same(self) -> None:
        spent = np.array([4.0, 4.0, 8.0])
        weights = area_weights(spent, 4.0, 8.0)
        assert weights.sum() == pytest.approx(1.0)
        assert weights[2] == pytest.approx(0.5)

    def test_agrees_with_numpy(self) -> None:
        rng = np.random.default_rng(0)
        spent, dsc = np.cumsum(rng.uniform(0.5, 3.0, 9)), rng.uniform(0.3, 0.9, 9)
        expected = np.trapezoid(dsc, spent) / (spent[-1] - spent[0])
        assert area_weights(spent, float(spent[0]), float(spent[-1])) @ dsc == pytest.approx(expected)

    @pytest.mark.parametrize(("lower", "upper"), [(3.0, 8.0), (4.0, 17.0), (9.0, 8.0)])
    def test_a_range_that_was_not_measured_is_refused(self, lower: float, upper: float) -> None:
        with pytest.raises(ConfigError, match=r"is not within what was spent, 4 to 16"):
            area_weights(SPENT, lower, upper)

    def test_the_common_range_is_what_all_curves_cover(self) -> None:
        assert common_range([SPENT, np.array([5.0, 9.0, 20.0])]) == (5.0, 16.0)


class TestReaching:
    @pytest.mark.parametrize(
        ("target", "expected"), [(0.5, 4.0), (0.6, 4.0), (0.7, 6.0), (0.8, 8.0), (0.81, math.inf)]
    )
    def test_by_hand(self, target: float, expected: float) -> None:
        assert spent_to_reach(SPENT, DSC, target) == pytest.approx(expected)

    def test_a_dip_does_not_count(self) -> None:
        """Best so far 0.6, 0.6, 0.8: 0.7 lies half way between the second and the third round."""
        assert spent_to_reach(SPENT, np.array([0.6, 0.5, 0.8]), 0.7) == pytest.approx(12.0)


class TestSaving:
    def test_by_hand(self) -> None:
        """The control ends at 0.7, which it first had at 16; the other arm had it at 6."""
        assert saved(SPENT, DSC, SPENT, np.array([0.5, 0.6, 0.7])) == pytest.approx(10.0)

    def test_a_control_that_fell_back_is_asked_when_it_was_first_there(self) -> None:
        """It ends at 0.7 and had that at 6 already, as the arm itself."""
        assert saved(SPENT, DSC, SPENT, DSC) == 0.0
        assert saved(SPENT, np.array([0.5, 0.6, 0.7]), SPENT, DSC) == pytest.approx(-10.0)

    def test_never_reached_is_minus_infinity(self) -> None:
        assert saved(SPENT, np.array([0.5, 0.6, 0.65]), SPENT, DSC) == -math.inf


def test_a_round_that_cost_nothing_is_a_step() -> None:
    """Before the step the curve rises to the earlier of the two rounds, behind it it begins at the later."""
    np.testing.assert_allclose(area_weights(np.array([4.0, 8.0, 8.0, 12.0]), 4.0, 12.0), [0.25] * 4)
    np.testing.assert_allclose(area_weights(np.array([4.0, 8.0, 8.0]), 4.0, 8.0), [0.5, 0.5, 0.0])
    np.testing.assert_allclose(height_weights(np.array([4.0, 8.0, 8.0]), 8.0), [0.0, 0.0, 1.0])
