import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cohort.errors import DataError
from cohort.layouts.decathlon import read

Make = Callable[..., Path]
SHARED = Path(__file__).parents[5] / "shared" / "data"


def change(root: Path, **changes: object) -> None:
    """Replace keys of dataset.json; None removes one."""
    document = {**json.loads((root / "dataset.json").read_text()), **changes}
    (root / "dataset.json").write_text(json.dumps({k: v for k, v in document.items() if v is not None}))


def test_a_data_set_is_read_from_its_headers(make_decathlon: Make) -> None:
    dataset = read(make_decathlon(3))
    assert (dataset.name, dataset.modality, dataset.patients_known) == ("Tiny", "CT", False)
    assert [(s.name, s.label) for s in dataset.structures] == [("liver", 1), ("spleen", 2)]
    assert [case.case_id for case in dataset.cases] == ["case_00", "case_01", "case_02"]
    case = dataset.cases[1]
    assert case.patient_id == "case_01"
    assert case.shape == (8, 12, 16)
    assert case.spacing_mm == pytest.approx((3.0, 1.0, 0.5))
    assert case.image.name == "case_01.nii.gz"
    assert case.reference is not None
    assert case.reference.parent.name == "labelsTr"
    assert case.annotated == {"liver": 1.0, "spleen": 1.0}


def test_voxels_are_not_read(make_decathlon: Make) -> None:
    root = make_decathlon(2)
    image = root / "imagesTr" / "case_00.nii.gz"
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
    (root / "labelsTr" / "case_00.nii.gz").write_bytes(b"broken")
    assert len(read(root).cases) == 2


def test_structures_and_cases_come_in_order(make_decathlon: Make) -> None:
    root = make_decathlon(3)
    training = json.loads((root / "dataset.json").read_text())["training"]
    change(root, training=training[::-1], labels={"10": "c", "2": "b", "0": "background", "1": "a"})
    dataset = read(root)
    assert [s.label for s in dataset.structures] == [1, 2, 10]
    assert [case.case_id for case in dataset.cases] == ["case_00", "case_01", "case_02"]


def test_cases_without_a_label_have_no_reference(make_decathlon: Make) -> None:
    root = make_decathlon(3)
    training = json.loads((root / "dataset.json").read_text())["training"]
    (root / "labelsTr" / "case_00.nii.gz").unlink()
    change(root, training=[training[0], {"image": training[1]["image"]}, training[2]["image"]])
    dataset = read(root)
    assert [case.reference for case in dataset.cases] == [None] * 3
    assert [dict(case.annotated) for case in dataset.cases] == [{}] * 3


def test_annotated_structures_say_what_was_contoured(make_decathlon: Make) -> None:
    listed = {
        "case_00": {"liver": "complete", "spleen": "partial 0.62"},
        "case_01": {"spleen": "partial .4"},
        "case_03": {"liver": "complete"},
    }
    root = make_decathlon(4, unlabelled=1, extra={"annotated_structures": listed})
    annotated = [dict(case.annotated) for case in read(root).cases]
    assert annotated == [{"liver": 1.0, "spleen": 0.62}, {"spleen": 0.4}, {}, {}]


@pytest.mark.parametrize(
    "value", ["partial", "partial 1.2", "partial -0.1", "Complete", 0.5, None, "partial x"]
)
def test_a_malformed_annotation_is_refused(make_decathlon: Make, value: object) -> None:
    root = make_decathlon(1, extra={"annotated_structures": {"case_00": {"liver": value}}})
    with pytest.raises(DataError, match=r"dataset\.json: 'liver' in .* of case_00 is .*expected 'complete'"):
        read(root)


@pytest.mark.parametrize("case_id", ["case_77", "../case_00", "imagesTr/case_00"])
def test_an_annotation_of_an_unknown_case_is_refused(make_decathlon: Make, case_id: str) -> None:
    root = make_decathlon(1, extra={"annotated_structures": {case_id: {"liver": "complete"}}})
    with pytest.raises(DataError, match=f"'annotated_structures' names the case '{case_id}'"):
        read(root)


def test_an_annotation_of_an_undeclared_structure_is_refused(make_decathlon: Make) -> None:
    root = make_decathlon(1, extra={"annotated_structures": {"case_00": {"livver": "complete"}}})
    with pytest.raises(DataError, match="names 'livver', which 'labels' does not declare"):
        read(root)


def test_held_out_cases_keep_their_order(make_decathlon: Make) -> None:
    assert read(make_decathlon(3, splits={"held_out": ["case_02", "case_00"]})).held_out == (
        "case_02",
        "case_00",
    )


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"held_out": ["case_09"]}, "'held_out' names the case 'case_09'"),
        ({"held_out": ["a/b"]}, "'held_out' names the case 'a/b'"),
        ({"held_out": ["case_00", "case_00"]}, "'held_out' names a case twice"),
        ({"held_out": "case_00"}, "'held_out' holds str 'case_00'; expected a list"),
        ({"held_out": [3]}, "expected a text"),
        (["case_00"], "the file holds list"),
    ],
)
def test_malformed_splits_are_refused(make_decathlon: Make, splits: object, message: str) -> None:
    with pytest.raises(DataError, match=rf"splits\.json: .*{message}|splits\.json: {message}"):
        read(make_decathlon(2, splits=splits))


def test_patients_are_read(make_decathlon: Make) -> None:
    dataset = read(make_decathlon(2, patients={"case_01": " anna", "case_00": "anna"}))
    assert dataset.patients_known
    assert [case.patient_id for case in dataset.cases] == ["anna", "anna"]


def test_a_missing_root_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"The data set's folder .*nowhere does not exist"):
        read(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"dataset\.json does not exist"):
        read(tmp_path)


def test_a_missing_image_is_named(make_decathlon: Make) -> None:
    root = make_decathlon(2)
    (root / "imagesTr" / "case_01.nii.gz").unlink()
    with pytest.raises(DataError, match=r"case_01\.nii\.gz, which does not exist"):
        read(root)


def test_a_case_that_is_listed_twice_is_named(make_decathlon: Make) -> None:
    root = make_decathlon(2)
    training = json.loads((root / "dataset.json").read_text())["training"]
    change(root, training=[*training, training[0]])
    with pytest.raises(DataError, match=r"dataset\.json lists the case 'case_00' twice"):
        read(root)
    shutil.copy(root / "imagesTr" / "case_00.nii.gz", root / "case_00.nii.gz")
    change(root, training=[*training, {"image": "case_00.nii.gz"}])
    with pytest.raises(DataError, match="'case_00' twice"):
        read(root)


@pytest.mark.parametrize("image", ["../other/case_00.nii.gz", "/etc/case_00.nii.gz", "..\\case_00.nii.gz"])
def test_a_path_that_leaves_the_data_set_is_refused(make_decathlon: Make, image: str) -> None:
    root = make_decathlon(1)
    change(root, training=[image])
    with pytest.raises(DataError, match=r"entry 0 of 'training' points to .*outside the data set"):
        read(root)


@pytest.mark.parametrize("name", ["two words", ".hidden", "é"])
def test_an_image_whose_name_is_no_id_is_refused(make_decathlon: Make, name: str) -> None:
    root = make_decathlon(1)
    change(root, training=[f"imagesTr/{name}.nii.gz"])
    with pytest.raises(DataError, match=r"dataset\.json: Case id .* cannot be used as a file name"):
        read(root)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None}, "'labels' holds nothing; expected keys and values"),
        ({"labels": {"0": "background"}}, "declares no structure"),
        ({"labels": {"background": 0, "liver": 1}}, "'labels' has the key 'background'"),
        ({"labels": {"1": ""}}, "label 1 holds str ''; expected a text"),
        ({"labels": {"300": "liver"}}, "label 300, expected a whole number from 1 to 255"),
        ({"labels": {"1": "liver", "2": "liver"}}, "structure name 'liver' twice"),
        ({"training": None}, "'training' holds nothing; expected a list"),
        ({"training": []}, "'training' lists no case"),
        ({"training": [7]}, "entry 0 of 'training' holds int '7'"),
        ({"training": [{"label": "a.nii.gz"}]}, "'image' of entry 0 of 'training' holds nothing"),
        ({"training": ["imagesTr/a.png"]}, "not a NIfTI file"),
        ({"annotated_structures": []}, "'annotated_structures' holds list"),
        ({"modality": "CT"}, "'modality' holds str 'CT'"),
        ({"name": 3}, "'name' holds int '3'"),
    ],
)
def test_a_malformed_document_is_refused(
    make_decathlon: Make, changes: dict[str, object], message: str
) -> None:
    root = make_decathlon(1)
    change(root, **changes)
    with pytest.raises(DataError, match=message):
        read(root)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"", b"[]"])
def test_a_document_that_is_no_json_is_named(make_decathlon: Make, content: bytes) -> None:
    root = make_decathlon(1)
    (root / "dataset.json").write_bytes(content)
    with pytest.raises(DataError, match=r"dataset\.json"):
        read(root)


@pytest.mark.parametrize(
    ("modality", "expected"),
    [
        ({"0": "MRI"}, "MR"),
        ({"0": "mri"}, "MR"),
        ({"0": "CT"}, "CT"),
        ({"0": "PET"}, ""),
        ({}, ""),
        (None, ""),
    ],
)
def test_the_modality_is_ct_or_mr(
    make_decathlon: Make, modality: dict[str, str] | None, expected: str
) -> None:
    root = make_decathlon(1)
    change(root, modality=modality)
    assert read(root).modality == expected


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
def test_a_public_data_set_with_partial_annotations() -> None:
    dataset = read(SHARED / "OpenKBP_HeadNeck")
    assert (len(dataset.cases), len(dataset.structures), dataset.modality) == (148, 7, "CT")
    assert dataset.by_id["pt_1"].annotated["spinal cord"] == 0.62
    assert sum(len(case.annotated) == 7 for case in dataset.cases) == 30
    assert set(dataset.held_out) <= dataset.by_id.keys()
