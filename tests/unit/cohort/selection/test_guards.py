from collections.abc import Mapping
from math import nan

import numpy as np
import pytest

from cohort.budget import Budget, Cost
from cohort.selection import Candidate, Selection, select
from cohort.selection.guards import Guarded
from cohort.selection.quality import Quality

SPREAD = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)


def candidate(case_id: str, features: np.ndarray | None = None, **scores: float) -> Candidate:
    return Candidate(
        case_id=case_id,
        patient_id=case_id,
        structures=tuple(scores),
        scores=scores,
        features=features,
        cost=Cost(cases=1.0),
    )


def chosen(
    pool: list[Candidate],
    count: int,
    labelled: Mapping[str, np.ndarray] | None = None,
    **options: float,
) -> Selection:
    strategy = Guarded(inner=Quality(), **options)
    budget = Budget(currency="cases", per_round=float(count))
    return select(strategy, pool, budget, round=0, seed=0, labelled=labelled)


def reasons(selection: Selection) -> dict[str, str]:
    return {key[0]: why for key, why in selection.held_back.items()}


class TestDuplicates:
    POOL = (
        candidate("worst", SPREAD[0], liver=0.1),
        candidate("its_copy", SPREAD[0] + np.float32(0.001), liver=0.11),
        candidate("other", SPREAD[1], liver=0.2),
        candidate("fine", SPREAD[2], liver=0.9),
    )

    def test_a_copy_of_a_selected_case_waits(self) -> None:
        selection = chosen(list(self.POOL), 2)
        assert selection.selected == ("worst", "other")
        assert reasons(selection) == {"its_copy": "near duplicate of worst"}

    def test_a_copy_of_a_labelled_case_waits(self) -> None:
        selection = chosen(list(self.POOL), 1, {"known": SPREAD[0]})
        assert selection.selected == ("other",)
        assert reasons(selection) == dict.fromkeys(("worst", "its_copy"), "near duplicate of known")

    def test_another_structure_of_a_labelled_case_is_no_copy(self) -> None:
        selection = chosen(list(self.POOL[:1]), 1, {"worst": SPREAD[0]})
        assert selection.selected == ("worst",)

    def test_the_threshold_can_be_zero(self) -> None:
        assert chosen(list(self.POOL), 2, duplicates=0.0).selected == ("worst", "its_copy")

    def test_copies_are_taken_where_nothing_else_is_left(self) -> None:
        selection = chosen(list(self.POOL[:2]), 2, {"known": SPREAD[0]})
        assert selection.selected == ("worst", "its_copy")

    def test_without_features_nothing_is_a_copy(self) -> None:
        pool = [candidate("a", liver=0.1), candidate("b", liver=0.1)]
        assert set(chosen(pool, 2).selected) == {"a", "b"}


class TestEmptyMasks:
    @staticmethod
    def pool() -> list[Candidate]:
        missed = [candidate(f"missed{n}", liver=0.9, aorta=nan) for n in range(6)]
        found = [candidate(f"found{n}", liver=0.8, aorta=0.7 + 0.01 * n) for n in range(6)]
        return [*missed, *found, candidate("bad", liver=0.1, aorta=0.1)]

    def test_they_get_no_more_than_their_share(self) -> None:
        selection = chosen(self.pool(), 4, empty_share=0.5)
        assert selection.selected[0] == "bad"
        assert sum(case_id.startswith("missed") for case_id in selection.selected) == 2
        assert selection.selected[-1] == "found0"
        assert len(reasons(selection)) == 4
        assert all("chosen for an empty mask alone" in why for why in reasons(selection).values())

    def test_no_budget_is_left_where_nearly_every_mask_is_empty(self) -> None:
        pool = [candidate(f"c{number}", liver=nan, spleen=0.9) for number in range(5)]
        pool.append(candidate("whole", liver=0.1, spleen=0.9))
        selection = chosen(pool, 5)
        assert len(selection.selected) == 5
        assert "whole" in selection.selected
        waited = {ranked.case_id for ranked in selection.ranked if ranked.guard}
        assert len(waited & set(selection.selected)) == 2, "what the others left of the budget"
        assert set(reasons(selection)) == waited - set(selection.selected)

    def test_a_case_that_is_bad_anyway_is_not_counted(self) -> None:
        pool = [c for c in self.pool() if not c.case_id.startswith("missed")]
        pool += [candidate(f"bad{n}", liver=0.05, aorta=nan) for n in range(3)]
        selection = chosen(pool, 3, empty_share=0.0)
        assert set(selection.selected) == {"bad0", "bad1", "bad2"}
        assert reasons(selection) == {}

    def test_a_full_share_is_no_guard(self) -> None:
        free = chosen(self.pool(), 5, empty_share=1.0)
        plain = select(Quality(), self.pool(), Budget(currency="cases", per_round=5.0), round=0, seed=0)
        assert (free.requests, free.ranked) == (plain.requests, plain.ranked)

    def test_a_structure_that_nobody_has_holds_nobody_back(self) -> None:
        pool = [candidate(f"c{n}", liver=n / 10, aorta=nan) for n in range(6)]
        assert chosen(pool, 4, empty_share=0.0).selected == ("c0", "c1", "c2", "c3")


class TestBrokenScans:
    def test_they_are_never_taken(self) -> None:
        broken = Candidate(
            case_id="broken",
            patient_id="p",
            structures=("liver",),
            scores={"liver": 0.0},
            broken="constant: every voxel is 0",
            cost=Cost(cases=1.0),
        )
        selection = chosen([broken, candidate("sound", liver=0.9)], 2)
        assert selection.selected == ("sound",)
        assert reasons(selection) == {"broken": "broken scan, constant: every voxel is 0"}
        assert chosen([broken], 2).selected == ()


class TestOutliers:
    @staticmethod
    def pool() -> list[Candidate]:
        quality = np.random.default_rng(1).normal(0.8, 0.01, 30)
        pool = [candidate(f"c{n}", SPREAD[n], liver=float(q)) for n, q in enumerate(quality)]
        far = [candidate(f"far{n}", SPREAD[30 + n] + 100.0 * (n + 1), liver=0.01) for n in range(3)]
        return [*pool, *far, candidate("near", SPREAD[34], liver=0.02)]

    def test_they_get_no_more_than_their_share(self) -> None:
        selection = chosen(self.pool(), 4, outlier_share=0.25)
        assert sum(case_id.startswith("far") for case_id in selection.selected) == 1
        assert "near" in selection.selected, "a bad mask of a scan like others is what we look for"
        assert sum("an outlier" in why for why in reasons(selection).values()) == 2

    def test_far_alone_or_bad_alone_is_no_outlier(self) -> None:
        pool = [candidate(f"c{n}", SPREAD[n], liver=0.8 + 0.001 * (n % 5)) for n in range(30)]
        pool += [candidate("far", SPREAD[30] + 100.0, liver=0.802), candidate("bad", SPREAD[31], liver=0.1)]
        selection = chosen(pool, 32, outlier_share=0.0)
        assert reasons(selection) == {}

    def test_a_full_share_is_no_guard(self) -> None:
        assert reasons(chosen(self.pool(), 4, outlier_share=1.0)) == {}


@pytest.mark.parametrize("seed", range(5))
def test_ranks_and_priorities_are_those_of_the_inner_strategy(seed: int) -> None:
    budget = Budget(currency="cases", per_round=4.0)
    guarded = select(Guarded(inner=Quality()), TestEmptyMasks.pool(), budget, round=0, seed=seed)
    plain = select(Quality(), TestEmptyMasks.pool(), budget, round=0, seed=seed)
    assert [place[:3] for place in guarded.ranked] == [place[:3] for place in plain.ranked]


def test_it_uses_features_unless_both_guards_that_look_at_them_are_off() -> None:
    assert Guarded(inner=Quality()).uses_features
    assert Guarded(inner=Quality(), duplicates=0.0).uses_features
    assert not Guarded(inner=Quality(), duplicates=0.0, outlier_share=1.0).uses_features
