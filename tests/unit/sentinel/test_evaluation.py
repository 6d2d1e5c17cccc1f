"""Figures by hand, intervals over patients, and ranks within one model."""

import math
from dataclasses import replace

import numpy as np
import pytest

from sentinel.evaluation import (
    Figures,
    ScoredMask,
    as_rows,
    evaluate_scores,
    flat_metrics,
    within_one_model,
)

NAN = math.nan


def scored(
    predicted: float,
    dsc: float,
    *,
    raw: float | None = None,
    patient: str = "p0",
    structure: str = "liver",
    source: str = "unet/step40",
    bounds: tuple[float, float] = (NAN, NAN),
    slices: tuple[tuple[float, float], ...] = (),
) -> ScoredMask:
    return ScoredMask(
        case_id=patient,
        patient_id=patient,
        structure=structure,
        source=source,
        raw=predicted if raw is None else raw,
        predicted_dsc=predicted,
        lower=bounds[0],
        upper=bounds[1],
        dsc=dsc,
        slice_scores=tuple(score for score, _ in slices),
        slice_dsc=tuple(true for _, true in slices),
    )


FOUR = (
    scored(0.9, 0.8, patient="a", bounds=(0.7, 1.0)),
    scored(0.6, 0.7, patient="b", bounds=(0.5, 0.65)),
    scored(0.5, 0.3, patient="c", bounds=(0.2, 0.6)),
    scored(0.4, 0.4, patient="c"),
)


def overall(*masks: ScoredMask, resamples: int = 200, bad_below: float = 0.7) -> Figures:
    return evaluate_scores(masks, resamples=resamples, bad_below=bad_below).per_mask["all"]


def assert_alike(one: Figures, other: Figures) -> None:
    for name in Figures.__slots__:
        assert getattr(one, name) == pytest.approx(getattr(other, name), abs=1e-12, nan_ok=True), name


class TestFigures:
    def test_by_hand(self) -> None:
        found = overall(*FOUR)
        assert (found.masks, found.patients, found.without_value) == (4, 3, 0)
        assert found.pearson == pytest.approx(0.13 / math.sqrt(0.14 * 0.17))
        assert found.spearman == pytest.approx(0.8)  # one pair of neighbours changed places
        assert found.mae == pytest.approx(0.1)
        assert found.bias == pytest.approx(0.05)

    def test_coverage_and_width_count_only_masks_with_bounds(self) -> None:
        found = overall(*FOUR)
        assert found.coverage == pytest.approx(2 / 3)
        assert found.width == pytest.approx((0.3 + 0.15 + 0.4) / 3)
        without = overall(*(replace(mask, lower=NAN, upper=NAN) for mask in FOUR))
        for value in (without.coverage, without.coverage_low, without.coverage_high, without.width):
            assert math.isnan(value)

    def test_bounds_hold_what_lies_on_them(self) -> None:
        assert (
            overall(scored(0.5, 0.25, bounds=(0.25, 0.5)), scored(0.5, 0.5, bounds=(0.25, 0.5))).coverage
            == 1.0
        )

    def test_auc_is_the_share_of_pairs_in_the_right_order(self) -> None:
        bad = [scored(0.5, 0.2), scored(0.4, 0.6)]
        good = [scored(0.9, 0.9), scored(0.45, 0.7), scored(0.6, 0.75)]
        found = overall(*bad, *good)
        assert found.bad == 2, "a mask at the limit is not bad"
        assert found.auc == pytest.approx(5 / 6)
        assert overall(*bad, *good, bad_below=0.5).bad == 1

    def test_auc_needs_masks_of_both_kinds(self) -> None:
        assert math.isnan(overall(scored(0.5, 0.2), scored(0.4, 0.6)).auc)
        assert math.isnan(overall(scored(0.5, 0.9), scored(0.4, 0.8)).auc)

    def test_masks_without_a_value_are_left_out_and_counted(self) -> None:
        missing = scored(NAN, 0.0, patient="d")
        found = overall(*FOUR, missing, missing)
        assert found.without_value == 2
        assert_alike(replace(found, without_value=0), overall(*FOUR))

    def test_nothing_but_masks_without_a_value(self) -> None:
        found = overall(scored(NAN, 0.5), scored(NAN, 0.4))
        assert (found.masks, found.patients, found.without_value) == (0, 0, 2)
        assert math.isnan(found.mae)
        assert overall().masks == 0

    def test_correlations_need_spread(self) -> None:
        found = overall(*(scored(0.5, dsc) for dsc in (0.2, 0.4, 0.9)))
        for value in (found.pearson, found.pearson_low, found.spearman):
            assert math.isnan(value)
        assert found.mae == pytest.approx(0.8 / 3)

    def test_each_structure_has_its_own(self) -> None:
        spleens = [replace(mask, structure="spleen", predicted_dsc=0.5) for mask in FOUR]
        found = evaluate_scores([*FOUR, *spleens], resamples=50).per_mask
        assert list(found) == ["all", "liver", "spleen"]
        assert (found["all"].masks, found["liver"].masks, found["spleen"].masks) == (8, 4, 4)
        assert found["liver"].mae == pytest.approx(0.1)
        assert found["spleen"].mae == pytest.approx((0.3 + 0.2 + 0.2 + 0.1) / 4)


class TestSlices:
    def test_by_hand_with_scores_clamped_for_the_error_alone(self) -> None:
        pairs = ((1.4, 1.0), (0.5, 0.7), (0.2, 0.1), (0.9, NAN))
        found = evaluate_scores([scored(0.5, 0.5, slices=pairs)], resamples=2).per_slice
        assert found.keys() == {"all", "liver"}
        assert found["all"].slices == 3
        assert found["all"].mae == pytest.approx((0.0 + 0.2 + 0.1) / 3)
        assert found["all"].spearman == pytest.approx(1.0)
        assert found["all"].pearson == pytest.approx(np.corrcoef([1.4, 0.5, 0.2], [1.0, 0.7, 0.1])[0, 1])

    def test_an_estimator_that_knows_no_slices(self) -> None:
        assert evaluate_scores(FOUR, resamples=2).per_slice == {}


class TestIntervals:
    @staticmethod
    def masks(copies: bool, patients: int = 12, each: int = 6) -> list[ScoredMask]:
        """The same masks either way: those of a patient are copies, or one of each kind."""
        rng = np.random.default_rng(0)
        kinds = [
            (float(dsc + error), float(dsc)) for dsc, error in rng.uniform(0.2, 0.7, (patients, 2)) * (1, 0.3)
        ]
        shifted = [
            (number + (0 if copies else 2 * copy)) % patients
            for copy in range(each)
            for number in range(patients)
        ]
        return [
            scored(*kinds[kind], patient=f"p{index % patients:02d}", bounds=(0.0, 0.55))
            for index, kind in enumerate(shifted)
        ]

    def test_copies_within_a_patient_are_no_more_evidence(self) -> None:
        copies, independent = (overall(*self.masks(kind), resamples=1000) for kind in (True, False))
        for name in ("pearson", "mae", "coverage"):
            assert getattr(copies, name) == pytest.approx(getattr(independent, name))
            widths = [getattr(f, f"{name}_high") - getattr(f, f"{name}_low") for f in (copies, independent)]
            assert widths[0] > 1.5 * widths[1], name

    def test_more_copies_do_not_narrow_it(self) -> None:
        few, many = (overall(*self.masks(True, each=each), resamples=300) for each in (1, 8))
        assert many.masks == 8 * few.masks
        assert (many.mae_low, many.mae_high) == pytest.approx((few.mae_low, few.mae_high))

    def test_the_figure_lies_within(self) -> None:
        found = overall(*self.masks(False))
        assert found.pearson_low < found.pearson < found.pearson_high
        assert found.mae_low < found.mae < found.mae_high
        assert found.coverage_low < found.coverage < found.coverage_high

    def test_one_patient_says_nothing_about_others(self) -> None:
        found = overall(*(replace(mask, patient_id="a") for mask in FOUR))
        assert found.mae_low == found.mae_high == pytest.approx(found.mae)

    def test_the_order_of_masks_does_not_matter_but_the_seed_does(self) -> None:
        masks = self.masks(False)
        order = np.random.default_rng(1).permutation(len(masks))
        known = evaluate_scores(masks, seed=3, resamples=100)
        mixed = evaluate_scores([masks[i] for i in order], seed=3, resamples=100)
        for name, found in known.per_mask.items():
            assert_alike(found, mixed.per_mask[name])
        other = evaluate_scores(masks, seed=4, resamples=100).per_mask["all"]
        assert other.mae == known.per_mask["all"].mae
        assert other.mae_low != known.per_mask["all"].mae_low


class TestWithinOneModel:
    @staticmethod
    def model(raws: list[float], dscs: list[float], **options: str) -> list[ScoredMask]:
        return [scored(0.5, dsc, raw=raw, **options) for raw, dsc in zip(raws, dscs, strict=True)]

    def test_differences_between_sources_and_structures_do_not_count(self) -> None:
        """Each model's masks are ranked backwards, but better models and easier structures score higher."""
        masks = []
        for level, (source, structure) in enumerate(
            (source, structure) for source in ("early", "late") for structure in ("liver", "spleen")
        ):
            raws = [level + 0.05 * place for place in range(5)]
            dscs = [0.2 * level + 0.04 * (4 - place) for place in range(5)]
            masks += self.model(raws, dscs, source=source, structure=structure)
        assert within_one_model(masks) == pytest.approx(-1.0)
        together = [replace(mask, predicted_dsc=mask.raw / 4.0) for mask in masks]
        assert overall(*together).spearman > 0.8
        assert overall(*together).spearman_within == pytest.approx(-1.0)

    def test_models_weigh_by_their_masks(self) -> None:
        right = self.model([1, 2, 3, 4, 5], [0.1, 0.2, 0.3, 0.4, 0.5], source="a")
        wrong = self.model(list(range(10)), [0.9 - 0.05 * place for place in range(10)], source="b")
        assert within_one_model([*right, *wrong]) == pytest.approx((5 - 10) / 15)

    def test_one_value_for_all_ranks_nothing(self) -> None:
        right = self.model([1, 2, 3, 4, 5], [0.1, 0.2, 0.3, 0.4, 0.5], source="a")
        constant = self.model([1, 1, 1, 1, 1], [0.1, 0.2, 0.3, 0.4, 0.5], source="b")
        assert within_one_model([*right, *constant]) == pytest.approx(0.5)

    def test_few_masks_and_masks_of_one_dsc_are_left_out(self) -> None:
        few = self.model([4, 3, 2, 1], [0.1, 0.2, 0.3, 0.4], source="a")
        alike = self.model([1, 2, 3, 4, 5], [0.5] * 5, source="b")
        assert math.isnan(within_one_model([*few, *alike]))
        right = self.model([1, 2, 3, 4, 5], [0.1, 0.2, 0.3, 0.4, 0.5], source="c")
        assert within_one_model([*few, *alike, *right]) == pytest.approx(1.0)

    def test_what_calibration_clamped_to_a_tie_is_ranked_by_its_raw_value(self) -> None:
        raws, dscs = [1.0, 1.1, 1.2, 1.3, 1.4], [0.8, 0.82, 0.84, 0.86, 0.9]
        masks = [replace(mask, predicted_dsc=1.0) for mask in self.model(raws, dscs)]
        assert within_one_model(masks) == pytest.approx(1.0)


class TestTables:
    def test_rows_have_all_first_and_no_nan(self) -> None:
        sliced = replace(FOUR[0], slice_scores=(0.5, 0.8, 0.7), slice_dsc=(0.4, 0.9, 0.6))
        spleen = replace(FOUR[1], structure="spleen")
        rows = as_rows(evaluate_scores([*FOUR[1:], sliced, spleen], resamples=20))
        assert [row["structure"] for row in rows] == ["all", "liver", "spleen"]
        assert (rows[0]["slices"], rows[1]["slices"], rows[0]["slice_mae"]) == (3, 3, pytest.approx(0.1))
        assert "slices" not in rows[2]
        assert rows[2]["pearson"] is None
        assert not [v for row in rows for v in row.values() if isinstance(v, float) and math.isnan(v)]

    def test_metrics_are_the_rows_without_what_is_not_defined(self) -> None:
        evaluation = evaluate_scores([*FOUR, replace(FOUR[0], structure="spleen")], resamples=20)
        metrics = flat_metrics(evaluation, "seen/sentinel")
        assert metrics["seen/sentinel/liver/mae"] == pytest.approx(0.1)
        assert metrics["seen/sentinel/all/masks"] == 5.0
        assert "seen/sentinel/spleen/pearson" not in metrics
        assert all(isinstance(value, float) and math.isfinite(value) for value in metrics.values())
        assert {name.split("/")[2] for name in metrics} == {"all", "liver", "spleen"}
