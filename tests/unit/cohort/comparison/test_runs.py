from collections.abc import Callable

import numpy as np
import pytest

from cohort.comparison.runs import ArmRuns, weighted_curves
from cohort.errors import ConfigError

NAN = float("nan")


@pytest.fixture
def runs() -> ArmRuns:
    """One seed, two rounds, three cases of liver and spleen; the third case cannot measure the spleen."""
    first = [[0.8, 0.2], [0.6, 0.4], [0.4, NAN]]
    second = [[0.9, 0.5], [0.9, 0.7], [0.6, NAN]]
    return ArmRuns(
        arm="random",
        seeds=(3,),
        cases=("a", "b", "c"),
        structures=("liver", "spleen"),
        spent={"cases": np.array([[4.0, 8.0]])},
        dsc=np.array([[first, second]]),
    )


def test_a_curve_is_the_mean_over_structures_of_means_over_cases(runs: ArmRuns) -> None:
    """0.6 and 0.3, then 0.8 and 0.6: not the mean over all masks, which weighs the liver more."""
    np.testing.assert_allclose(runs.curves(), [[0.45, 0.7]])
    np.testing.assert_allclose(runs.per_structure(), [[[0.6, 0.3], [0.8, 0.6]]])


def test_cases_count_as_often_as_they_are_drawn(runs: ArmRuns) -> None:
    """Case a twice and c once: liver (0.8 + 0.8 + 0.4) / 3, spleen 0.2; c alone measures no spleen at all."""
    found = weighted_curves(runs.dsc, np.array([[2.0, 0.0, 1.0], [0.0, 0.0, 3.0]]))
    np.testing.assert_allclose(found[:, 0, 0], [(2.0 / 3.0 + 0.2) / 2.0, np.nan])


def test_a_structure_that_no_case_measures_is_left_out(runs: ArmRuns) -> None:
    alone = runs.of_cases({"c"})
    np.testing.assert_allclose(alone.curves(), [[0.4, 0.6]])


def test_some_cases_and_some_seeds(runs: ArmRuns) -> None:
    part = runs.of_cases({"c", "a"})
    assert part.cases == ("a", "c")
    np.testing.assert_allclose(part.curves(), [[(0.6 + 0.2) / 2.0, (0.75 + 0.5) / 2.0]])
    assert runs.of_seeds([3]).seeds == (3,)


def test_nothing_measured_is_not_a_number(runs: ArmRuns) -> None:
    assert np.isnan(weighted_curves(np.full((1, 1, 2, 2), NAN), np.ones((1, 2)))).all()
    assert np.isnan(runs.of_cases({"c"}).per_structure()[0, 0, 1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda runs: {"seeds": (1, 2)}, "DSC of the arm 'random' has shape"),
        (
            lambda runs: {"spent": {"cases": np.array([[8.0, 4.0]])}},
            "cases that the arm 'random' spent must grow",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    runs: ArmRuns, change: Callable[[ArmRuns], dict[str, object]], message: str
) -> None:
    fields = {name: getattr(runs, name) for name in ("arm", "seeds", "cases", "structures", "spent", "dsc")}
    with pytest.raises(ConfigError, match=message):
        ArmRuns(**{**fields, **change(runs)})  # type: ignore[arg-type]
