from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from cohort.errors import DataError
from cohort.layouts.totalsegmentator import read
from cohort.volume import write_volume

Make = Callable[..., Path]
STRUCTURES = ("liver", "spleen")


@pytest.fixture
def make(tmp_path: Path, affine: np.ndarray, make_image: Callable[[int], np.ndarray]) -> Make:
    def write(
        cases: Sequence[str] = ("s0000", "s0001"), image: str = "ct.nii.gz", folder: str = "segmentations"
    ) -> Path:
        root = tmp_path / "Totalsegmentator"
        for seed, case_id in enumerate(cases):
            write_volume(root / case_id / image, make_image(seed), affine)
            for structure in STRUCTURES:
                path = root / case_id / folder / f"{structure}.nii.gz"
                write_volume(path, np.ones((8, 12, 16), dtype=np.uint8), affine)
        return root

    return write


def test_a_folder_per_case(make: Make) -> None:
    root = make()
    dataset = read(root)
    assert (dataset.name, dataset.metadata) == ("Totalsegmentator", None)
    assert [case.case_id for case in dataset.cases] == ["s0000", "s0001"]
    case = dataset.cases[1]
    assert case.image == root / "s0001" / "ct.nii.gz"
    assert [(mask.structure, mask.labels) for mask in case.masks] == [("liver", ()), ("spleen", ())]
    assert case.masks[0].path == root / "s0001" / "segmentations" / "liver.nii.gz"


def test_no_voxel_is_read(make: Make) -> None:
    root = make()
    for path in root.rglob("*.nii.gz"):
        path.write_bytes(b"broken")
    assert len(read(root).cases) == 2


def test_the_folder_of_one_case(make: Make) -> None:
    (case,) = read(make() / "s0001").cases
    assert (case.case_id, len(case.masks)) == ("s0001", 2)


@pytest.mark.parametrize("image", ["ct.nii", "mri.nii.gz", "mri.nii"])
def test_other_names_of_the_image(make: Make, image: str) -> None:
    assert {case.image.name for case in read(make(image=image)).cases} == {image}


def test_masks_beside_the_image(make: Make) -> None:
    (case, _) = read(make(folder=".")).cases
    assert [mask.structure for mask in case.masks] == ["liver", "spleen"], "the image is no mask"


def test_what_is_no_case_is_left_out(make: Make) -> None:
    root = make(("s0000", "s0001", "s0002"))
    (root / "s0001" / "ct.nii.gz").unlink()
    for path in (root / "s0002" / "segmentations").iterdir():
        path.unlink()
    (root / "notes").mkdir()
    (root / "s0000" / "segmentations" / "liver.json").write_text("{}")
    (case,) = read(root).cases
    assert case.case_id == "s0000"
    assert [mask.structure for mask in case.masks] == ["liver", "spleen"]


@pytest.mark.parametrize("inside", ["segmentations", "."])
def test_other_masks(make: Make, tmp_path: Path, inside: str) -> None:
    predicted = tmp_path / "predicted" / "s0001" / inside
    predicted.mkdir(parents=True)
    (predicted / "colon.nii.gz").write_bytes(b"")
    root = make()
    (case,) = read(root, tmp_path / "predicted").cases
    assert (case.case_id, case.image) == ("s0001", root / "s0001" / "ct.nii.gz")
    assert [(mask.structure, mask.path.parent.resolve()) for mask in case.masks] == [
        ("colon", predicted.resolve())
    ]


def test_metadata(make: Make) -> None:
    root = make()
    (root / "meta.csv").write_text("image_id;age;gender\ns0000;61;m\ns0001;;f\n")
    metadata = read(root).metadata
    assert metadata is not None
    assert metadata.loc["s0001", "gender"] == "f"
    (root / "meta.csv").write_text("name;age\ns0000;61\n")
    with pytest.raises(DataError, match=r"meta\.csv has no column of case ids"):
        read(root)
