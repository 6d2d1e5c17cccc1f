import math

import numpy as np
import pandas as pd
import pytest

from cohort.errors import DataError
from cohort.groups import OVERALL, GroupComparison, compare_groups, holm


def table(values: dict[str, list[float]], column: list[object], name: str = "sex") -> pd.DataFrame:
    """A row for each structure of each case; `values` and `column` go by case."""
    rows = [
        {"case_id": f"case_{number:02d}", "structure": structure, "predicted_dsc": dsc, name: column[number]}
        for structure, scores in values.items()
        for number, dsc in enumerate(scores)
        if dsc is not None
    ]
    return pd.DataFrame(rows)


def sizes(found: GroupComparison) -> dict[str, int]:
    return {group.name: group.cases for group in found.groups}


def test_two_groups_that_do_not_overlap() -> None:
    women, men = [0.50, 0.51, 0.52, 0.53, 0.59], [0.70, 0.71, 0.72, 0.73, 0.79]
    overall, liver = compare_groups(table({"liver": women + men}, ["F"] * 5 + ["M"] * 5), "sex")
    assert (overall.structure, liver.structure, liver.column) == (OVERALL, "liver", "sex")
    assert [(group.name, group.cases) for group in liver.groups] == [("F", 5), ("M", 5)]
    assert [group.mean for group in liver.groups] == pytest.approx([0.53, 0.73])
    assert [group.median for group in liver.groups] == pytest.approx([0.52, 0.72])
    assert liver.test == "Mann-Whitney U"
    assert liver.p == pytest.approx(2 / math.comb(10, 5)), "both orders that are as extreme, of all"
    assert overall.p == pytest.approx(liver.p)
    assert [group.mean for group in overall.groups] == pytest.approx([0.53, 0.73])
    assert liver.left_out == overall.left_out == 0


def test_three_groups() -> None:
    scores = [0.01 * rank for rank in range(1, 16)]
    _, liver = compare_groups(table({"liver": scores}, ["a"] * 5 + ["b"] * 5 + ["c"] * 5), "sex")
    statistic = 12 / (15 * 16) * (15**2 + 40**2 + 65**2) / 5 - 3 * 16
    assert liver.test == "Kruskal-Wallis"
    assert liver.p == pytest.approx(math.exp(-statistic / 2)), "chi-square with 2 degrees of freedom"


def test_groups_that_are_the_same() -> None:
    overall, liver = compare_groups(table({"liver": [0.5] * 12}, ["F", "M"] * 6), "sex")
    assert (overall.test, liver.test) == ("", "")
    assert math.isnan(liver.p)


def test_p_values_of_structures_are_corrected() -> None:
    scores = [0.50, 0.51, 0.52, 0.53, 0.54, 0.70, 0.71, 0.72, 0.73, 0.74]
    values = {"colon": scores, "liver": scores, "spleen": [0.5] * 10}
    overall, *each = compare_groups(table(values, ["F"] * 5 + ["M"] * 5), "sex")
    alone = 2 / math.comb(10, 5)
    assert [found.structure for found in each] == ["colon", "liver", "spleen"]
    assert overall.p == pytest.approx(alone)
    assert [found.p for found in each] == pytest.approx([2 * alone, 2 * alone, math.nan], nan_ok=True)


def test_other_structures_in_view_are_no_worse_quality() -> None:
    """Women show the easy liver and the hard pancreas, men the liver alone: each as good as the others'."""
    noise = [0.00, 0.01, 0.02, 0.03, 0.04, 0.05]
    liver, pancreas = [0.9 + x for x in noise], [0.5 + x for x in noise]
    overall, of_liver, of_pancreas = compare_groups(
        table({"liver": liver + liver, "pancreas": pancreas}, ["F"] * 6 + ["M"] * 6), "sex"
    )
    women, men = overall.groups
    assert women.mean == pytest.approx(men.mean)
    assert overall.p > 0.5, "rounding breaks ties"
    assert of_liver.p == pytest.approx(1.0)
    assert (sizes(of_pancreas), of_pancreas.test) == ({"F": 6}, "")


def test_a_case_counts_once_whatever_it_shows() -> None:
    """A hundred structures of one case are one observation: the group stays too small to test."""
    rows = table({f"structure_{i}": [0.1] for i in range(100)}, ["F"])
    more = table({"liver": [0.8, 0.81, 0.82, 0.83, 0.84, 0.85]}, ["M"] * 6)
    more["case_id"] = "other_" + more["case_id"]
    overall = compare_groups(pd.concat([rows, more]), "sex")[0]
    assert sizes(overall) == {"F": 1, "M": 6}
    assert (overall.test, overall.left_out) == ("", 1)


def test_groups_that_are_too_small_are_shown_and_not_tested() -> None:
    column = ["a"] * 5 + ["b"] * 5 + ["c"] * 4
    _, liver = compare_groups(table({"liver": [0.01 * rank for rank in range(14)]}, column), "sex")
    assert sizes(liver) == {"a": 5, "b": 5, "c": 4}
    assert (liver.test, liver.left_out) == ("Mann-Whitney U", 4)
    assert liver.p == pytest.approx(2 / math.comb(10, 5))


class TestMissingValues:
    def test_cases_without_a_group_are_counted(self) -> None:
        column = ["F"] * 5 + ["M"] * 5 + [None, math.nan]
        overall, liver = compare_groups(table({"liver": [0.01 * rank for rank in range(12)]}, column), "sex")
        assert sizes(overall) == sizes(liver) == {"F": 5, "M": 5}
        assert overall.left_out == liver.left_out == 2

    def test_masks_without_a_score_do_not_count(self) -> None:
        scores = [0.5, 0.6, math.nan, 0.7, 0.8]
        _, liver = compare_groups(table({"liver": scores}, ["F", "F", "F", "M", "M"]), "sex")
        assert sizes(liver) == {"F": 2, "M": 2}
        assert [group.mean for group in liver.groups] == pytest.approx([0.55, 0.75])

    @pytest.mark.parametrize("column", [["F"] * 6, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])
    def test_no_score_at_all(self, column: list[object]) -> None:
        (overall,) = compare_groups(table({"liver": [math.nan] * 6}, column), "sex")
        assert (overall.groups, overall.test, overall.left_out) == ((), "", 0)

    def test_no_group_at_all(self) -> None:
        overall, liver = compare_groups(table({"liver": [0.1, 0.2]}, [math.nan, math.nan]), "sex")
        assert (overall.groups, overall.left_out, liver.left_out) == ((), 2, 2)


class TestNumbers:
    def test_many_values_are_cut_at_their_quartiles(self) -> None:
        ages = [*range(20, 101), math.nan]
        _, liver = compare_groups(table({"liver": [0.005 * age for age in range(82)]}, ages, "age"), "age")
        assert sizes(liver) == {"1: 20 to 40": 20, "2: 40 to 60": 20, "3: 60 to 80": 20, "4: 80 to 100": 21}
        assert (liver.test, liver.left_out) == ("Kruskal-Wallis", 1)

    def test_quartiles_are_those_of_the_cases(self) -> None:
        """The oldest shows a hundred structures, and does not shift the quartiles for it."""
        ages = [20, 30, 40, 50, 60]
        rows = table({"liver": [0.5, 0.6, 0.7, 0.8, 0.9]}, ages, "age")
        more = table({f"structure_{i}": [0.5] for i in range(100)}, [60], "age")
        more["case_id"] = "case_04"
        overall = compare_groups(pd.concat([rows, more]), "age")[0]
        assert sizes(overall) == {"1: 20 to 30": 1, "2: 30 to 40": 1, "3: 40 to 50": 1, "4: 50 to 60": 2}

    def test_a_value_that_most_share_makes_fewer_groups(self) -> None:
        doses = [0] * 12 + [1, 2, 3, 4]
        _, liver = compare_groups(
            table({"liver": [0.01 * rank for rank in range(16)]}, doses, "dose"), "dose"
        )
        assert sizes(liver) == {"1: 0 to 0.25": 12, "2: 0.25 to 4": 4}

    def test_few_values_are_groups_in_the_order_of_numbers(self) -> None:
        _, liver = compare_groups(table({"liver": [0.1, 0.2, 0.3]}, [10, 9, math.nan], "kernel"), "kernel")
        assert list(sizes(liver)) == ["9", "10"]
        _, liver = compare_groups(table({"liver": [0.1, 0.2, 0.3]}, [3.0, 1.5, 3.0], "tesla"), "tesla")
        assert sizes(liver) == {"1.5": 1, "3": 2}


def test_another_value_can_be_compared() -> None:
    rows = table({"liver": [0.5, 0.6]}, ["F", "M"]).rename(columns={"predicted_dsc": "dsc"})
    assert [group.mean for group in compare_groups(rows, "sex", value="dsc")[1].groups] == [0.5, 0.6]


def test_a_column_that_is_not_there() -> None:
    rows = table({"liver": [0.5]}, ["F"])
    with pytest.raises(DataError, match="no column 'age'; it has case_id, structure, predicted_dsc, sex"):
        compare_groups(rows, "age")
    with pytest.raises(DataError, match="no column 'predicted_dsc'"):
        compare_groups(rows.drop(columns="predicted_dsc"), "sex")


def test_the_table_stays_as_it_is() -> None:
    rows = table({"liver": [0.5, 0.6]}, ["F", "M"])
    before = rows.copy()
    compare_groups(rows, "sex")
    pd.testing.assert_frame_equal(rows, before)


class TestHolm:
    def test_steps_down_and_never_falls(self) -> None:
        assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])

    def test_no_more_than_1(self) -> None:
        assert holm([0.9, 0.6]) == [1.0, 1.0]

    def test_nan_does_not_count(self) -> None:
        np.testing.assert_allclose(holm([math.nan, 0.02, math.nan, 0.03]), [math.nan, 0.04, math.nan, 0.04])

    def test_nothing(self) -> None:
        assert holm([]) == []
