from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cohort.errors import DataError
from cohort.layouts.detection import detect_layout, read_plain
from cohort.volume import write_volume


def test_layouts_are_told_apart(
    make_decathlon: Callable[..., Path], tmp_path: Path, affine: np.ndarray
) -> None:
    assert detect_layout(make_decathlon(2)) == "decathlon"
    nnunet = tmp_path / "nnunet"
    nnunet.mkdir()
    (nnunet / "dataset.json").write_text('{"labels": {"background": 0, "liver": 1}}')
    assert detect_layout(nnunet) == "nnunet"
    write_volume(tmp_path / "total" / "s1" / "ct.nii.gz", np.zeros((2, 3, 4), np.float32), affine)
    assert detect_layout(tmp_path / "total") == "totalsegmentator"
    assert detect_layout(tmp_path / "total" / "s1") == "totalsegmentator"


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        detect_layout(tmp_path / "nowhere")
    with pytest.raises(DataError, match="is no data set with images and masks"):
        detect_layout(tmp_path)


def test_plain_folders_pair_label_maps_with_images(make_folder: Callable[..., Path]) -> None:
    folder = make_folder("plain", ("a", "b"), nnunet=True)
    found = read_plain(folder / "imagesTr", folder / "labelsTr", {"liver": 1})
    assert [(case.case_id, case.image.name) for case in found.cases] == [
        ("a", "a_0000.nii.gz"),
        ("b", "b_0000.nii.gz"),
    ]
    assert [(mask.structure, mask.labels) for mask in found.cases[0].masks] == [("liver", (1,))]


def test_the_number_of_a_channel_may_be_a_part_of_the_name(make_folder: Callable[..., Path]) -> None:
    folder = make_folder("plain", ("case_0000", "case_0001"))
    found = read_plain(folder / "images", folder / "labels", {"liver": 1})
    assert [(case.case_id, case.image.name) for case in found.cases] == [
        ("case_0000", "case_0000.nii.gz"),
        ("case_0001", "case_0001.nii.gz"),
    ]


def test_plain_folders_with_a_file_twice_are_refused(make_folder: Callable[..., Path]) -> None:
    root = make_folder("tiny", ("a", "b"))
    (root / "labels" / "a.nii").write_bytes(b"")
    with pytest.raises(DataError, match=r"labels holds 'a' as \.nii and as \.nii\.gz; keep one of them"):
        read_plain(root / "images", root / "labels", {"liver": 1})


def test_plain_folders_without_masks_are_refused(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_folder("plain", ("a",))
    with pytest.raises(DataError, match="There is no label map"):
        read_plain(folder / "images", tmp_path, {"liver": 1})
    with pytest.raises(DataError, match="does not exist"):
        read_plain(folder / "images", tmp_path / "nowhere", {"liver": 1})
