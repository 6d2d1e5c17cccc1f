import pandas as pd

from flows import comparison_figures as figures
from flows.comparison_config import Comparison
from flows.comparison_findings import find
from flows.comparison_tables import read_tables

PNG = b"\x89PNG"


def test_every_arm_looks_different() -> None:
    arms = ["random", *(f"arm{number}" for number in range(8))]
    found = figures.looks(arms, "random", ["arm3"])
    assert list(found) == arms
    assert len({look.colour for look in found.values()}) == 9
    assert len({(look.marker, look.line) for look in found.values()}) == 9
    assert found["random"].line == "--"
    assert (found["arm3"].line, found["arm3"].label) == (":", "arm3 (reads references)")


def test_an_arm_keeps_its_look_whichever_others_are_drawn() -> None:
    full = figures.looks(["random", "quality", "entropy"], "random", [])
    assert full["entropy"] != full["quality"]
    assert figures.looks(["quality", "random", "entropy"], "random", [])["entropy"] == full["entropy"]


def test_the_same_runs_give_the_same_picture(measured: Comparison) -> None:
    found = find(measured.config, read_tables(measured.units))
    look = figures.looks(list(found.runs), "random", [])
    pictures = [figures.learning_curves(found.runs, look, ("cases", "minutes"), ["random"]) for _ in range(2)]
    assert pictures[0] == pictures[1]
    assert pictures[0] != figures.learning_curves(found.runs, look, ("cases", "minutes"), [])
    assert figures.differences(found.runs, "random", measured.config.axis, look).startswith(PNG)
    assert figures.structure_curves(found.runs, "cases", look, ("liver", "spleen")).startswith(PNG)


def test_an_estimator_that_predicts_no_dsc_has_no_error(measured: Comparison) -> None:
    trials = read_tables(measured.units).trials
    look = figures.looks(list(measured.config.arms), "random", [])
    with_error = trials.assign(mae=0.1)
    assert figures.trial_curves(trials, look) != figures.trial_curves(with_error, look)
    assert figures.trial_curves(pd.DataFrame({"arm": [], "round": []}), look).startswith(PNG)
