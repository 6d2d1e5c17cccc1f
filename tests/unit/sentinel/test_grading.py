"""Scores beside true DSC: of masks, and of the very slices that were scored."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cohort.case import Structure
from cohort.errors import GeometryError, ModelError
from cohort.records import GradedMask
from cohort.slabs import Slab
from cohort.volume import read_image, read_label_map, write_volume
from sentinel.calibration import Calibration, StructureCalibration
from sentinel.config import SentinelConfig
from sentinel.grading import observations, score_graded
from sentinel.scoring import Sentinel
from sentinel.text import embed_names

Graded = Callable[..., list[GradedMask]]
Structures = tuple[Structure, ...]
UPSIDE_DOWN = np.array([[-0.5, 0, 0, 7.0], [0, 1.0, 0, -3.0], [0, 0, -3.0, 32.0], [0, 0, 0, 1.0]])


def make_sentinel(**changes: str) -> Sentinel:
    torch.manual_seed(0)
    config = SentinelConfig(image_size=32, margin=3.0, precision="float32", device="cpu", **changes)  # type: ignore[arg-type]
    names = ("liver", "spleen")
    return Sentinel(config=config, structures=names, embeddings=embed_names(names))


@pytest.fixture(scope="module")
def sentinel() -> Sentinel:
    return make_sentinel()


def change(path: Path, edit: Callable[[np.ndarray], np.ndarray]) -> None:
    volume = read_label_map(path)
    write_volume(path, edit(volume.array.copy()), volume.affine)


def without(label: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda labels: np.where(labels == label, 0, labels).astype(np.uint8)


def test_every_mask_has_the_score_that_it_gets_alone(
    graded: Graded, structures: Structures, sentinel: Sentinel
) -> None:
    masks = graded()
    found = score_graded(masks, structures, sentinel, group="seen")
    assert len(found) == 12
    by_source = {(mask.case_id, mask.source): mask for mask in masks}
    for scored in found:
        mask = by_source[scored.case_id, scored.source]
        label = {"liver": 1, "spleen": 3}[scored.structure]
        voxels = read_label_map(mask.mask).array == label
        (alone,) = sentinel.score(read_image(mask.image), {scored.structure: voxels})
        np.testing.assert_allclose(scored.slice_scores, alone.slice_scores, atol=1e-5)
        assert scored.raw == pytest.approx(alone.raw, abs=1e-5)
        assert (scored.patient_id, scored.group) == (mask.patient_id, "seen")


def test_dsc_of_masks_and_slices_by_hand(graded: Graded, structures: Structures, sentinel: Sentinel) -> None:
    found = score_graded(graded(cases=1), structures, sentinel)
    # boxes of 6 and of 4 rows, moved by one row and by two: every slice is like the whole
    expected = {("liver", 0): 5 / 6, ("liver", 1): 4 / 6, ("spleen", 0): 3 / 4, ("spleen", 1): 2 / 4}
    for scored in found:
        dsc = expected.pop((scored.structure, int(scored.source[-1])))
        assert scored.dsc == pytest.approx(dsc)
        assert scored.slice_dsc == pytest.approx([dsc] * 4)
    assert not expected


@pytest.mark.parametrize("orientation", ["canonical", "as_stored"])
def test_slices_have_the_dsc_of_the_slice_that_was_scored(
    graded: Graded, structures: Structures, orientation: str
) -> None:
    """Stored from head to feet, a canonical sentinel meets the slices in the other order."""
    (mask,) = graded(cases=1, sources=1)
    image, reference = read_image(mask.image), read_label_map(mask.reference)
    predicted = reference.array.copy()
    predicted[4, 6:9] = 0
    predicted[5, 4:9] = 0
    write_volume(mask.image, image.array, UPSIDE_DOWN)
    write_volume(mask.reference, reference.array, UPSIDE_DOWN)
    write_volume(mask.mask, predicted, UPSIDE_DOWN)
    (liver,) = score_graded([mask], structures[:1], make_sentinel(orientation=orientation))
    expected = [1.0, 1.0, 2 * 3 / 9, 2 * 1 / 7]
    assert liver.slice_dsc == pytest.approx(expected[::-1] if orientation == "canonical" else expected)


def test_by_case_source_and_structure_whatever_the_order(
    graded: Graded, structures: Structures, sentinel: Sentinel
) -> None:
    masks = graded()
    told: list[tuple[int, int]] = []
    found = score_graded(
        masks[::-1], structures, sentinel, report=lambda n, total, _: told.append((n, total))
    )
    assert told == [(n, 6) for n in range(1, 7)]
    keys = [(mask.case_id, mask.source, mask.structure) for mask in found]
    assert keys == sorted(keys)
    assert found == score_graded(masks, structures, sentinel)


def test_only_structures_that_count(graded: Graded, structures: Structures, sentinel: Sentinel) -> None:
    found = score_graded(graded(evaluated=frozenset({"spleen"})), structures, sentinel)
    assert {mask.structure for mask in found} == {"spleen"}


def test_an_empty_mask_has_dsc_0_and_no_score(
    graded: Graded, structures: Structures, sentinel: Sentinel
) -> None:
    (mask,) = graded(cases=1, sources=1)
    change(mask.mask, without(1))
    liver, spleen = found = score_graded([mask], structures, sentinel)
    assert (liver.dsc, liver.slice_scores, liver.slice_dsc) == (0.0, (), ())
    assert math.isnan(liver.raw)
    assert math.isnan(liver.predicted_dsc)
    (seen,) = observations(found)
    assert (seen.structure, seen.raw, seen.dsc) == ("spleen", spleen.raw, spleen.dsc)
    assert seen.patient_id == "patient_0"


def test_an_empty_reference_has_no_dsc_and_is_left_out(
    graded: Graded, structures: Structures, sentinel: Sentinel
) -> None:
    (mask,) = graded(cases=1, sources=1)
    change(mask.reference, without(3))
    (liver,) = score_graded([mask], structures, sentinel)
    assert liver.structure == "liver"


def test_a_calibrated_sentinel_gives_bounds(graded: Graded, structures: Structures) -> None:
    sentinel = make_sentinel()
    line = StructureCalibration(knots=((0.0, 0.5), (1.0, 0.5)), quantile=0.2, patients=20, masks=40)
    sentinel.calibration = Calibration(structures={"liver": line})
    liver, spleen = score_graded(graded(cases=1, sources=1), structures, sentinel)
    assert (liver.predicted_dsc, liver.lower, liver.upper) == pytest.approx((0.5, 0.39, 0.61))
    assert math.isnan(spleen.lower)


def test_a_mask_on_another_grid_names_both_files(
    graded: Graded, structures: Structures, sentinel: Sentinel, tmp_path: Path
) -> None:
    (mask,) = graded(cases=1, sources=1)
    volume = read_label_map(mask.mask)
    moved = volume.affine.copy()
    moved[0, 3] += 2.0
    write_volume(tmp_path / "moved.nii.gz", volume.array, moved)
    for changed in ({"mask": tmp_path / "moved.nii.gz"}, {"reference": tmp_path / "moved.nii.gz"}):
        with pytest.raises(GeometryError, match=r"(image_0.*moved|moved.*image_0)"):
            score_graded([replace(mask, **changed)], structures, sentinel)


def test_a_structure_that_the_sentinel_does_not_know(graded: Graded, structures: Structures) -> None:
    sentinel = Sentinel(
        config=make_sentinel().config, structures=["liver"], embeddings=embed_names(["liver"])
    )
    with pytest.raises(ModelError, match="not trained for structure 'spleen'"):
        score_graded(graded(cases=1, sources=1), structures, sentinel)


SLABS = (Slab(first=3, last=4), Slab(first=7, last=7))


@pytest.mark.parametrize("orientation", ["as_stored", "canonical"])
def test_only_annotated_slices_count(graded: Graded, structures: Structures, orientation: str) -> None:
    judge = make_sentinel(orientation=orientation)
    (whole,) = graded(cases=1, sources=1)
    for path in (whole.image, whole.mask, whole.reference):
        volume = read_image(path) if path == whole.image else read_label_map(path)
        write_volume(path, volume.array, UPSIDE_DOWN)
    mask = replace(whole, slabs=SLABS)
    change(mask.mask, lambda labels: np.where(np.arange(8)[:, None, None] == 3, 0, labels).astype(np.uint8))
    before = score_graded([mask], structures, judge)
    inside = [np.asarray(read_label_map(p).array[[3, 4, 7]]) for p in (mask.mask, mask.reference)]
    for scored, structure in zip(before, structures, strict=True):
        predicted, true = (labels == structure.label for labels in inside)
        assert scored.dsc == pytest.approx(2.0 * (predicted & true).sum() / (predicted.sum() + true.sum()))
        assert len(scored.slice_scores) == 1, "the mask has no other annotated slice"

    def everywhere_else(labels: np.ndarray) -> np.ndarray:
        labels[[0, 1, 2, 5, 6]] = 1
        return labels

    change(mask.reference, everywhere_else)
    assert score_graded([mask], structures, judge) == before
