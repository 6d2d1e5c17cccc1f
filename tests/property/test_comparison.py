"""What holds for every comparison, whatever was measured."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.comparison.bootstrap import interval, resample
from cohort.comparison.contrasts import MEASURES, Measure, contrast
from cohort.comparison.curves import area_weights, saved, spent_to_reach
from cohort.comparison.paired import paired_t_p, signed_rank_p
from cohort.comparison.runs import ArmRuns

seeds = st.integers(0, 2**32 - 1)


def arm(name: str, seed: int, pairs: int = 4) -> ArmRuns:
    rng = np.random.default_rng(seed)
    dsc = rng.uniform(0.0, 1.0, (pairs, 3, 5, 2))
    dsc[:, :, 0, 1] = np.nan
    spent = 4.0 + np.cumsum(rng.uniform(0.0, 9.0, (pairs, 3)), axis=1)
    spent[:, 0] = 4.0
    return ArmRuns(
        arm=name,
        seeds=tuple(range(pairs)),
        cases=tuple("abcde"),
        structures=("liver", "spleen"),
        spent={"minutes": spent},
        dsc=dsc,
    )


@given(seeds, st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_an_area_lies_between_the_lowest_and_the_highest_dsc(seed: int, one: float, other: float) -> None:
    runs = arm("random", seed)
    spent, dsc = runs.spent["minutes"][0], runs.curves()[0]
    lower, upper = np.sort(spent[0] + np.array([one, other]) * (spent[-1] - spent[0])).clip(
        spent[0], spent[-1]
    )
    weights = area_weights(spent, float(lower), float(upper))
    assert weights.sum() == pytest.approx(1.0)
    assert (weights > -1e-12).all()
    assert dsc.min() - 1e-9 <= weights @ dsc <= dsc.max() + 1e-9


@given(seeds, st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_a_higher_target_takes_no_less(seed: int, one: float, other: float) -> None:
    runs = arm("random", seed)
    spent, dsc = runs.spent["minutes"][0], runs.curves()[0]
    lower, upper = sorted((one, other))
    assert spent_to_reach(spent, dsc, lower) <= spent_to_reach(spent, dsc, upper)


@given(seeds)
def test_nobody_saves_against_oneself(seed: int) -> None:
    runs = arm("random", seed)
    spent, dsc = runs.spent["minutes"][0], runs.curves()[0]
    assert saved(spent, dsc, spent, dsc) == 0.0


@pytest.mark.parametrize("measure", MEASURES)
@given(seed=seeds)
def test_a_contrast_turned_round_changes_its_sign_alone(measure: Measure, seed: int) -> None:
    one, other = arm("quality", seed), arm("random", seed + 1)
    found = contrast(one, other, measure=measure, currency="minutes")
    turned = contrast(other, one, measure=measure, currency="minutes")
    assert found is not None
    assert turned is not None
    assert turned.difference == pytest.approx(-found.difference, abs=1e-12)
    assert turned.t_p == pytest.approx(found.t_p)
    assert turned.rank_p == found.rank_p
    assert turned.won == pytest.approx(1.0 - found.won)
    assert found.t_lower <= found.difference <= found.t_upper


@given(seeds)
def test_the_order_of_the_seeds_does_not_matter(seed: int) -> None:
    one, other = arm("quality", seed), arm("random", seed + 1)
    found = contrast(one, other, measure="area", currency="minutes")
    again = contrast(
        one.of_seeds([3, 1, 0, 2]), other.of_seeds([2, 0, 3, 1]), measure="area", currency="minutes"
    )
    assert found == again


@given(st.lists(st.floats(-1.0, 1.0), min_size=2, max_size=9))
def test_p_values_lie_between_0_and_1_and_ignore_the_sign(differences: list[float]) -> None:
    turned = [-value for value in differences]
    assert 2.0 / 2 ** len(differences) <= signed_rank_p(differences) <= 1.0
    assert signed_rank_p(turned) == signed_rank_p(differences)
    np.testing.assert_allclose(paired_t_p(turned), paired_t_p(differences))


@given(seeds, st.integers(1, 8), st.integers(1, 20))
def test_a_draw_has_as_many_as_there_are(seed: int, number: int, cases: int) -> None:
    drawn = resample(number, cases, seed=seed, draws=20)
    assert (drawn.seeds.sum(axis=1) == number).all()
    assert (drawn.cases.sum(axis=1) == cases).all()
    constant = np.full((20, number), 0.25)
    np.testing.assert_allclose(drawn.over_seeds(constant), 0.25)


@given(st.lists(st.floats(-1.0, 1.0), min_size=1, max_size=200))
def test_an_interval_is_of_what_was_drawn(values: list[float]) -> None:
    lower, upper = interval(np.array(values))
    assert min(values) <= lower <= upper <= max(values)
