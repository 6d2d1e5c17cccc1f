import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cohort.errors import DataError
from cohort.layouts.nnunet import read

Make = Callable[..., Path]
LABELS: dict[str, object] = {"background": 0, "liver": 1, "spleen": 2}


@pytest.fixture
def make(make_folder: Make) -> Make:
    def write(case_ids: tuple[str, ...] = ("a", "b"), **document: object) -> Path:
        root = make_folder("Dataset007_Tiny", case_ids, nnunet=True)
        (root / "dataset.json").write_text(json.dumps({"labels": LABELS, **document}))
        return root

    return write


def test_a_label_map_holds_the_masks_of_a_case(make: Make) -> None:
    root = make(name="Tiny", file_ending=".nii.gz")
    dataset = read(root)
    assert (dataset.name, dataset.metadata) == ("Tiny", None)
    assert [case.case_id for case in dataset.cases] == ["a", "b"]
    case = dataset.cases[1]
    assert case.image == root / "imagesTr" / "b_0000.nii.gz"
    assert [(mask.structure, mask.labels) for mask in case.masks] == [("liver", (1,)), ("spleen", (2,))]
    assert {mask.path for mask in case.masks} == {root / "labelsTr" / "b.nii.gz"}


def test_the_name_is_that_of_the_folder_where_none_is_given(make: Make) -> None:
    assert read(make()).name == "Dataset007_Tiny"


def test_regions_are_unions_of_labels(make: Make) -> None:
    labels = {"background": 0, "whole tumour": [1, 2, 3], "core": [2, 3], "enhancing": 3, "ignore": 4}
    (case, _) = read(make(labels=labels)).cases
    assert {mask.structure: mask.labels for mask in case.masks} == {
        "whole tumour": (1, 2, 3),
        "core": (2, 3),
        "enhancing": (3,),
    }


def test_of_several_channels_the_first_is_the_image(make: Make) -> None:
    root = make(("a",))
    (root / "imagesTr" / "a_0001.nii.gz").write_bytes(b"another channel")
    (case,) = read(root).cases
    assert case.image.name == "a_0000.nii.gz"


def test_an_id_may_look_like_a_channel(make: Make) -> None:
    (case,) = read(make(("a_0000",))).cases
    assert (case.case_id, case.image.name) == ("a_0000", "a_0000_0000.nii.gz")


def test_another_ending(make: Make) -> None:
    root = make(("a", "b"), file_ending=".nii")
    for path in (root / "imagesTr" / "a_0000.nii.gz", root / "labelsTr" / "a.nii.gz"):
        path.rename(path.with_suffix(""))
    (case,) = read(root).cases
    assert (case.case_id, case.image.name) == ("a", "a_0000.nii")


def test_cases_without_a_label_map_are_left_out(make: Make) -> None:
    root = make()
    (root / "labelsTr" / "a.nii.gz").unlink()
    assert [case.case_id for case in read(root).cases] == ["b"]


def test_other_masks_may_be_of_test_images(make: Make, tmp_path: Path) -> None:
    root, predicted = make(("a", "b", "c")), tmp_path / "predicted"
    (root / "imagesTs").mkdir()
    (root / "imagesTr" / "c_0000.nii.gz").rename(root / "imagesTs" / "c_0000.nii.gz")
    assert [case.case_id for case in read(root).cases] == ["a", "b"]
    predicted.mkdir()
    for case_id in ("b", "c", "stranger"):
        (predicted / f"{case_id}.nii.gz").write_bytes(b"")
    cases = read(root, predicted).cases
    assert [(case.case_id, case.image.parent.name) for case in cases] == [
        ("b", "imagesTr"),
        ("c", "imagesTs"),
    ]
    assert {mask.path.parent for case in cases for mask in case.masks} == {predicted}


class TestRefused:
    @pytest.mark.parametrize(
        "value", ["1", True, 1.0, -1, 256, None, [], [1, "2"], [1, [2]], [1, 256], {"value": 1}]
    )
    def test_a_label_that_is_none(self, make: Make, value: object) -> None:
        with pytest.raises(
            DataError, match=r"dataset\.json: label 'liver' is .*; expected a whole number from 0 to 255, or"
        ):
            read(make(labels={"background": 0, "liver": value}))

    def test_the_first_version_of_the_format(self, make: Make) -> None:
        with pytest.raises(DataError, match=r"label '0' is 'background'; .* the name as its key"):
            read(make(labels={"0": "background", "1": "liver"}))

    @pytest.mark.parametrize(
        ("document", "message"),
        [
            ({"labels": None}, "'labels' holds nothing; expected keys and values"),
            ({"labels": [1]}, "'labels' holds list"),
            ({"labels": {}}, "'labels' declares no structure besides the background"),
            ({"labels": {"nothing": 0, "background": [0], "ignore": 3}}, "declares no structure besides"),
            ({"file_ending": ".png"}, r"files that end in '\.png'; expected \.nii\.gz or \.nii"),
            ({"file_ending": 3}, "'file_ending' holds int '3'; expected a text"),
            ({"name": ""}, "'name' holds str ''; expected a text"),
        ],
    )
    def test_a_document_that_is_malformed(
        self, make: Make, document: dict[str, object], message: str
    ) -> None:
        with pytest.raises(DataError, match=rf"dataset\.json.*{message}"):
            read(make(**document))

    def test_no_document(self, make: Make) -> None:
        root = make()
        (root / "dataset.json").write_text("{")
        with pytest.raises(DataError, match=r"dataset\.json cannot be read as JSON"):
            read(root)
        (root / "dataset.json").unlink()
        with pytest.raises(DataError, match=r"dataset\.json does not exist"):
            read(root)
