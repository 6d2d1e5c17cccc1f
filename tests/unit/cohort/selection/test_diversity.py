from collections.abc import Sequence

import numpy as np
import pytest

from cohort.budget import Budget, Cost
from cohort.selection import Candidate, RoundContext, select
from cohort.selection.distances import farthest_first, nearest, squared_distances
from cohort.selection.diversity import CoreSet, Diverse, Representative
from cohort.selection.quality import Quality


def pool(points: Sequence[Sequence[float]], quality: Sequence[float] | None = None) -> list[Candidate]:
    return [
        Candidate(
            case_id=f"c{n}",
            patient_id="p",
            structures=("liver",),
            scores={"liver": 0.5 if quality is None else quality[n]},
            features=np.array(point, dtype=np.float32),
            cost=Cost(cases=1.0),
        )
        for n, point in enumerate(points)
    ]


def taken(strategy: CoreSet | Diverse | Representative, candidates: list[Candidate], count: int) -> list[str]:
    budget = Budget(currency="cases", per_round=float(count))
    labelled = {"known": np.zeros(2, dtype=np.float32)}
    return list(select(strategy, candidates, budget, round=0, seed=0, labelled=labelled).selected)


class TestCoreSet:
    LINE = ((1.0, 0.0), (2.0, 0.0), (10.0, 0.0), (9.0, 0.0), (5.0, 0.0))

    def test_the_farthest_from_the_labelled_and_the_taken_comes_first(self) -> None:
        assert taken(CoreSet(), pool(self.LINE), 3) == ["c2", "c4", "c1"]

    def test_priorities_are_distances_when_taken(self) -> None:
        context = RoundContext(wanted=2, labelled={"known": np.zeros(2, dtype=np.float32)})
        found = CoreSet().priorities(pool(self.LINE), np.random.default_rng(0), context)
        np.testing.assert_allclose(found, [1.0, 2.0, 10.0, 1.0, 5.0])

    def test_without_a_labelled_case_all_are_spread(self) -> None:
        found = select(CoreSet(), pool(self.LINE), Budget(currency="cases", per_round=2.0), round=0, seed=0)
        first, second = (self.LINE[int(case_id[1:])][0] for case_id in found.selected)
        assert abs(first - second) >= 4.0

    def test_copies_come_last(self) -> None:
        candidates = pool([(3.0, 0.0), (3.0, 0.0), (0.5, 0.0)])
        assert taken(CoreSet(), candidates, 2)[1] == "c2"


class TestDiverse:
    def test_the_batch_is_spread_over_what_is_worth_it(self) -> None:
        points = [(1.2, 0.0), (1.1, 0.0), (0.0, 1.0), (50.0, 50.0)]
        candidates = pool(points, [0.1, 0.11, 0.2, 0.9])
        assert taken(Diverse(inner=Quality(), factor=1.5), candidates, 2) == ["c0", "c2"]

    def test_a_factor_of_one_keeps_the_inner_choice(self) -> None:
        candidates = pool([(1.0, 0.0), (1.1, 0.0), (0.0, 1.0)], [0.1, 0.11, 0.2])
        assert set(taken(Diverse(inner=Quality(), factor=1.0), candidates, 2)) == {"c0", "c1"}


class TestRepresentative:
    def test_a_scan_like_no_other_comes_later(self) -> None:
        points = [(0.01 * n, 0.0) for n in range(10)] + [(30.0, 30.0)]
        candidates = pool(points, [0.5] * 9 + [0.2, 0.1])
        assert taken(Representative(inner=Quality()), candidates, 1) == ["c9"]
        assert taken(Representative(inner=Quality(), weight=0.0), candidates, 1) == ["c10"]

    def test_without_weight_it_needs_no_features(self) -> None:
        assert Representative(inner=Quality()).needs_features
        assert not Representative(inner=Quality(), weight=0.0).needs_features

    def test_where_all_look_alike_the_inner_order_stays(self) -> None:
        candidates = pool([(1.0, 1.0)] * 4, [0.4, 0.3, 0.2, 0.1])
        assert taken(Representative(inner=Quality()), candidates, 4) == ["c3", "c2", "c1", "c0"]


class TestDistances:
    POINTS = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)

    def test_they_are_what_they_are(self) -> None:
        expected = np.square(self.POINTS[:, None] - self.POINTS[None, :9]).sum(axis=2)
        np.testing.assert_allclose(squared_distances(self.POINTS, self.POINTS[:9]), expected, atol=1e-5)
        np.testing.assert_allclose(nearest(self.POINTS, self.POINTS[:9]), expected.min(axis=1), atol=1e-5)

    def test_nothing_is_near_to_nothing(self) -> None:
        assert np.isinf(nearest(self.POINTS, None)).all()

    def test_farthest_first_covers_as_well_as_twice_the_best(self) -> None:
        far = nearest(self.POINTS, self.POINTS[:1])
        order, reached = farthest_first(self.POINTS, far, np.arange(50), 10)
        taken_distances = reached[order]
        assert (np.diff(taken_distances) <= 0.0).all()
        rest = np.setdiff1d(np.arange(50), order)
        assert reached[rest].max() <= taken_distances[-1]

    @pytest.mark.parametrize("hashes", [(0, 1), (1, 0)])
    def test_equals_go_by_their_hash(self, hashes: tuple[int, int]) -> None:
        points = np.array([[1.0], [-1.0]], dtype=np.float32)
        order, _ = farthest_first(points, np.ones(2), np.array(hashes), 1)
        assert order == [hashes.index(0)]
