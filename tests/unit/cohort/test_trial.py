import math
from dataclasses import replace

import numpy as np
import pytest

from cohort.errors import ConfigError
from cohort.records import QualityScore
from cohort.trial import RevealedMask, rank_evidence, revealed_masks, verdict


def mask(case: str, raw: float, dsc: float, *, structure: str = "liver", round: int = 0) -> RevealedMask:
    return RevealedMask(
        case_id=case,
        patient_id=f"p{case}",
        structure=structure,
        round=round,
        raw=raw,
        predicted_dsc=raw,
        lower=raw - 0.1,
        upper=raw + 0.1,
        dsc=dsc,
    )


def rounds(count: int, *, sign: float, structures: int = 2, cases: int = 4) -> list[RevealedMask]:
    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        for case in range(cases):
            dsc = float(rng.uniform(0.3, 0.9))
            for structure in range(structures):
                raw = sign * dsc + 0.01 * structure + 10.0 * number
                found.append(mask(f"{number}-{case}", raw, dsc, structure=f"s{structure}", round=number))
    return found


class TestRevealedMasks:
    def test_are_those_whose_dsc_is_known(self) -> None:
        scores = [
            QualityScore(case_id=case, structure=name, raw=0.5, estimator="sentinel", lower=0.2, upper=0.8)
            for case in "ab"
            for name in ("liver", "spleen")
        ]
        (found,) = revealed_masks(scores, {("b", "spleen"): 0.25}, {"a": "pa", "b": "pb"}, 3)
        assert (found.case_id, found.patient_id, found.structure) == ("b", "pb", "spleen")
        assert (found.round, found.raw, found.lower, found.upper, found.dsc) == (3, 0.5, 0.2, 0.8, 0.25)
        assert math.isnan(found.predicted_dsc)


class TestVerdict:
    def test_by_hand(self) -> None:
        masks = [mask("a", 0.2, 0.25), mask("b", 0.5, 0.45), mask("c", 0.9, 0.7), mask("d", math.nan, 0.0)]
        found = verdict(masks)
        assert found["spearman"] == pytest.approx(1.0)
        assert found["mae"] == pytest.approx((0.05 + 0.05 + 0.2) / 3)
        assert found["bias"] == pytest.approx((-0.05 + 0.05 + 0.2) / 3)
        assert found["coverage"] == pytest.approx(2 / 3)
        assert (found["n"], found["missing"]) == (3, 1)

    def test_of_an_estimator_without_bounds_has_no_coverage(self) -> None:
        bare = replace(mask("a", -2.0, 0.5), predicted_dsc=math.nan, lower=math.nan, upper=math.nan)
        assert verdict([bare])["coverage"] is None
        assert verdict([bare])["mae"] is None

    def test_of_nothing(self) -> None:
        assert verdict([]) == {
            "pearson": None,
            "spearman": None,
            "mae": None,
            "bias": None,
            "coverage": None,
            "n": 0,
            "missing": 0,
        }


class TestRankEvidence:
    def test_of_a_perfect_order(self) -> None:
        found = rank_evidence(rounds(3, sign=1.0), seed=0)
        assert found.correlation == pytest.approx(1.0)
        assert found.p < 0.01
        assert (found.cases, found.masks) == (12, 24)

    def test_of_the_opposite_order(self) -> None:
        found = rank_evidence(rounds(3, sign=-1.0), seed=0)
        assert found.correlation == pytest.approx(-1.0)
        assert found.p > 0.99

    def test_structures_of_a_case_do_not_count_as_independent(self) -> None:
        """Four cases have 24 orders, however many structures repeat them."""
        found = rank_evidence(rounds(1, sign=1.0, structures=30), seed=0)
        assert found.p == pytest.approx(1 / 24, abs=0.02)

    def test_scores_of_different_rounds_are_not_compared(self) -> None:
        """Within each round the order is wrong; over both it would look right."""
        masks = [
            mask(f"{number}{case}", 10.0 * number - case, 0.1 + 0.4 * number + 0.1 * case, round=number)
            for number in range(2)
            for case in range(4)
        ]
        assert rank_evidence(masks, seed=0).correlation == pytest.approx(-1.0)

    def test_a_chance_order_is_rarely_evidence(self) -> None:
        rng = np.random.default_rng(1)
        found = [
            rank_evidence(
                [mask(str(case), *rng.uniform(0.0, 1.0, 2).tolist()) for case in range(8)],
                seed=seed,
                permutations=200,
            ).p
            for seed in range(200)
        ]
        assert np.mean(np.array(found) <= 0.1) == pytest.approx(0.1, abs=0.06)

    def test_a_chance_order_is_rarely_evidence_where_structures_are_missing(self) -> None:
        """A permutation leaves as many pairs in each structure as there are."""
        rng = np.random.default_rng(2)
        found = []
        for seed in range(200):
            masks = [
                mask(f"{number}{case}", *rng.uniform(0.0, 1.0, 2).tolist(), structure=name, round=number)
                for number in range(3)
                for case in range(6)
                for name in ("liver", "spleen", "aorta")
                if rng.random() > 0.5
            ]
            found.append(rank_evidence(masks, seed=seed, permutations=200).p)
        assert np.mean(np.array(found) <= 0.1) == pytest.approx(0.1, abs=0.06)

    def test_does_not_depend_on_the_order_of_the_masks(self) -> None:
        masks = rounds(2, sign=0.3)
        assert rank_evidence(masks, seed=4) == rank_evidence(masks[::-1], seed=4)

    @pytest.mark.parametrize("raw", [math.nan, 0.5])
    def test_says_nothing_without_three_scores_of_a_structure(self, raw: float) -> None:
        found = rank_evidence([mask("a", raw, 0.3), mask("b", raw, 0.4), mask("c", math.nan, 0.5)], seed=0)
        assert math.isnan(found.correlation)
        assert (found.p, found.cases, found.masks) == (1.0, 0, 0)

    def test_equal_scores_are_no_evidence(self) -> None:
        found = rank_evidence([mask(str(case), 0.5, 0.1 * case) for case in range(5)], seed=0)
        assert (found.correlation, found.p) == (0.0, 1.0)

    def test_refuses_too_few_permutations(self) -> None:
        with pytest.raises(ConfigError, match="permutations is 10, expected 100 or more"):
            rank_evidence([], seed=0, permutations=10)
