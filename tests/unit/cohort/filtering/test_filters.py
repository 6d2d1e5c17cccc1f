import math
from dataclasses import replace

import numpy as np
import pytest

from cohort.errors import ConfigError, SelectionError
from cohort.filtering import Verdict, filter_masks
from cohort.filtering.fraction import RandomFraction, TopFraction
from cohort.filtering.outcome import outcome, outcomes
from cohort.filtering.threshold import Threshold, Unfiltered
from cohort.filtering.wrappers import Balanced, Weighted
from cohort.records import EMPTY_MASK, QualityScore


def score(case_id: str, structure: str, raw: float, predicted: float = math.nan) -> QualityScore:
    return QualityScore(
        case_id=case_id,
        structure=structure,
        raw=raw,
        predicted_dsc=predicted,
        estimator="test",
        reason=EMPTY_MASK if math.isnan(raw) else "",
    )


SCORES = [
    *[score(f"c{n}", "liver", value, value) for n, value in enumerate((0.9, 0.8, 0.7, 0.95))],
    *[score(f"c{n}", "pancreas", value, value) for n, value in enumerate((0.5, math.nan, 0.6, 0.4))],
]


def kept(rule, scores=SCORES, **options) -> set[str]:
    verdicts = filter_masks(rule, scores, round=0, seed=0, **options)
    return {f"{v.case_id} {v.structure}" for v in verdicts if v.kept}


def test_a_good_liver_is_kept_though_the_pancreas_beside_it_is_not():
    assert kept(TopFraction(keep=0.5)) == {"c0 liver", "c3 liver", "c0 pancreas", "c2 pancreas"}


def test_over_all_masks_the_easy_structure_takes_everything():
    assert kept(TopFraction(keep=0.5, per="all")) == {"c0 liver", "c1 liver", "c2 liver", "c3 liver"}


def test_over_all_masks_they_are_compared_as_dsc_where_every_mask_has_one():
    upside_down = [replace(score, predicted_dsc=1.0 - score.raw) for score in SCORES if score.raw > 0.0]
    by_dsc = kept(TopFraction(keep=0.25, per="all"), upside_down)
    assert by_dsc == kept(
        TopFraction(keep=0.25, per="all"), [replace(s, raw=1.0 - s.raw) for s in upside_down]
    )
    one_without = [replace(upside_down[0], predicted_dsc=float("nan")), *upside_down[1:]]
    assert kept(TopFraction(keep=0.25, per="all"), one_without) != by_dsc


def test_cases_are_kept_whole_by_the_mean_rank_of_their_masks():
    # liver c2 0, c1 1/3, c0 2/3, c3 1; pancreas c3 0, c0 1/2, c2 1: c0 0.583, c2 and c3 0.5, c1 0.333
    assert kept(TopFraction(keep=0.25, per="case")) == {"c0 liver", "c0 pancreas"}


def test_at_least_one_mask_is_kept_of_every_structure():
    assert kept(TopFraction(keep=0.01)) == {"c3 liver", "c2 pancreas"}


def test_threshold_on_the_predicted_dsc_includes_its_minimum():
    assert kept(Threshold(minimum=0.8)) == {"c0 liver", "c1 liver", "c3 liver"}


def test_threshold_on_the_lower_bound_needs_bounds():
    (verdict, *_) = filter_masks(Threshold(minimum=0.1, on="lower"), SCORES, round=0, seed=0)
    assert (verdict.kept, verdict.reason) == (False, "no lower bound of the DSC")


def test_unfiltered_keeps_all_but_the_empty_mask():
    assert len(kept(Unfiltered())) == 7
    assert len(kept(Unfiltered(), keep_absent=True)) == 8


def test_random_draws_differ_between_generations_and_seeds():
    many = [score(f"c{n}", "liver", 0.5) for n in range(40)]
    drawn = {
        frozenset(v.case_id for v in filter_masks(RandomFraction(keep=0.5), many, round=r, seed=s) if v.kept)
        for r in range(2)
        for s in range(2)
    }
    assert len(drawn) == 4


def test_balanced_takes_the_best_of_the_common_structure():
    assert kept(Balanced(inner=Threshold(minimum=0.6))) == {"c3 liver", "c2 pancreas"}
    assert kept(Balanced(inner=Threshold(minimum=0.6), ratio=2.0)) == {"c3 liver", "c0 liver", "c2 pancreas"}


def test_balanced_leaves_out_structures_of_which_nothing_is_kept():
    assert kept(Balanced(inner=Threshold(minimum=0.8))) == {"c0 liver", "c1 liver", "c3 liver"}


def test_weights_are_the_predicted_dsc():
    rule = Weighted(inner=Unfiltered(), lowest=0.45)
    assert rule.rule == "all masks, weighted by predicted DSC"
    verdicts = filter_masks(rule, SCORES, round=0, seed=0)
    found = {f"{v.case_id} {v.structure}": v.weight for v in verdicts}
    assert found["c0 liver"] == 0.9
    assert found["c3 pancreas"] == 0.45  # 0.4 is raised to the lowest weight
    assert found["c1 pancreas"] == 0.0


def test_weights_by_rank_fall_evenly_from_the_best():
    verdicts = filter_masks(
        Weighted(inner=TopFraction(keep=0.75), by="rank", lowest=0.2), SCORES, round=0, seed=0
    )
    found = {v.case_id: v.weight for v in verdicts if v.structure == "liver"}
    assert found == pytest.approx({"c3": 1.0, "c0": 0.6, "c1": 0.2, "c2": 0.0})


@pytest.mark.parametrize("keep", [0.0, -0.1, 1.01, math.nan])
def test_a_fraction_outside_0_to_1_is_refused(keep):
    for rule in (TopFraction, RandomFraction):
        with pytest.raises(ConfigError, match=r"keep is .*; expected a fraction above 0 and up to 1"):
            rule(keep=keep)


def test_settings_out_of_range_are_refused():
    with pytest.raises(ConfigError, match=r"minimum is 1.5; expected a DSC from 0 to 1"):
        Threshold(minimum=1.5)
    with pytest.raises(ConfigError, match=r"balance is 0.5; expected 1 or more"):
        Balanced(inner=Unfiltered(), ratio=0.5)
    with pytest.raises(ConfigError, match=r"lowest_weight is 0.0"):
        Weighted(inner=Unfiltered(), lowest=0.0)
    with pytest.raises(ConfigError, match="reads no score to rank by"):
        Weighted(inner=Unfiltered(), by="rank")
    with pytest.raises(ConfigError, match="Unknown unit 'organ'"):
        TopFraction(keep=0.5, per="organ")


class Broken(Unfiltered):
    def weights(self, scores, rng):
        return np.full(len(scores) - 1, 0.5)


class TooMuch(Unfiltered):
    def weights(self, scores, rng):
        return np.full(len(scores), 1.5)


def test_a_broken_filter_is_named():
    with pytest.raises(SelectionError, match=r"weights of shape \(6,\) for 7 masks"):
        filter_masks(Broken(), SCORES, round=0, seed=0)
    with pytest.raises(SelectionError, match=r"gave 'liver' of case c0 the weight 1.5; expected 0 to 1"):
        filter_masks(TooMuch(), SCORES, round=0, seed=0)


def test_outcome_of_hand_made_verdicts():
    verdicts = [
        Verdict(case_id="a", structure="liver", weight=1.0, score=0.9, reason="in"),
        Verdict(case_id="b", structure="liver", weight=0.5, score=0.8, reason="in"),
        Verdict(case_id="c", structure="liver", weight=0.0, score=0.3, reason="not in"),
        Verdict(case_id="d", structure="liver", weight=0.0, score=0.2, reason="not in"),
        Verdict(case_id="e", structure="liver", weight=0.0, score=math.nan, reason=EMPTY_MASK),
    ]
    dscs = {("a", "liver"): 0.9, ("b", "liver"): 0.7, ("c", "liver"): 0.85, ("e", "liver"): 0.0}
    found = outcome(verdicts, dscs, good_dsc=0.8)
    assert found == {
        "masks": 4.0,
        "kept": 2.0,
        "kept_fraction": 0.5,
        "kept_empty": 0.0,
        "weight": 1.5,
        "measured": 3.0,
        "measured_kept": 2.0,
        "dsc": pytest.approx(2.45 / 3),
        "dsc_kept": pytest.approx(0.8),
        "good": pytest.approx(2 / 3),
        "precision": 0.5,
        "recall": 0.5,
    }
    assert outcomes(verdicts, {}, ["liver", "spleen"], good_dsc=0.8)["spleen"]["dsc_kept"] is None
