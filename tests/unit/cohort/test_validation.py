import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cohort.case import Case, Structure
from cohort.errors import ConfigError, DataError
from cohort.layouts.decathlon import read
from cohort.validation import validate_case, validate_cases
from cohort.volume import write_volume

Structures = tuple[Structure, ...]
Make = Callable[[int], np.ndarray]


def reference_of(case: Case) -> Path:
    assert case.reference is not None
    return case.reference


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def test_a_sound_case_has_no_problem(case: Case, structures: Structures) -> None:
    assert validate_case(case, structures, needs_reference=True) == ()


def test_a_missing_reference_is_a_problem_only_where_it_is_needed(case: Case, structures: Structures) -> None:
    bare = dataclasses.replace(case, reference=None, annotated={})
    assert validate_case(bare, structures, needs_reference=False) == ()
    (problem,) = validate_case(bare, structures, needs_reference=True)
    assert problem.startswith("Case scan_1 has no reference label map")


def test_a_reference_that_answers_for_nothing_is_no_reference(case: Case, structures: Structures) -> None:
    bare = dataclasses.replace(case, annotated={})
    assert validate_case(bare, structures, needs_reference=False) == ()
    (problem,) = validate_case(bare, structures, needs_reference=True)
    assert "no structure was annotated" in problem


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_voxels_that_are_not_finite(
    case: Case, structures: Structures, affine: np.ndarray, make_image: Make, bad: float
) -> None:
    image = make_image(0)
    image[0, 0, 0] = bad
    write_volume(case.image, image, affine)
    (problem,) = validate_case(case, structures, needs_reference=True)
    assert "1 NaN or infinite voxels of 1536" in problem
    assert str(case.image) in problem


def test_truncated_files_are_each_told_once(case: Case, structures: Structures) -> None:
    truncate(case.image)
    truncate(reference_of(case))
    problems = validate_case(case, structures, needs_reference=True)
    assert len(problems) == 2
    assert all("may be truncated" in problem for problem in problems)


def test_files_that_are_gone_are_each_told_once(case: Case, structures: Structures) -> None:
    case.image.unlink()
    reference_of(case).unlink()
    problems = validate_case(case, structures, needs_reference=True)
    assert len(problems) == 2
    assert all("does not exist" in problem for problem in problems)


def test_another_shape(case: Case, structures: Structures, affine: np.ndarray, make_label_map: Make) -> None:
    write_volume(reference_of(case), make_label_map(0)[:, :, :-1], affine)
    (problem,) = validate_case(case, structures, needs_reference=True)
    assert "has shape (8, 12, 15), but its image" in problem


def test_axes_that_were_swapped(
    case: Case, structures: Structures, affine: np.ndarray, make_label_map: Make
) -> None:
    write_volume(reference_of(case), make_label_map(0).T, affine)
    (problem,) = validate_case(case, structures, needs_reference=True)
    assert "has shape (16, 12, 8)" in problem


def test_another_affine(case: Case, structures: Structures, affine: np.ndarray, make_label_map: Make) -> None:
    write_volume(reference_of(case), make_label_map(0), np.diag([-1, 1, 1, 1]) @ affine)
    (problem,) = validate_case(case, structures, needs_reference=True)
    assert "different affines" in problem


def test_several_problems_of_one_case_are_all_told(
    case: Case, structures: Structures, affine: np.ndarray, make_image: Make, make_label_map: Make
) -> None:
    image, labels = make_image(0), make_label_map(0)
    image[0, 0, 0], labels[0, 0, 0] = np.nan, 99
    write_volume(case.image, image, affine)
    write_volume(reference_of(case), labels[:-1], affine)
    problems = validate_case(case, structures, needs_reference=True)
    assert [next(word for word in ("NaN", "labels 99", "shape") if word in p) for p in problems] == [
        "NaN",
        "labels 99",
        "shape",
    ]


def test_voxels_of_a_structure_that_was_not_contoured_are_no_problem(
    case: Case, structures: Structures
) -> None:
    assert (
        validate_case(dataclasses.replace(case, annotated={"liver": 1.0}), structures, needs_reference=True)
        == ()
    )


def test_an_annotated_structure_that_is_absent_is_no_problem(
    case: Case, structures: Structures, affine: np.ndarray, make_label_map: Make
) -> None:
    labels = make_label_map(0)
    write_volume(reference_of(case), np.where(labels == 2, 0, labels).astype(np.uint8), affine)
    assert validate_case(case, structures, needs_reference=True) == ()


def test_an_annotated_structure_that_is_not_declared(case: Case, structures: Structures) -> None:
    odd = dataclasses.replace(case, annotated={"aorta": 1.0})
    (problem,) = validate_case(odd, structures, needs_reference=True)
    assert "names the structure 'aorta', which is not declared" in problem


def test_sound_cases_pass_and_progress_is_told(make_decathlon: Callable[..., Path]) -> None:
    dataset = read(make_decathlon(5, unlabelled=1))
    told: list[tuple[int, int]] = []
    labelled = [case.case_id for case in dataset.cases if case.reference]
    validate_cases(
        dataset.cases,
        dataset.structures,
        needs_reference=labelled,
        progress=lambda done, of: told.append((done, of)),
    )
    assert told == [(n, 5) for n in range(1, 6)]
    validate_cases(dataset.cases, dataset.structures, needs_reference=False)
    with pytest.raises(DataError, match="1 problem in 5 cases:\n  Case case_04 has no reference"):
        validate_cases(dataset.cases, dataset.structures, needs_reference=True)


@pytest.mark.parametrize("threads", [1, 3])
def test_all_problems_are_told_together_in_the_order_of_the_cases(
    make_decathlon: Callable[..., Path], threads: int
) -> None:
    dataset = read(make_decathlon(14))
    for case in dataset.cases[2:]:
        truncate(case.image)
    with pytest.raises(DataError, match="The data set has 12 problems in 14 cases:") as caught:
        validate_cases(dataset.cases, dataset.structures, needs_reference=True, threads=threads)
    lines = str(caught.value).splitlines()
    assert lines[-1] == "  ... and 2 more"
    named = [line.split("imagesTr")[1][1:8] for line in lines[1:-1]]
    assert named == [f"case_{n:02d}" for n in range(2, 12)]


def test_validation_needs_a_thread(structures: Structures) -> None:
    with pytest.raises(ConfigError, match="given 0 threads"):
        validate_cases([], structures, needs_reference=True, threads=0)


def test_what_the_references_hold_is_told(case: Case, structures: Structures) -> None:
    """Of the annotated structures: what lies in a structure that was not contoured is nobody's word."""
    partly = dataclasses.replace(case, case_id="scan_2", annotated={"liver": 1.0})
    bare = dataclasses.replace(case, case_id="scan_3", reference=None, annotated={})
    found = validate_cases([case, partly, bare], structures, needs_reference=False)
    assert found == {
        "scan_1": frozenset({"liver", "spleen"}),
        "scan_2": frozenset({"liver"}),
        "scan_3": frozenset(),
    }
