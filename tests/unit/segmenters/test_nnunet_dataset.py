import json
import os

import numpy as np
import pytest

from cohort.errors import DataError, ModelError
from cohort.volume import read_label_map
from segmenters.nnunet_config import NnUNetConfig
from segmenters.nnunet_dataset import NnUNetDataset

pytestmark = pytest.mark.usefixtures("needs_nnunet")


@pytest.fixture
def prepare(tmp_path, structures):
    def run(*cases, **settings):
        return NnUNetDataset(tmp_path / "work", NnUNetConfig(**settings), structures).prepare(cases)

    return run


def age(folder):
    """Date every file back, so that one written since stands out."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        os.utime(path, ns=(1, 1))


def written(folder):
    return {path.name for path in folder.rglob("*") if path.is_file() and path.stat().st_mtime_ns != 1}


def test_the_cases_are_a_data_set_that_nnunet_knows(prepare, write_case, tmp_path):
    partial, complete = write_case("a", 0, ["liver"]), write_case("b", 1)
    prepared = prepare(partial, complete)

    raw = tmp_path / "work" / "nnUNet_raw" / prepared.dataset["name"]
    described = json.loads((raw / "dataset.json").read_bytes())
    assert described == prepared.dataset
    assert described["labels"]["ignore"] == 4
    assert described["numTraining"] == 2
    first, second = (described["dataset"][name] for name in prepared.identifiers)
    assert first["images"] == [str(partial.image.resolve())]
    labels = read_label_map(tmp_path / first["label"]).array
    stored = read_label_map(partial.label_map).array
    np.testing.assert_array_equal(labels, np.where(stored == 2, 1, 4))
    assert sorted(np.unique(read_label_map(tmp_path / second["label"]).array)) == [0, 1, 2]


def test_complete_cases_need_no_label_to_ignore(prepare, write_case):
    assert "ignore" not in prepare(write_case("a", 0), write_case("b", 1)).dataset["labels"]


def test_a_later_fit_prepares_only_what_is_new(prepare, write_case, tmp_path):
    a, b = write_case("a", 0), write_case("b", 1)
    first = prepare(a, b)
    age(tmp_path / "work")

    second = prepare(a, b, write_case("c", 2))
    new = second.identifiers[-1]
    assert second.identifiers[:2] == first.identifiers
    assert second.plan == first.plan
    assert written(second.folder) == {f"{new}.b2nd", f"{new}_seg.b2nd", f"{new}.pkl"}
    assert written(tmp_path / "work" / "nnUNet_raw") == {"dataset.json", f"{new}.nii.gz"}
    assert not written(second.folder.parent) - written(second.folder)

    age(tmp_path / "work")
    assert prepare(b).identifiers == first.identifiers[1:]  # a fold of a cross-fit
    assert not written(second.folder)

    changed = prepare(a, write_case("b", 3))
    assert written(changed.folder) == {
        f"{changed.identifiers[1]}{end}" for end in (".b2nd", "_seg.b2nd", ".pkl")
    }


def test_the_plan_is_that_of_the_first_cases_and_lies_beside_what_it_was_made_of(
    prepare, write_case, tmp_path
):
    first = prepare(write_case("a", 0))
    large = np.random.default_rng(0).normal(0, 10, (20, 30, 40)).astype(np.float32)
    labels = np.zeros((20, 30, 40), dtype=np.uint8)
    labels[5:15, 5:20, 5:30] = 2
    second = prepare(write_case("b", 1, image=large, labels=labels))

    assert second.plan == first.plan
    assert second.plan["configurations"]["3d_fullres"]["patch_size"] == [8, 12, 16]
    assert list(json.loads((first.folder.parent / "dataset.json").read_bytes())["dataset"]) == [
        *first.identifiers
    ]
    made_of = json.loads((first.folder.parent / "dataset_fingerprint.json").read_bytes())
    assert made_of["shapes_after_crop"] == [[8, 12, 16]]
    assert first.dataset["name"] != prepare(write_case("a", 0), modality="CT").dataset["name"]


def test_what_a_killed_fit_left_is_cleared(prepare, write_case, tmp_path):
    case = write_case("a", 0)
    prepared = prepare(case)
    (prepared.folder / f"{prepared.identifiers[0]}.pkl").unlink()
    torn = prepared.folder / f".{prepared.identifiers[0]}.pkl.17.tmp"
    torn.write_bytes(b"half")
    scratch = tmp_path / "work" / ".nnunet-x"
    scratch.mkdir()

    prepare(case)

    assert not torn.exists()
    assert not scratch.exists()
    assert (prepared.folder / f"{prepared.identifiers[0]}.pkl").is_file()


def test_a_plan_that_does_not_serve_is_not_kept(prepare, write_case, tmp_path):
    with pytest.raises(ModelError, match=r"configuration is '3d_lowres', but .* planned only 2d, 3d_fullres"):
        prepare(write_case("a", 0), configuration="3d_lowres")
    tiny = np.zeros((4, 5, 6), dtype=np.uint8)
    tiny[0] = 2
    with pytest.raises(ModelError, match=r"too small for nnU-Net: it planned patches of \(4, 5, 6\) voxels"):
        prepare(write_case("t", 0, image=tiny + np.float32(1), labels=tiny))

    assert not list((tmp_path / "work").rglob("plan.json"))
    assert prepare(write_case("a", 0)).plan["configurations"]["3d_fullres"]["patch_size"] == [8, 12, 16]


def test_a_broken_scan_is_named(prepare, write_case):
    case = write_case("a", 0, image=np.full((8, 12, 16), np.nan, dtype=np.float32))

    with pytest.raises(DataError, match=r"a.nii.gz has 1536 NaN"):
        prepare(case)
