import math
from collections.abc import Callable

import pytest

from cohort.comparison.contrasts import contrast, corrected, shared_seeds
from cohort.comparison.runs import ArmRuns
from cohort.groups import holm

Make = Callable[..., ArmRuns]
CONTROL = [[0.5, 0.6, 0.7], [0.4, 0.6, 0.6], [0.5, 0.5, 0.8]]
BETTER = [[0.5, 0.7, 0.75], [0.4, 0.6, 0.7], [0.5, 0.6, 0.75]]


def test_final_by_hand(make_runs: Make) -> None:
    found = contrast(
        make_runs("quality", BETTER), make_runs("random", CONTROL), measure="final", currency="cases"
    )
    assert found is not None
    assert found.n == 3
    assert found.differences == pytest.approx([0.05, 0.1, -0.05])
    assert found.difference == pytest.approx(0.1 / 3.0)
    assert found.won == pytest.approx(2.0 / 3.0)
    assert not found.ranks_can_tell
    assert found.lower == pytest.approx(-0.05), "a draw of the third seed alone"
    assert found.upper == pytest.approx(0.1)
    assert math.isnan(found.holm_p)


def test_area_by_hand(make_runs: Make) -> None:
    """A quarter of the first and the last round and half of the one between: +0.0625, +0.025, +0.0375."""
    found = contrast(
        make_runs("quality", BETTER), make_runs("random", CONTROL), measure="area", currency="cases"
    )
    assert found is not None
    assert found.differences == pytest.approx([0.0625, 0.025, 0.0375])
    assert found.won == 1.0


def test_areas_are_taken_where_both_have_spent(make_runs: Make) -> None:
    """The dearer arm is cut at 12, where its curve is at 0.6; both areas are then over 4 to 12."""
    dear = make_runs("slow", [[0.4, 0.5, 0.7]], spent=(4.0, 8.0, 16.0))
    found = contrast(dear, make_runs("random", [[0.4, 0.5, 0.6]]), measure="area", currency="cases")
    assert found is not None
    assert found.differences == pytest.approx([0.0])


def test_both_arms_get_the_same_resample(make_runs: Make) -> None:
    """Cases scatter by 0.2, but alike in both arms: the interval of the difference has no width."""
    found = contrast(
        make_runs("quality", [[0.5, 0.6, 0.7]] * 3, scatter=0.1),
        make_runs("random", [[0.5, 0.5, 0.6]] * 3, scatter=0.1),
        measure="final",
        currency="cases",
    )
    assert found is not None
    assert (found.lower, found.upper) == pytest.approx((0.1, 0.1))


def test_only_shared_seeds_are_compared(make_runs: Make) -> None:
    quality = make_runs("quality", BETTER, seeds=(7, 1, 5))
    random = make_runs("random", CONTROL, seeds=(1, 2, 7))
    assert shared_seeds(quality, random) == (1, 7)
    found = contrast(quality, random, measure="final", currency="cases")
    assert found is not None
    assert found.seeds == (1, 7)
    assert found.differences == pytest.approx([0.7 - 0.7, 0.75 - 0.8])
    assert contrast(quality, random, measure="final", currency="cases", among=[5]) is None


def test_correction_is_over_all_that_are_given(make_runs: Make) -> None:
    random = make_runs("random", CONTROL)
    found = [
        contrast(make_runs(name, curves), random, measure="final", currency="cases")
        for name, curves in (("quality", BETTER), ("entropy", [[0.5, 0.6, 0.9]] * 3))
    ]
    both = corrected([each for each in found if each is not None])
    assert [each.holm_p for each in both] == holm([each.t_p for each in both])
    assert both[0].holm_p >= both[0].t_p
