"""What others say of the same masks, in the same rows."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cohort.case import Structure
from cohort.errors import GeometryError
from cohort.records import GradedMask, Prediction
from cohort.volume import read_label_map, write_volume
from sentinel.calibration import Calibration, StructureCalibration
from sentinel.evaluation import ScoredMask
from sentinel.mask_only import FEATURES, mask_features
from sentinel.rivals import (
    DescribedMask,
    describe_masks,
    mask_only_values,
    rival_scores,
    uncertainty_values,
)

Graded = Callable[..., list[GradedMask]]
Structures = tuple[Structure, ...]
SPACING_MM = (3.0, 1.0, 0.5)


def own(case_id: str, structure: str = "liver", source: str = "step1") -> ScoredMask:
    return ScoredMask(
        case_id=case_id,
        patient_id=f"patient of {case_id}",
        structure=structure,
        source=source,
        raw=0.9,
        predicted_dsc=0.8,
        lower=0.7,
        upper=0.95,
        dsc=0.75,
        slice_scores=(0.9,),
        slice_dsc=(0.75,),
        group="seen",
    )


RAW = {("a", "step1", "liver"): -0.25, ("a", "step2", "liver"): -0.5, ("a", "step1", "spleen"): math.nan}


class TestScores:
    def test_values_go_to_the_mask_of_their_source_and_structure(self) -> None:
        masks = [own("a", source="step2"), own("a"), own("a", "spleen"), own("b")]
        found = rival_scores(masks, RAW)
        assert [mask.raw for mask in found[:2]] == [-0.5, -0.25]
        assert all(math.isnan(mask.raw) for mask in found[2:])
        for mask, before in zip(found, masks, strict=True):
            assert (mask.patient_id, mask.dsc, mask.group) == (before.patient_id, 0.75, "seen")
            assert (mask.slice_scores, mask.slice_dsc) == ((), ())

    def test_without_calibration_nothing_of_the_sentinel_is_left(self) -> None:
        (found,) = rival_scores([own("a")], RAW)
        assert [math.isnan(value) for value in (found.predicted_dsc, found.lower, found.upper)] == [True] * 3

    def test_calibrated_by_structure(self) -> None:
        line = StructureCalibration(knots=((0.0, 1.0), (1.0, 3.0)), quantile=0.2, patients=20, masks=40)
        calibration = Calibration(structures={"liver": line})
        liver, missing, spleen = rival_scores(
            [own("a"), own("b"), own("a", "spleen")],
            {**RAW, ("a", "step1", "spleen"): -0.1},
            calibration,
        )
        assert liver.predicted_dsc == pytest.approx(0.5)
        # errors are expected to be 0.05 + sqrt(0.5 * 0.5) of the quantile
        assert (liver.lower, liver.upper) == pytest.approx((0.5 - 0.2 * 0.55, 0.5 + 0.2 * 0.55))
        assert math.isnan(missing.predicted_dsc)
        assert (spleen.raw, math.isnan(spleen.predicted_dsc)) == (-0.1, True)


class TestUncertainty:
    def test_the_sign_is_turned_and_empty_masks_are_left_out(self, graded: Graded) -> None:
        masks = graded(cases=1)
        predictions = [
            Prediction(
                case_id=mask.case_id,
                mask=mask.mask,
                checkpoint_sha256="c",
                voxels={"liver": 5, "spleen": number},
                uncertainty={"entropy": {"liver": 0.25 + number, "spleen": 0.5}},
            )
            for number, mask in enumerate(masks)
        ]
        assert uncertainty_values(masks, predictions, "entropy") == {
            ("case_0", "fold0/step0", "liver"): -0.25,
            ("case_0", "fold0/step1", "liver"): -1.25,
            ("case_0", "fold0/step1", "spleen"): -0.5,
        }
        assert uncertainty_values(masks, predictions, "mc_dropout") == {}


class TestDescriptions:
    def test_every_mask_with_its_shape_and_dsc(self, graded: Graded, structures: Structures) -> None:
        masks = graded(cases=2)
        told: list[tuple[int, int]] = []
        found = describe_masks(masks, structures, lambda done, total, _: told.append((done, total)))
        assert told == [(n, 4) for n in (1, 2, 3, 4)]
        assert len({mask.key for mask in found}) == len(found) == 8
        by_key = {mask.key: mask for mask in found}
        liver = by_key["case_1", "fold0/step0", "liver"]
        assert liver.dsc == pytest.approx(5 / 6)  # a box of 6 rows, moved by one
        voxels = read_label_map(masks[2].mask).array == 1
        assert liver.features == mask_features(voxels, SPACING_MM)
        assert by_key["case_1", "fold0/step1", "liver"].dsc == pytest.approx(4 / 6)

    def test_only_masks_with_voxels_of_structures_that_count(
        self, graded: Graded, structures: Structures
    ) -> None:
        (mask,) = graded(cases=1, sources=1, evaluated=frozenset({"liver"}))
        (liver,) = describe_masks([mask], structures)
        assert liver.key == ("case_0", "fold0/step0", "liver")
        volume = read_label_map(mask.mask)
        write_volume(mask.mask, np.where(volume.array == 1, 0, volume.array).astype(np.uint8), volume.affine)
        assert describe_masks([mask], structures) == ()

    def test_a_mask_of_what_the_reference_lacks_has_no_dsc(
        self, graded: Graded, structures: Structures
    ) -> None:
        (mask,) = graded(cases=1, sources=1)
        volume = read_label_map(mask.reference)
        write_volume(mask.reference, np.zeros_like(volume.array), volume.affine)
        assert [math.isnan(found.dsc) for found in describe_masks([mask], structures)] == [True, True]

    def test_a_mask_on_another_grid(self, graded: Graded, structures: Structures, tmp_path: Path) -> None:
        (mask,) = graded(cases=1, sources=1)
        volume = read_label_map(mask.mask)
        write_volume(tmp_path / "short.nii.gz", volume.array[:-1], volume.affine)
        with pytest.raises(GeometryError, match=r"\(7, 12, 16\) and \(8, 12, 16\)"):
            describe_masks([replace(mask, mask=tmp_path / "short.nii.gz")], structures)


class TestMaskOnly:
    @staticmethod
    def described(number: int, dsc: float) -> DescribedMask:
        features = (float(number),) + (0.0,) * (len(FEATURES) - 1)
        return DescribedMask(key=(f"case_{number}", "step1", "liver"), features=features, dsc=dsc)

    def test_learns_from_masks_with_a_dsc_and_names_what_it_predicts(self) -> None:
        learned = [self.described(number, number / 100.0) for number in range(100)]
        broken = [self.described(90, math.nan)] * 50
        new = [self.described(20, math.nan), self.described(80, math.nan)]
        found = mask_only_values([*learned, *broken], new)
        assert found == pytest.approx(
            {("case_20", "step1", "liver"): 0.2, ("case_80", "step1", "liver"): 0.8}, abs=0.05
        )
        assert mask_only_values(learned, new) == found

    def test_nothing_to_predict(self) -> None:
        assert mask_only_values([self.described(0, 0.1), self.described(1, 0.2)], []) == {}
