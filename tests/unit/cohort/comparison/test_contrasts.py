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


def test_correction_is_over_all_that_were_planned(make_runs: Make) -> None:
    """One of three arms has a single seed, which has no p; it counts too, and so does a missing arm."""
    random = make_runs("random", CONTROL)
    found = [
        contrast(make_runs(name, curves), random, measure="final", currency="cases")
        for name, curves in (
            ("quality", BETTER),
            ("entropy", [[0.5, 0.6, 0.9], [0.4, 0.6, 0.9], [0.5, 0.6, 0.91]]),
            ("core_set", [[0.5, 0.6, 0.8]]),
        )
    ]
    three = corrected([each for each in found if each is not None], 4)
    p = [each.t_p for each in three]
    assert math.isnan(p[2])
    assert math.isnan(three[2].holm_p)
    assert [each.holm_p for each in three[:2]] == holm([p[0], p[1], 1.0, 1.0])[:2]
    assert three[1].holm_p == pytest.approx(4.0 * p[1])


def test_the_end_is_after_equal_cost(make_runs: Make) -> None:
    """The arm spends twice as much a round; at 12, between its second and third round, it has 0.6."""
    dear = make_runs("slow", [[0.4, 0.5, 0.7]], spent=(4.0, 8.0, 16.0))
    found = contrast(dear, make_runs("random", [[0.4, 0.5, 0.58]]), measure="final", currency="cases")
    assert found is not None
    assert found.differences == pytest.approx([0.02])


def test_an_arm_may_have_fewer_rounds(make_runs: Make) -> None:
    short = make_runs("short", [[0.4, 0.6]] * 2, spent=(4.0, 8.0))
    long = make_runs("random", [[0.4, 0.5, 0.9]] * 2)
    for measure, expected in (("final", 0.1), ("area", 0.05)):
        found = contrast(short, long, measure=measure, currency="cases")
        assert found is not None
        assert found.difference == pytest.approx(expected)


def test_one_seed_has_no_interval(make_runs: Make) -> None:
    found = contrast(
        make_runs("quality", BETTER[:1], scatter=0.1),
        make_runs("random", CONTROL[:1]),
        measure="final",
        currency="cases",
    )
    assert found is not None
    assert found.difference == pytest.approx(0.05)
    assert all(math.isnan(end) for end in (found.lower, found.upper, found.t_lower, found.t_upper))


def test_what_nobody_measured_is_not_significant(make_runs: Make) -> None:
    nothing = make_runs("quality", [[math.nan] * 3] * 4)
    found = contrast(nothing, make_runs("random", [[0.5] * 3] * 4), measure="final", currency="cases")
    assert found is not None
    assert all(math.isnan(p) for p in (found.difference, found.won, found.t_p, found.rank_p))
