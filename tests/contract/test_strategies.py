"""What every registered strategy promises."""

import math
import pickle
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from cohort.budget import Budget, Cost
from cohort.errors import SelectionError
from cohort.selection import PRESETS, STRATEGIES, Candidate, Strategy, select
from cohort.selection.clasp import Clasp
from cohort.selection.diversity import CoreSet, Diverse, Representative
from cohort.selection.guards import Guarded
from cohort.selection.per_cost import PerCost
from cohort.selection.power import Power, Schedule
from cohort.selection.quality import Quality
from cohort.selection.stratified import Stratified

BUDGET = Budget(currency="minutes", per_round=12.0)


def make_pool(seed: int, count: int = 30) -> list[Candidate]:
    rng = np.random.default_rng(seed)
    pool = []
    for n in range(count):
        scores = {name: float(rng.random()) for name in ("liver", "spleen", "aorta")}
        if n % 4 == 0:
            scores["aorta"] = float("nan")
        pool.append(
            Candidate(
                case_id=f"case_{n:03d}",
                patient_id=f"patient_{n // 2}",
                structures=tuple(scores),
                scores=scores,
                volumes_ml={
                    name: 0.0 if math.isnan(q) else rng.uniform(1.0, 9.0) for name, q in scores.items()
                },
                features=rng.normal(size=5).astype(np.float32),
                missing={"aorta": "empty mask"} if n % 4 == 0 else {},
                cost=Cost(cases=1.0, structures=3.0, minutes=float(rng.uniform(1.0, 6.0))),
            )
        )
    return pool


COMPOSED: Mapping[str, Strategy] = {
    strategy.name: strategy
    for strategy in (
        Stratified(inner=Quality(), allocation="equal"),
        Diverse(inner=Power(inner=Quality())),
        Guarded(inner=Power(inner=PerCost(inner=Representative(inner=Quality())))),
        Power(inner=CoreSet(), schedule=Schedule(start=4.0, end=4.0)),
        PerCost(inner=Guarded(inner=Clasp())),
    )
}


@pytest.fixture(params=[*STRATEGIES, *(f"preset {name}" for name in PRESETS), *COMPOSED])
def strategy(request: pytest.FixtureRequest) -> Strategy:
    name = str(request.param)
    if name in COMPOSED:
        return COMPOSED[name]
    return PRESETS[name.removeprefix("preset ")][0] if name.startswith("preset ") else STRATEGIES[name]


class TestEveryStrategy:
    def test_gives_one_finite_number_a_candidate(self, strategy: Strategy) -> None:
        for count in (0, 1, 30):
            priorities = strategy.priorities(make_pool(0, count), np.random.default_rng(0))
            assert priorities.shape == (count,)
            assert priorities.dtype == np.float64
            assert np.isfinite(priorities).all()

    def test_is_deterministic(self, strategy: Strategy) -> None:
        a, b = (strategy.priorities(make_pool(0), np.random.default_rng(3)) for _ in range(2))
        np.testing.assert_array_equal(a, b)

    def test_leaves_global_random_state_alone(self, strategy: Strategy) -> None:
        before = np.random.get_state()[1].tobytes()  # noqa: NPY002
        strategy.priorities(make_pool(0), np.random.default_rng(3))
        assert np.random.get_state()[1].tobytes() == before  # noqa: NPY002

    def test_gives_a_candidate_the_same_priority_wherever_it_stands(self, strategy: Strategy) -> None:
        pool = make_pool(1)
        order = np.random.default_rng(2).permutation(len(pool))
        straight = strategy.priorities(pool, np.random.default_rng(3))
        shuffled = strategy.priorities([pool[i] for i in order], np.random.default_rng(3))
        np.testing.assert_allclose(shuffled, straight[order], rtol=1e-12)

    def test_survives_masks_that_are_all_empty(self, strategy: Strategy) -> None:
        pool = [
            Candidate(
                case_id=f"c{n}",
                patient_id="p",
                structures=("liver",),
                scores={"liver": float("nan")},
                features=np.full(2, n, dtype=np.float32),
                cost=Cost(minutes=1.0),
            )
            for n in range(5)
        ]
        assert np.isfinite(strategy.priorities(pool, np.random.default_rng(0))).all()
        assert len(select(strategy, pool, BUDGET, round=0, seed=0).selected) == 5

    def test_does_not_look_at_names_of_patients(self, strategy: Strategy) -> None:
        pool = make_pool(1)
        renamed = [replace(candidate, patient_id="x") for candidate in pool]
        assert select(strategy, pool, BUDGET, round=0, seed=0) == select(
            strategy, renamed, BUDGET, round=0, seed=0
        )

    def test_selects_within_the_budget(self, strategy: Strategy) -> None:
        selection = select(strategy, make_pool(4), BUDGET, round=0, seed=0)
        assert selection.selected
        assert selection.predicted_cost.minutes <= BUDGET.per_round
        ranks = {place.case_id: place.rank for place in selection.ranked}
        assert [ranks[c] for c in selection.selected] == sorted(ranks[c] for c in selection.selected)

    def test_says_whether_it_needs_scores(self, strategy: Strategy) -> None:
        bare = [Candidate(case_id="a", patient_id="a", structures=("liver",), cost=Cost(minutes=1.0))]
        if strategy.needs_scores:
            with pytest.raises(SelectionError, match="needs quality scores, but a has none"):
                select(strategy, bare, BUDGET, round=0, seed=0)
        elif strategy.needs_features:
            with pytest.raises(SelectionError, match="needs features, but a has none"):
                select(strategy, bare, BUDGET, round=0, seed=0)
        else:
            assert select(strategy, bare, BUDGET, round=0, seed=0).selected == ("a",)

    def test_a_selection_is_a_value(self, strategy: Strategy) -> None:
        selection = select(strategy, make_pool(4), BUDGET, round=0, seed=0)
        assert pickle.loads(pickle.dumps(selection)) == selection
        assert hash(selection) == hash(select(strategy, make_pool(4), BUDGET, round=0, seed=0))
        assert pickle.loads(pickle.dumps(strategy)) == strategy


def test_presets_that_rank_by_scores_name_an_estimator() -> None:
    for strategy, estimator in PRESETS.values():
        assert strategy.needs_scores == (estimator is not None)
