"""Rows for the masks of some cases: nothing that is broken stops the others, or passes for a score."""

import math
import weakref
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cohort.layouts.masks import MaskCase, MaskFile
from cohort.volume import Volume, read_image, read_label_map, write_volume
from flows import audit_rows
from flows.audit_rows import FILES_AHEAD, READERS, Audited, score_cases, voxels_of
from sentinel import scoring
from sentinel.planning import SliceQueue
from sentinel.scoring import BATCH, Sentinel

Write = Callable[..., MaskCase]
Break = Callable[[MaskCase, np.ndarray], None]
SHAPE = (8, 12, 16)
NOT_CALIBRATED = "not calibrated for this structure"


def boxes() -> dict[str, np.ndarray]:
    masks = {name: np.zeros(SHAPE, dtype=np.uint8) for name in ("liver", "spleen")}
    masks["liver"][2:6, 3:9, 2:7] = 1
    masks["spleen"][1:5, 2:6, 9:14] = 1
    return masks


@pytest.fixture
def write(tmp_path: Path, affine: np.ndarray, make_image: Callable[[int], np.ndarray]) -> Write:
    """Write a case with a file per mask: boxes of liver and spleen, or what is given."""

    def make(case_id: str = "a", **changed: np.ndarray) -> MaskCase:
        folder = tmp_path / case_id
        write_volume(folder / "ct.nii.gz", make_image(len(case_id)), affine)
        masks = {**boxes(), **changed}
        for name, mask in masks.items():
            write_volume(folder / f"{name}.nii.gz", mask, affine)
        found = tuple(MaskFile(structure=name, path=folder / f"{name}.nii.gz") for name in masks)
        return MaskCase(case_id=case_id, image=folder / "ct.nii.gz", masks=found)

    return make


def broken(row: Audited) -> bool:
    """Whether a row has no number at all that could be taken for a score."""
    numbers = (row.predicted_dsc, row.lower, row.upper, row.raw)
    return all(math.isnan(number) for number in numbers) and (row.n_slices, row.worst_slice) == (0, -1)


class TestSound:
    def test_rows_hold_what_the_sentinel_says(self, write: Write, sentinel: Sentinel) -> None:
        case = write()
        image, masks = read_image(case.image), {name: mask > 0 for name, mask in boxes().items()}
        rows = score_cases([case], sentinel)
        assert [(row.case_id, row.structure) for row in rows] == [("a", "liver"), ("a", "spleen")]
        for row, score in zip(rows, sentinel.score(image, masks), strict=True):
            assert row.predicted_dsc == row.raw == pytest.approx(score.predicted_dsc, abs=1e-5)
            assert (row.n_slices, row.reason) == (4, NOT_CALIBRATED)
            assert math.isnan(row.lower)
            assert row.worst_slice == score.slice_indices[int(np.argmin(score.slice_scores))]

    def test_rows_come_in_the_order_of_cases_and_masks(self, write: Write, sentinel: Sentinel) -> None:
        nothing = np.zeros(SHAPE, dtype=np.uint8)
        cases = [write("b", liver=nothing), write("a", pancreas=boxes()["liver"]), write("c")]
        cases[2].masks[0].path.unlink()
        rows = score_cases(cases, sentinel)
        expected = [(case.case_id, mask.structure) for case in cases for mask in case.masks]
        assert [(row.case_id, row.structure) for row in rows] == expected
        assert [broken(row) for row in rows] == [True, False, False, False, True, True, False]

    def test_masks_of_one_label_map_are_those_of_single_files(
        self, write: Write, sentinel: Sentinel, tmp_path: Path, affine: np.ndarray
    ) -> None:
        case, path = write(), tmp_path / "labels.nii.gz"
        write_volume(path, boxes()["liver"] * 5 + boxes()["spleen"] * 7, affine)
        masks = (
            MaskFile(structure="liver", path=path, labels=(5,)),
            MaskFile(structure="spleen", path=path, labels=(7,)),
        )
        together = MaskCase(case_id="a", image=case.image, masks=masks)
        assert score_cases([together], sentinel) == score_cases([case], sentinel)

    def test_bounds_where_the_sentinel_is_calibrated(
        self, write: Write, make_sentinel: Callable[..., Sentinel]
    ) -> None:
        liver, spleen = score_cases([write()], make_sentinel(calibrated=("liver",)))
        assert liver.predicted_dsc == pytest.approx(liver.raw + 0.5)
        assert liver.lower < liver.predicted_dsc < liver.upper
        assert liver.reason == ""
        assert (math.isnan(spleen.lower), spleen.reason) == (True, NOT_CALIBRATED)
        assert not math.isnan(spleen.predicted_dsc)

    def test_one_voxel(self, write: Write, sentinel: Sentinel) -> None:
        one = np.zeros(SHAPE, dtype=np.uint8)
        one[5, 0, 15] = 1
        liver, _ = score_cases([write(liver=one)], sentinel)
        assert math.isfinite(liver.predicted_dsc)
        assert (liver.n_slices, liver.worst_slice) == (1, 5)

    def test_every_voxel(self, write: Write, sentinel: Sentinel) -> None:
        liver, _ = score_cases([write(liver=np.ones(SHAPE, dtype=np.uint8))], sentinel)
        assert math.isfinite(liver.predicted_dsc)
        assert liver.n_slices == 8

    def test_progress_goes_to_the_number_of_masks(self, write: Write, sentinel: Sentinel) -> None:
        told: list[tuple[int, int]] = []
        nothing = np.zeros(SHAPE, dtype=np.uint8)
        cases = [write("a"), write("b", spleen=nothing)]
        score_cases(cases, sentinel, lambda step, total, metrics: told.append((step, total)))
        assert {total for _, total in told} == {4}
        assert [step for step, _ in told] == sorted(step for step, _ in told)
        assert told[-1] == (4, 4)

    def test_no_case(self, sentinel: Sentinel) -> None:
        assert score_cases([], sentinel) == []


def empty(case: MaskCase, affine: np.ndarray) -> None:
    write_volume(case.masks[0].path, np.zeros(SHAPE, dtype=np.uint8), affine)


def another_shape(case: MaskCase, affine: np.ndarray) -> None:
    write_volume(case.masks[0].path, boxes()["liver"][:, :, :-1], affine)


def swapped_axes(case: MaskCase, affine: np.ndarray) -> None:
    write_volume(case.masks[0].path, boxes()["liver"].transpose(0, 2, 1), affine)


def another_affine(case: MaskCase, affine: np.ndarray) -> None:
    moved = affine.copy()
    moved[2, 3] += 3.0
    write_volume(case.masks[0].path, boxes()["liver"], moved)


def truncated(case: MaskCase, affine: np.ndarray) -> None:
    path = case.masks[0].path
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def missing(case: MaskCase, affine: np.ndarray) -> None:
    case.masks[0].path.unlink()


def probabilities(case: MaskCase, affine: np.ndarray) -> None:
    write_volume(case.masks[0].path, boxes()["liver"] * np.float32(0.5), affine)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (empty, "empty mask"),
        (another_shape, r"has shape (8, 12, 15), but its image"),
        (swapped_axes, r"has shape (8, 16, 12), but its image"),
        (another_affine, "have different affines (up to 3 mm apart)"),
        (truncated, "it may be truncated or no NIfTI file"),
        (missing, "does not exist; expected a NIfTI file there"),
        (probabilities, "has fractional voxels"),
    ],
)
def test_a_broken_mask_is_a_row_with_a_reason(
    write: Write, sentinel: Sentinel, affine: np.ndarray, harm: Break, reason: str
) -> None:
    cases = [write("a"), write("b")]
    sound = score_cases(cases, sentinel)
    harm(cases[0], affine)
    first, *others = score_cases(cases, sentinel)
    assert (first.case_id, first.structure) == ("a", "liver")
    assert broken(first)
    assert reason in first.reason
    for row, before in zip(others, sound[1:], strict=True):
        assert row.predicted_dsc == pytest.approx(before.predicted_dsc, abs=1e-5), "the others go on"


def test_a_structure_that_the_sentinel_does_not_know(write: Write, sentinel: Sentinel) -> None:
    liver, _, brain = score_cases([write(brain=boxes()["liver"])], sentinel)
    assert broken(brain)
    assert brain.reason.startswith("This sentinel was not trained for structure 'brain'; it knows")
    assert not broken(liver)


def not_a_number(case: MaskCase, affine: np.ndarray) -> None:
    write_volume(case.image, np.full(SHAPE, np.nan, dtype=np.float32), affine)


def flat(case: MaskCase, affine: np.ndarray) -> None:
    nib.save(nib.Nifti1Image(np.zeros(SHAPE[:0:-1], dtype=np.float32), affine), case.image)


def truncated_image(case: MaskCase, affine: np.ndarray) -> None:
    case.image.write_bytes(case.image.read_bytes()[: case.image.stat().st_size // 2])


def missing_image(case: MaskCase, affine: np.ndarray) -> None:
    case.image.unlink()


def normalised(case: MaskCase, affine: np.ndarray) -> None:
    image = np.linspace(0.0, 1.0, math.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    write_volume(case.image, image, affine)


def in_hu(case: MaskCase, affine: np.ndarray) -> None:
    image = np.linspace(-1000.0, 400.0, math.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    write_volume(case.image, image, affine)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (not_a_number, "has 1536 NaN or infinite voxels of 1536"),
        (flat, "has shape (16, 12); expected three dimensions"),
        (truncated_image, "it may be truncated or no NIfTI file"),
        (missing_image, "does not exist; expected a NIfTI file there"),
        (normalised, "from 0 to 1 and is not in Hounsfield units"),
    ],
)
def test_a_broken_image_is_a_reason_for_all_of_its_masks(
    write: Write, make_sentinel: Callable[..., Sentinel], affine: np.ndarray, harm: Break, reason: str
) -> None:
    cases = [write("a"), write("b")]
    for case in cases:
        in_hu(case, affine)
    harm(cases[0], affine)
    liver, spleen, *others = score_cases(cases, make_sentinel("ct_hu"))
    assert [(row.case_id, row.structure) for row in (liver, spleen)] == [("a", "liver"), ("a", "spleen")]
    assert broken(liver)
    assert broken(spleen)
    assert reason in liver.reason
    assert liver.reason == spleen.reason
    assert [(row.case_id, broken(row)) for row in others] == [("b", False), ("b", False)]


def test_an_image_need_not_be_in_hu_for_another_sentinel(
    write: Write, sentinel: Sentinel, affine: np.ndarray
) -> None:
    case = write()
    normalised(case, affine)
    assert [broken(row) for row in score_cases([case], sentinel)] == [False, False]


class TestVoxels:
    def test_any_above_0_or_those_of_the_labels(self, affine: np.ndarray) -> None:
        labels = Volume(array=np.arange(6, dtype=np.uint8).reshape(1, 2, 3), affine=affine)
        path = Path("labels.nii.gz")
        one = voxels_of(labels, MaskFile(structure="liver", path=path))
        assert one.tolist() == [[[False, True, True], [True, True, True]]]
        union = voxels_of(labels, MaskFile(structure="liver", path=path, labels=(2, 4)))
        assert union.tolist() == [[[False, False, True], [False, True, False]]]
        assert (one.dtype, union.dtype) == (np.bool_, np.bool_)


class TestMemory:
    CASES = 25

    def test_few_files_are_held_at_a_time(
        self, write: Write, sentinel: Sentinel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        arrays: list[weakref.ref[np.ndarray]] = []
        held: list[int] = []

        def watched(read: Callable[[Path], Volume]) -> Callable[[Path], Volume]:
            def reading(path: Path) -> Volume:
                volume = read(path)
                arrays.append(weakref.ref(volume.array))
                held.append(sum(array() is not None for array in list(arrays)))
                return volume

            return reading

        monkeypatch.setattr(audit_rows, "read_image", watched(read_image))
        monkeypatch.setattr(audit_rows, "read_label_map", watched(read_label_map))
        rows = score_cases([write(f"case_{number:02d}") for number in range(self.CASES)], sentinel)
        assert (len(rows), len(arrays)) == (2 * self.CASES, 3 * self.CASES)
        in_use = 3  # the image, the one that the queue cut last, and a mask
        assert max(held) <= FILES_AHEAD + READERS + in_use

    def test_few_slices_wait_for_their_batch(
        self, write: Write, sentinel: Sentinel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waiting: list[int] = []

        class Watched(SliceQueue):
            def add(self, *arguments: object) -> tuple[tuple[int, ...], tuple[int, ...]]:
                found = super().add(*arguments)  # type: ignore[arg-type]
                waiting.append(self.length - self.forgotten)
                return found

        monkeypatch.setattr(scoring, "SliceQueue", Watched)
        rows = score_cases([write(f"case_{number:02d}") for number in range(self.CASES)], sentinel)
        assert sum(row.n_slices for row in rows) == 8 * self.CASES
        assert len(waiting) == 2 * self.CASES
        assert max(waiting) < BATCH + 2 * sentinel.config.max_slices
