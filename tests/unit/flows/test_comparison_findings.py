from collections.abc import Callable
from pathlib import Path

import pytest

from flows.comparison_config import Comparison
from flows.comparison_findings import contrast_table, declared_runs, find, saving_table, summary_table
from flows.comparison_tables import read_tables

Make = Callable[..., Comparison]
Write = Callable[..., None]


def test_the_declared_contrast_stands_alone(measured: Comparison) -> None:
    """quality gains 0.02 a round more than random: 0.04 at the end, and half of that under the curve."""
    found = find(measured.config, read_tables(measured.units))
    area, final = found.primary
    assert (area.arm, area.against, area.n) == ("quality", "random", 2)
    assert area.difference == pytest.approx(0.02)
    assert final.difference == pytest.approx(0.04)
    assert {(each.arm, each.against) for each in found.secondary} == {("oracle-worst", "random")}
    assert [each.measure for each in found.secondary] == ["area", "final"]


def test_without_a_declaration_all_are_secondary(make_comparison: Make, write_measured: Write) -> None:
    comparison = make_comparison(primary=None)
    for unit in comparison.units:
        write_measured(unit)
    found = find(comparison.config, read_tables(comparison.units))
    assert found.primary == ()
    assert len(found.secondary) == 4
    assert declared_runs(found) == {}


def test_an_arm_of_another_unit_is_compared_over_its_own_currency(
    make_comparison: Make, write_measured: Write
) -> None:
    """Five minutes a case: the same curves, so the same areas, on another axis."""
    arms = {name: {"set": {"strategy": name}} for name in ("random", "quality", "oracle-worst")}
    comparison = make_comparison(
        arms={**arms, "oracle-worst": {**arms["oracle-worst"], "currency": "minutes"}}
    )
    for unit in comparison.units:
        write_measured(unit)
    found = find(comparison.config, read_tables(comparison.units))
    assert {each.currency for each in found.primary} == {"cases"}
    assert {each.currency for each in found.secondary} == {"minutes"}
    plain = comparison.config.axis("quality", "random")
    assert (plain, comparison.config.axis("quality", "oracle-worst")) == ("cases", "minutes")


def test_savings_by_hand(measured: Comparison) -> None:
    """random ends 0.02 up after 6 cases; quality is there after 2/3 of its first step: 2 + 4/3 cases."""
    found = find(measured.config, read_tables(measured.units))
    (quality,) = [each for each in found.savings if (each.arm, each.currency) == ("quality", "cases")]
    assert quality.saved == pytest.approx(6.0 - (2.0 + 4.0 / 3.0))
    assert quality.seeds_reached == 2
    (minutes,) = [each for each in found.savings if (each.arm, each.currency) == ("quality", "minutes")]
    assert minutes.saved == pytest.approx(5.0 * quality.saved), "a minute axis that is five times as long"


def test_pairs_and_overlap(measured: Comparison) -> None:
    found = find(measured.config, read_tables(measured.units))
    pairs = found.pairwise.set_index(["arm", "against"])
    assert len(pairs) == 6
    assert pairs.loc[("quality", "random"), "won"] == 1.0
    assert pairs.loc[("random", "oracle-worst"), "difference"] == pytest.approx(-0.04)
    shared = found.overlap.set_index(["arm", "against"])["overlap"]
    assert shared["quality", "oracle-worst"] == 1.0
    assert shared["random", "quality"] == pytest.approx(2.0 / 6.0), "p0 and p2 of p0, p1, p2, p3, p5 and p7"


def test_arms_are_shown_together_on_seeds_that_all_have(make_comparison: Make, write_measured: Write) -> None:
    comparison = make_comparison()
    for unit in comparison.units:
        if unit.name != "oracle-worst-seed0":
            write_measured(unit)
    found = find(comparison.config, read_tables(comparison.units))
    assert {arm: runs.seeds for arm, runs in found.alike.items()} == {
        "random": (1,),
        "quality": (1,),
        "oracle-worst": (1,),
    }
    assert {arm: runs.seeds for arm, runs in declared_runs(found).items()} == {
        "random": (0, 1),
        "quality": (0, 1),
    }


def test_groups_are_measured_on_their_own_cases(
    make_comparison: Make, write_measured: Write, tmp_path: Path
) -> None:
    groups = tmp_path / "groups.csv"
    groups.write_text("case_id,group\nheld_0,easy\nheld_1,easy\nheld_2,hard\n")
    comparison = make_comparison(groups=str(groups))
    for unit in comparison.units:
        write_measured(unit)
    easy, hard = find(comparison.config, read_tables(comparison.units)).groups
    assert (easy.name, hard.name) == ("easy", "hard")
    assert hard.runs["random"].cases == ("held_2",)
    for group, expected in ((easy, 0.575 + 0.01 + 0.02), (hard, 0.65 + 0.01 + 0.02)):
        assert group.summaries[0].final == pytest.approx(expected)
        assert {each.arm for each in group.contrasts} == {"quality", "oracle-worst"}


def test_tables_have_a_row_each(measured: Comparison) -> None:
    found = find(measured.config, read_tables(measured.units))
    contrasts = contrast_table(found)
    assert contrasts["declared"].tolist() == ["primary"] * 2 + ["secondary"] * 2
    assert contrasts["seeds"].tolist() == ["0 1"] * 4
    assert len(summary_table(found)) == 4 * 3
    assert len(saving_table(found)) == 4 * 2


def test_nothing_finished_finds_nothing(make_comparison: Make) -> None:
    comparison = make_comparison()
    found = find(comparison.config, read_tables(comparison.units))
    assert (found.primary, found.secondary, found.savings) == ((), (), ())
