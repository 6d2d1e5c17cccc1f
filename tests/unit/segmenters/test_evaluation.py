import math

import numpy as np
import pytest

from cohort.case import Case
from cohort.errors import ConfigError, DataError, GeometryError
from cohort.volume import write_volume
from segmenters.denormals import denormals
from segmenters.evaluation import StructureResult, evaluate_case, nsd, summarise

SPACING = (3.0, 1.0, 0.5)


def box(shape=(8, 12, 16), low=(2, 3, 4), high=(6, 9, 12)) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return mask


def test_shift_within_the_tolerance_along_each_axis():
    reference = box()
    for axis, spacing in enumerate(SPACING):
        shifted = np.roll(reference, 1, axis)
        assert nsd(shifted, reference, SPACING, spacing + 1e-3) == pytest.approx(1.0)
        assert nsd(shifted, reference, SPACING, spacing - 1e-3) < 1.0


def test_nsd_of_a_shifted_plate_by_hand():
    # two plates of 1 x 20 x 20 voxels, 4 apart: nothing within 3 mm but everything within 4
    reference = box((12, 24, 24), (2, 2, 2), (3, 22, 22))
    shifted = np.roll(reference, 4, 0)

    assert nsd(shifted, reference, (1.0, 1.0, 1.0), 4.0) == pytest.approx(1.0)
    assert nsd(shifted, reference, (1.0, 1.0, 1.0), 2.0) == pytest.approx(0.0)


def test_nsd_does_not_depend_on_what_surrounds_the_masks():
    reference, prediction = box(), box(low=(1, 4, 4), high=(5, 10, 14))
    wide = [np.pad(mask, ((3, 5), (2, 7), (9, 1))) for mask in (prediction, reference)]

    assert nsd(prediction, reference, SPACING, 0.6) == pytest.approx(nsd(*wide, SPACING, 0.6))


def test_nsd_at_the_edge_of_the_volume():
    full = np.ones((4, 5, 6), dtype=bool)

    assert nsd(full, full, SPACING, 0.0) == 1.0


def test_nsd_survives_a_process_that_flushes_denormals():
    with denormals(flush=True):
        value = nsd(box((20, 40, 40), (0, 0, 0), (20, 38, 38)), np.ones((20, 40, 40), bool), SPACING, 1.0)

    assert 0.0 < value < 1.0


def test_empty_masks():
    empty = np.zeros((8, 12, 16), dtype=bool)

    assert math.isnan(nsd(box(), empty, SPACING, 1.0))
    assert math.isnan(nsd(empty, empty, SPACING, 1.0))
    assert nsd(empty, box(), SPACING, 1.0) == 0.0


@pytest.fixture
def case(write_case, as_case):
    return as_case(write_case("a", 0, ["liver", "spleen", "stomach"]))


def test_perfect_prediction_and_empty_reference(case, structures):
    results = evaluate_case(case, case.reference, structures, tolerance_mm=1.0)

    assert [(r.structure, r.dsc, r.nsd) for r in results[:2]] == [("liver", 1.0, 1.0), ("spleen", 1.0, 1.0)]
    assert results[2].structure == "stomach"
    assert math.isnan(results[2].dsc)
    assert math.isnan(results[2].nsd)


def test_only_structures_fit_for_a_metric_are_evaluated(case, structures):
    truncated = Case(
        case_id="a",
        patient_id="a",
        image=case.image,
        reference=case.reference,
        annotated={"spleen": 0.5, "liver": 0.4},
    )

    results = evaluate_case(truncated, case.reference, structures, tolerance_mm={"spleen": 2.0})

    assert [r.structure for r in results] == ["spleen"]


def test_missing_prediction_counts_as_zero(case, structures, tmp_path, affine):
    mask = tmp_path / "mask.nii.gz"
    write_volume(mask, np.zeros((8, 12, 16), dtype=np.uint8), affine)

    results = evaluate_case(case, mask, structures, tolerance_mm=1.0)

    assert [(r.dsc, r.nsd) for r in results[:2]] == [(0.0, 0.0), (0.0, 0.0)]


def test_what_cannot_be_evaluated_is_named(case, structures, tmp_path, affine):
    with pytest.raises(ConfigError, match=r"no NSD tolerance for 'liver'; known: \['spleen'\]"):
        evaluate_case(case, case.reference, structures, tolerance_mm={"spleen": 1.0})
    with pytest.raises(ConfigError, match=r"tolerance of 'liver' is -1.0 mm"):
        evaluate_case(case, case.reference, structures, tolerance_mm=-1.0)
    unlabelled = Case(case_id="a", patient_id="a", image=case.image)
    with pytest.raises(DataError, match="Case a has no reference"):
        evaluate_case(unlabelled, case.reference, structures, tolerance_mm=1.0)
    mask = tmp_path / "mask.nii.gz"
    write_volume(mask, np.zeros((8, 12, 15), dtype=np.uint8), affine)
    with pytest.raises(GeometryError, match=r"mask.nii.gz has shape"):
        evaluate_case(case, mask, structures, tolerance_mm=1.0)


def result(case_id: str, structure: str, dsc: float, surface: float) -> StructureResult:
    return StructureResult(case_id=case_id, structure=structure, dsc=dsc, nsd=surface)


def test_summary_means_cases_first_then_structures():
    results = [
        result("a", "liver", 0.9, 0.8),
        result("b", "liver", 0.7, 0.6),
        result("a", "spleen", 0.2, 0.1),
        result("b", "spleen", math.nan, math.nan),
    ]

    summary = summarise(results, ["liver", "spleen", "stomach"])

    assert summary.per_structure_dsc["liver"] == pytest.approx(0.8)
    assert summary.per_structure_dsc["spleen"] == pytest.approx(0.2)
    assert math.isnan(summary.per_structure_dsc["stomach"])
    assert summary.dsc == pytest.approx(0.5)
    assert summary.nsd == pytest.approx(0.4)
    assert math.isnan(summarise([], ["liver"]).dsc)
