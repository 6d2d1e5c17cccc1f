import dataclasses
import pickle
from pathlib import Path

import pytest

from cohort.case import Case, Dataset, Structure, check_case_id
from cohort.errors import DataError


def make_case(case_id: str = "pt_1", **changes: object) -> Case:
    values = {"case_id": case_id, "patient_id": case_id, "image": Path("a.nii.gz"), **changes}
    return Case(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("case_id", ["a/b", "a\\b", "../a", ".hidden", "", "two words", "a\n", "/etc", "é"])
def test_an_id_that_is_no_file_name_is_refused(case_id: str) -> None:
    with pytest.raises(DataError, match="cannot be used as a file name"):
        check_case_id(case_id)
    with pytest.raises(DataError, match="cannot be used as a file name"):
        make_case(case_id)


@pytest.mark.parametrize("label", [0, -1, 256])
def test_a_structure_needs_a_label_of_a_byte(label: int) -> None:
    with pytest.raises(DataError, match=f"'liver' has label {label}, expected a whole number from 1 to 255"):
        Structure(name="liver", label=label)


def test_a_structure_needs_a_name() -> None:
    with pytest.raises(DataError, match="label 3 has no name"):
        Structure(name=" ", label=3)


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_a_fraction_lies_between_0_and_1(fraction: float) -> None:
    with pytest.raises(DataError, match="Case pt_1: structure 'liver' has fraction"):
        make_case(reference=Path("b.nii.gz"), annotated={"liver": fraction})


def test_annotated_structures_need_a_reference() -> None:
    with pytest.raises(DataError, match="pt_1 names annotated structures but has no reference"):
        make_case(annotated={"liver": 1.0})


def test_metrics_count_a_structure_from_half_of_it_in_the_field_of_view() -> None:
    annotated = {"liver": 0.5, "spleen": 0.49, "aorta": 1.0}
    case = make_case(reference=Path("b.nii.gz"), annotated=annotated)
    assert case.evaluated == {"liver", "aorta"}


def test_a_view_holds_neither_reference_nor_what_was_annotated() -> None:
    case = make_case(reference=Path("secret.nii.gz"), annotated={"liver": 1.0}, shape=(1, 2, 3))
    view = case.view()
    assert {f.name for f in dataclasses.fields(view)} == {
        "case_id",
        "patient_id",
        "image",
        "shape",
        "spacing_mm",
    }
    assert (view.case_id, view.shape) == ("pt_1", (1, 2, 3))


def test_a_case_hashes_and_pickles() -> None:
    case = make_case(reference=Path("b.nii.gz"), annotated={"liver": 1.0})
    assert pickle.loads(pickle.dumps(case)) == case
    assert len({case, make_case(reference=Path("b.nii.gz"), annotated={"liver": 1.0})}) == 1


def test_a_data_set_finds_its_cases_by_id() -> None:
    liver = Structure(name="liver", label=1)
    dataset = Dataset(name="D", structures=(liver,), cases=(make_case("a"), make_case("b")))
    assert dataset.by_id["b"].case_id == "b"


def test_a_data_set_refuses_what_is_there_twice() -> None:
    liver = Structure(name="liver", label=1)
    with pytest.raises(DataError, match="'D' has case id 'a' twice"):
        Dataset(name="D", structures=(liver,), cases=(make_case("a"), make_case("a")))
    with pytest.raises(DataError, match="structure name 'liver' twice"):
        Dataset(name="D", structures=(liver, Structure(name="liver", label=2)), cases=())
    with pytest.raises(DataError, match="structure label '1' twice"):
        Dataset(name="D", structures=(liver, Structure(name="spleen", label=1)), cases=())
