"""What every registered filter promises, plain, balanced and weighted."""

import math
import pickle

import numpy as np
import pytest

from cohort.errors import ConfigError, SelectionError
from cohort.filtering import FILTERS, Filter, filter_masks, make_filter
from cohort.filtering.registry import FilterSettings
from cohort.records import EMPTY_MASK, QualityScore

VARIANTS = {
    "plain": {},
    "balanced": {"balance": 1.0},
    "weighted": {"weights": "predicted_dsc"},
    "both": {"balance": 2.0, "weights": "predicted_dsc"},
}


def make_scores(seed: int, count: int = 20) -> list[QualityScore]:
    rng = np.random.default_rng(seed)
    scores = []
    for number in range(count):
        for structure in ("liver", "spleen", "aorta"):
            empty = structure == "aorta" and number % 4 == 0
            value = math.nan if empty else float(rng.random())
            scores.append(
                QualityScore(
                    case_id=f"case_{number:03d}",
                    structure=structure,
                    raw=value,
                    predicted_dsc=value,
                    lower=value - 0.1,
                    estimator="test",
                    reason=EMPTY_MASK if empty else "",
                )
            )
    return scores


@pytest.fixture(params=[(kind, variant) for kind in sorted(FILTERS) for variant in VARIANTS])
def rule(request: pytest.FixtureRequest) -> Filter:
    kind, variant = request.param
    return make_filter(FilterSettings(kind=kind, keep=0.4, minimum=0.5, **VARIANTS[variant]))


class TestEveryFilter:
    def test_decides_about_every_mask_once(self, rule: Filter) -> None:
        scores = make_scores(0)
        verdicts = filter_masks(rule, scores, round=0, seed=0)
        assert [(v.case_id, v.structure) for v in verdicts] == sorted(
            (s.case_id, s.structure) for s in scores
        )
        assert all(0.0 <= v.weight <= 1.0 and v.reason for v in verdicts)
        assert any(v.kept for v in verdicts)

    def test_takes_no_masks(self, rule: Filter) -> None:
        assert filter_masks(rule, [], round=0, seed=0) == ()

    def test_does_not_depend_on_the_order(self, rule: Filter) -> None:
        scores = make_scores(1)
        shuffled = [scores[i] for i in np.random.default_rng(2).permutation(len(scores))]
        assert _weights(rule, shuffled) == _weights(rule, scores)

    def test_is_deterministic_and_leaves_global_random_state_alone(self, rule: Filter) -> None:
        before = np.random.get_state()[1].tobytes()  # noqa: NPY002
        assert _weights(rule, make_scores(1)) == _weights(rule, make_scores(1))
        assert np.random.get_state()[1].tobytes() == before  # noqa: NPY002

    def test_never_keeps_an_empty_mask_unasked(self, rule: Filter) -> None:
        verdicts = filter_masks(rule, make_scores(0), round=0, seed=0)
        empty = [v for v in verdicts if v.reason == EMPTY_MASK]
        assert len(empty) == 5
        assert not any(v.kept for v in empty)

    def test_keeps_empty_masks_when_asked_and_judges_the_others_alike(self, rule: Filter) -> None:
        plain = filter_masks(rule, make_scores(0), round=0, seed=0)
        asked = filter_masks(rule, make_scores(0), round=0, seed=0, keep_absent=True)
        assert [v for v in asked if v.reason != "kept as absent"] == [
            v for v in plain if v.reason != EMPTY_MASK
        ]
        assert all(v.weight == 1.0 for v in asked if v.reason == "kept as absent")

    def test_keeps_no_mask_without_the_number_that_it_needs(self, rule: Filter) -> None:
        bare = [
            QualityScore(case_id=f"c{n}", structure="liver", raw=math.nan, estimator="none") for n in range(4)
        ]
        kept = [v.kept for v in filter_masks(rule, bare, round=0, seed=0)]
        assert any(kept) == (rule.needs == "nothing")

    def test_is_a_value(self, rule: Filter) -> None:
        assert pickle.loads(pickle.dumps(rule)) == rule
        assert rule.rule

    def test_refuses_a_mask_that_comes_twice(self, rule: Filter) -> None:
        with pytest.raises(SelectionError, match="'liver' of case case_000 comes twice"):
            filter_masks(rule, [*make_scores(0), make_scores(0)[0]], round=0, seed=0)


@pytest.mark.parametrize("kind", ["top_fraction", "threshold", "lower_bound"])
def test_a_better_mask_is_kept_wherever_a_worse_one_of_its_structure_is(kind: str) -> None:
    scores = make_scores(3)
    verdicts = filter_masks(make_filter(FilterSettings(kind=kind, minimum=0.5)), scores, round=0, seed=0)
    for structure in ("liver", "spleen", "aorta"):
        own = [v for v in verdicts if v.structure == structure and v.reason != EMPTY_MASK]
        kept, left = [v.score for v in own if v.kept], [v.score for v in own if not v.kept]
        assert min(kept) > max(left)


def test_unknown_filter_lists_the_known() -> None:
    with pytest.raises(
        ConfigError, match="Unknown filter 'best'; expected one of lower_bound, random, threshold, top"
    ):
        make_filter(FilterSettings(kind="best"))


def _weights(rule: Filter, scores: list[QualityScore]) -> dict[tuple[str, str], float]:
    return {(v.case_id, v.structure): v.weight for v in filter_masks(rule, scores, round=1, seed=3)}
