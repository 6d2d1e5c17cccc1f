import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cohort.errors import ConfigError, DataError
from cohort.layouts.masks import MaskDataset, read_masks
from cohort.volume import write_volume

Make = Callable[..., Path]


def listed(dataset: MaskDataset) -> dict[str, dict[str, tuple[int, ...]]]:
    return {case.case_id: {mask.structure: mask.labels for mask in case.masks} for case in dataset.cases}


def test_decathlon(make_decathlon: Make) -> None:
    root = make_decathlon(3, unlabelled=1)
    dataset = read_masks(root, "decathlon")
    assert (dataset.name, dataset.metadata) == ("Tiny", None)
    both = {"liver": (1,), "spleen": (2,)}
    assert listed(dataset) == {"case_00": both, "case_01": both}
    case = dataset.cases[0]
    assert case.image == root / "imagesTr" / "case_00.nii.gz"
    assert {mask.path for mask in case.masks} == {root / "labelsTr" / "case_00.nii.gz"}


def test_a_structure_that_was_not_contoured_is_no_mask(make_decathlon: Make) -> None:
    contoured = {"case_00": {"liver": "complete"}, "case_01": {"spleen": "partial 0.5"}}
    root = make_decathlon(3, extra={"annotated_structures": contoured})
    assert listed(read_masks(root, "decathlon")) == {
        "case_00": {"liver": (1,)},
        "case_01": {"spleen": (2,)},
    }, "nothing was contoured in the third case"


def test_decathlon_with_other_masks(
    make_decathlon: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Predictions hold every structure, also for cases without a reference."""
    root, predicted = make_decathlon(3, unlabelled=1), tmp_path / "predicted"
    predicted.mkdir()
    for case_id in ("case_01", "case_02", "stranger"):
        (predicted / f"{case_id}.nii.gz").write_bytes(b"")
    (predicted / "notes.txt").touch()
    dataset = read_masks(root, "decathlon", masks=predicted)
    assert caplog.messages == [
        f"Left out, of no case in {root}: 1 of the masks in {predicted} (stranger.nii.gz)"
    ]
    both = {"liver": (1,), "spleen": (2,)}
    assert listed(dataset) == {"case_01": both, "case_02": both}
    assert {mask.path.parent for case in dataset.cases for mask in case.masks} == {predicted}


def test_totalsegmentator(tmp_path: Path, affine: np.ndarray, caplog: pytest.LogCaptureFixture) -> None:
    voxels = np.ones((8, 12, 16), dtype=np.uint8)
    for path in ("s0000/ct.nii.gz", "s0000/segmentations/liver.nii.gz", "predicted/s0000/colon.nii.gz"):
        write_volume(tmp_path / path, voxels, affine)
    assert listed(read_masks(tmp_path, "totalsegmentator")) == {"s0000": {"liver": ()}}
    other = read_masks(tmp_path, "totalsegmentator", masks=tmp_path / "predicted")
    assert listed(other) == {"s0000": {"colon": ()}}
    assert not caplog.messages
    for number in range(1, 5):
        write_volume(tmp_path / f"predicted/s{number:04}/segmentations/colon.nii.gz", voxels, affine)
    (tmp_path / "predicted" / "logs").mkdir()
    assert listed(read_masks(tmp_path, "totalsegmentator", masks=tmp_path / "predicted")) == listed(other)
    assert "4 of the masks in" in caplog.text and "(s0001, s0002, s0003 ...)" in caplog.text


def test_nnunet(make_folder: Make, tmp_path: Path) -> None:
    root = make_folder("tiny", ("a", "b"), nnunet=True)
    (root / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "abdomen": [1, 2]}}))
    assert listed(read_masks(root, "nnunet")) == {"a": {"abdomen": (1, 2)}, "b": {"abdomen": (1, 2)}}
    (tmp_path / "predicted").mkdir()
    (tmp_path / "predicted" / "b.nii.gz").write_bytes(b"")
    assert list(listed(read_masks(root, "nnunet", masks=tmp_path / "predicted"))) == ["b"]


def test_label_maps_without_an_image_are_told(make_folder: Make, caplog: pytest.LogCaptureFixture) -> None:
    root = make_folder("tiny", ("a", "b", "c"), nnunet=True)
    (root / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "liver": 1}}))
    (root / "imagesTr" / "b_0000.nii.gz").rename(root / "imagesTr" / "b.nii.gz")
    (root / "imagesTr" / "c_0000.nii.gz").unlink()
    assert list(listed(read_masks(root, "nnunet"))) == ["a"]
    assert "2 of the masks in" in caplog.text and "(b.nii.gz, c.nii.gz)" in caplog.text
    (root / "imagesTr" / "a_0000.nii.gz").rename(root / "imagesTr" / "a.nii.gz")
    with pytest.raises(DataError, match=r"No image in .*imagesTr is named <case>_0000\.nii\.gz, as nnU-Net"):
        read_masks(root, "nnunet")


def test_a_mask_that_is_there_twice(tmp_path: Path, affine: np.ndarray) -> None:
    for path in ("s0000/ct.nii.gz", "s0000/segmentations/liver.nii.gz", "s0000/segmentations/liver.nii"):
        write_volume(tmp_path / path, np.ones((8, 12, 16), np.uint8), affine)
    with pytest.raises(DataError, match=r"segmentations holds 'liver' as \.nii and as \.nii\.gz"):
        read_masks(tmp_path, "totalsegmentator")


@pytest.mark.parametrize("layout", ["decathlon", "nnunet"])
def test_masks_may_be_compressed_or_not_whatever_the_images_are(
    make_folder: Make, make_decathlon: Make, tmp_path: Path, layout: str
) -> None:
    root, names = make_decathlon(3), ("case_00", "case_01")
    if layout == "nnunet":
        root, names = make_folder("tiny", ("a", "b"), nnunet=True), ("a", "b")
        (root / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "liver": 1}}))
    predicted = tmp_path / "predicted"
    predicted.mkdir()
    files = {predicted / f"{names[0]}.nii", predicted / f"{names[1]}.nii.gz"}
    for path in files:
        path.write_bytes(b"")
    dataset = read_masks(root, layout, masks=predicted)
    assert {mask.path for case in dataset.cases for mask in case.masks} == files
    (predicted / f"{names[1]}.nii").write_bytes(b"")
    with pytest.raises(DataError, match=f"{names[1]}' as .nii and as .nii.gz; keep one of them"):
        read_masks(root, layout, masks=predicted)


class TestRefused:
    def test_another_layout(self, tmp_path: Path) -> None:
        with pytest.raises(
            ConfigError, match="layout 'dicom'; expected one of decathlon, nnunet, totalsegmentator"
        ):
            read_masks(tmp_path, "dicom")

    @pytest.mark.parametrize("layout", ["decathlon", "nnunet", "totalsegmentator"])
    def test_no_folder(self, tmp_path: Path, layout: str) -> None:
        with pytest.raises(DataError, match=r"The data set's folder .*nowhere does not exist"):
            read_masks(tmp_path / "nowhere", layout)
        with pytest.raises(DataError, match=r"The folder of masks .*nowhere does not exist"):
            read_masks(tmp_path, layout, masks=tmp_path / "nowhere")

    def test_no_mask(self, make_decathlon: Make, tmp_path: Path) -> None:
        root = make_decathlon(2, unlabelled=2)
        with pytest.raises(DataError, match=r"No mask was found in .*decathlon for the layout 'decathlon'"):
            read_masks(root, "decathlon")
        with pytest.raises(DataError, match="for the layout 'totalsegmentator'; is it another layout"):
            read_masks(root, "totalsegmentator")
        (tmp_path / "predicted").mkdir()
        with pytest.raises(DataError, match=r"No mask was found in .*predicted for the layout"):
            read_masks(root, "decathlon", masks=tmp_path / "predicted")

    def test_what_the_layout_refuses(self, make_decathlon: Make) -> None:
        root = make_decathlon(1)
        (root / "imagesTr" / "case_00.nii.gz").unlink()
        with pytest.raises(DataError, match=r"case_00\.nii\.gz, which does not exist"):
            read_masks(root, "decathlon")
