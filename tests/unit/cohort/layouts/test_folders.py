from collections.abc import Callable
from pathlib import Path

import pytest

from cohort.errors import DataError
from cohort.layouts.folders import read

Make = Callable[..., Path]
LABELS = {"spleen": 2, "liver": 1}


def test_three_folders_are_one_data_set(make_folder: Make) -> None:
    split = read(
        make_folder("start", ("b", "a")),
        make_folder("pool", ("d", "c"), labels=False),
        make_folder("test", ("e",)),
        LABELS,
    )
    assert (split.labelled, split.unlabelled, split.held_out) == (("a", "b"), ("c", "d"), ("e",))
    assert [case.case_id for case in split.dataset.cases] == ["a", "b", "c", "d", "e"]
    assert [s.name for s in split.dataset.structures] == ["liver", "spleen"]
    assert split.dataset.held_out == ("e",)
    assert split.dataset.by_id["c"].reference is None
    case = split.dataset.by_id["a"]
    assert case.reference is not None
    assert case.annotated == {"liver": 1.0, "spleen": 1.0}
    assert case.shape == (8, 12, 16)
    assert case.spacing_mm == pytest.approx((3.0, 1.0, 0.5))


def test_only_the_labelled_folder_is_needed(make_folder: Make) -> None:
    split = read(make_folder("start", ("a",)), None, None, LABELS)
    assert (split.unlabelled, split.held_out) == ((), ())


def test_references_of_the_unlabelled_folder_are_kept(make_folder: Make) -> None:
    split = read(make_folder("start", ("a",)), make_folder("pool", ("b",)), None, LABELS)
    assert split.dataset.by_id["b"].reference is not None


def test_the_names_of_nnunet_are_understood(make_folder: Make) -> None:
    split = read(
        make_folder("start", ("a", "b"), nnunet=True),
        make_folder("pool", ("c",), nnunet=True, labels=False),
        None,
        LABELS,
    )
    assert (split.labelled, split.unlabelled) == (("a", "b"), ("c",))
    assert split.dataset.by_id["a"].image.name == "a_0000.nii.gz"


def test_an_id_that_merely_ends_like_nnunets_names_is_kept(make_folder: Make) -> None:
    split = read(
        make_folder("start", ("scan_0000",)),
        make_folder("pool", ("visit_0000", "visit_0001"), labels=False),
        None,
        LABELS,
    )
    assert split.labelled == ("scan_0000",)
    assert split.unlabelled == ("visit_0000", "visit_0001")


def test_several_channels_are_refused(make_folder: Make) -> None:
    folder = make_folder("start", ("a",), nnunet=True)
    image = folder / "imagesTr" / "a_0000.nii.gz"
    (folder / "imagesTr" / "a_0001.nii.gz").write_bytes(image.read_bytes())
    with pytest.raises(DataError, match="one of several channels of the case 'a'"):
        read(folder, None, None, LABELS)


def test_patients_are_known_where_every_folder_names_them(make_folder: Make) -> None:
    start, pool = make_folder("start", ("a",)), make_folder("pool", ("b",))
    (start / "patients.csv").write_text("case_id,patient_id\na,anna\n")
    assert not read(start, pool, None, LABELS).dataset.patients_known
    (pool / "patients.csv").write_text("patient_id,case_id\nanna,b\n")
    dataset = read(start, pool, None, LABELS).dataset
    assert dataset.patients_known
    assert [case.patient_id for case in dataset.cases] == ["anna", "anna"]


def test_a_missing_folder_is_one_clear_sentence(make_folder: Make, tmp_path: Path) -> None:
    start = make_folder("start", ("a",))
    for arguments, what in [
        ((tmp_path / "gone", None, None), "labelled"),
        ((start, tmp_path / "gone", None), "unlabelled"),
        ((start, None, tmp_path / "gone"), "held-out"),
    ]:
        with pytest.raises(DataError, match=rf"^The folder of {what} cases, .*gone, does not exist$"):
            read(*arguments, LABELS)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no folder images/"):
        read(tmp_path, None, None, LABELS)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "notes.txt").write_text("nothing here")
    with pytest.raises(DataError, match=r"images holds no \.nii\.gz"):
        read(tmp_path, None, None, LABELS)


def test_two_folders_of_images_are_refused(make_folder: Make) -> None:
    folder = make_folder("start", ("a",))
    (folder / "imagesTr").mkdir()
    with pytest.raises(DataError, match="has both images/ and imagesTr/"):
        read(folder, None, None, LABELS)


def test_a_case_in_two_folders_is_named(make_folder: Make) -> None:
    with pytest.raises(DataError, match=r"Case 'b' is in two folders, as .*start.* and as .*pool"):
        read(make_folder("start", ("a", "b")), make_folder("pool", ("b",)), None, LABELS)


def test_a_case_that_is_there_compressed_and_not_is_named(make_folder: Make) -> None:
    folder = make_folder("start", ("a",))
    (folder / "images" / "a.nii").write_bytes(b"")
    with pytest.raises(DataError, match=r"'a' as \.nii and as \.nii\.gz"):
        read(folder, None, None, LABELS)


def test_an_image_and_its_twin_with_a_suffix_are_named(make_folder: Make) -> None:
    folder = make_folder("start", ("a",), nnunet=True)
    image = folder / "imagesTr" / "a_0000.nii.gz"
    (folder / "imagesTr" / "a.nii.gz").write_bytes(image.read_bytes())
    with pytest.raises(DataError, match="are both the case 'a'"):
        read(folder, None, None, LABELS)


@pytest.mark.parametrize("part", ["labelled", "held_out"])
def test_an_image_that_needs_a_label_map_is_named(make_folder: Make, part: str) -> None:
    start, bare = make_folder("start", ("a",)), make_folder("bare", ("b",), labels=False)
    folders = {"labelled": start, "unlabelled": None, "held_out": None, part: bare}
    with pytest.raises(DataError, match=r"The image .*b\.nii\.gz has no label map"):
        read(**folders, structures=LABELS)


def test_a_label_map_without_an_image_is_named(make_folder: Make) -> None:
    folder = make_folder("start", ("a", "b"))
    (folder / "images" / "b.nii.gz").unlink()
    with pytest.raises(DataError, match=r"The label map .*b\.nii\.gz has no image"):
        read(folder, None, None, LABELS)


def test_an_image_whose_name_is_no_id_is_named(make_folder: Make) -> None:
    folder = make_folder("start", ("a",), labels=False)
    (folder / "images" / "a.nii.gz").rename(folder / "images" / "a b.nii.gz")
    with pytest.raises(DataError, match=r"a b\.nii\.gz: Case id 'a b' cannot be used"):
        read(folder, None, None, LABELS)


def test_headers_that_cannot_be_read_are_told_together(make_folder: Make) -> None:
    folder = make_folder("start", ("a", "b", "c"))
    for name in ("a", "c"):
        (folder / "images" / f"{name}.nii.gz").write_bytes(b"no scan")
    with pytest.raises(DataError) as caught:
        read(folder, None, None, LABELS)
    first, second = str(caught.value).splitlines()
    assert "images/a.nii.gz" in first
    assert "images/c.nii.gz" in second


def test_structures_must_be_named(make_folder: Make) -> None:
    with pytest.raises(DataError, match="need to be told their structures"):
        read(make_folder("start", ("a",)), None, None, {})
    with pytest.raises(DataError, match="'liver' has label 0"):
        read(make_folder("start", ("a",)), None, None, {"liver": 0})
