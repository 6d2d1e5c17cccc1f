"""Segmentations as 3D Slicer writes them; only slicerio itself is needed."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from cohort.annotation import Request
from cohort.case import Structure
from cohort.errors import DataError, MissingExtraError
from cohort.volume import Grid, read_label_map, write_volume
from flows.annotators.base import WorkItem
from flows.annotators.folder import Folder
from flows.annotators.segmentations import read_segmentation, write_segmentation

slicerio = pytest.importorskip("slicerio")

STRUCTURES = (Structure(name="liver", label=1), Structure(name="left kidney", label=4))
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
AFFINE = np.array(
    [[0.0, -0.8, 0.1, 30.0], [0.9, 0.0, 0.0, -12.0], [0.0, 0.1, 2.5, -70.0], [0.0, 0.0, 0.0, 1.0]]
)
SHAPE = (6, 8, 10)


@pytest.fixture
def grid() -> Grid:
    return Grid(shape=SHAPE, affine=AFFINE)


@pytest.fixture
def array() -> np.ndarray:
    found = np.zeros(SHAPE, dtype=np.uint8)
    found[1:4, 2:5, 3:8] = 1
    found[4, 6:8, 1:3] = 4
    return found


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Write voxels in (x, y, z) with segments, each (name, label, layer), as Slicer would."""

    def write(voxels: np.ndarray, affine: np.ndarray, segments: Sequence[tuple[str, int, int]]) -> Path:
        path = tmp_path / "saved.seg.nrrd"
        listed = [{"id": f"S{n}", "name": n, "labelValue": v, "layer": y} for n, v, y in segments]
        slicerio.write_segmentation(
            str(path), {"voxels": voxels, "ijkToLPS": LPS @ affine, "segments": listed, "encoding": "gzip"}
        )
        return path

    return write


def test_what_is_written_is_read(tmp_path: Path, grid: Grid, array: np.ndarray) -> None:
    write_volume(tmp_path / "a.nii.gz", array, AFFINE)
    write_segmentation(tmp_path / "a.nii.gz", tmp_path / "a.seg.nrrd", STRUCTURES)
    np.testing.assert_array_equal(read_segmentation(tmp_path / "a.seg.nrrd", grid, STRUCTURES).array, array)
    found = slicerio.read_segmentation(str(tmp_path / "a.seg.nrrd"))
    assert [segment["name"] for segment in found["segments"]] == ["liver", "left kidney"]
    assert found["segments"][0]["color"] == pytest.approx([230 / 255, 159 / 255, 0.0], abs=1e-4)
    assert not list(tmp_path.glob(".*")), "nothing half-written is left"


def test_slicer_crops_turns_and_numbers_as_it_likes(
    grid: Grid, array: np.ndarray, save: Callable[..., Path]
) -> None:
    """Cropped to the segments, first axis the other way round, other label values, other spelling."""
    cropped = array[1:5, 2:8, 1:8].T[::-1]
    voxels = np.where(cropped == 1, 7, np.where(cropped == 4, 2, 0)).astype(np.uint8)
    turn = np.diag([-1.0, 1.0, 1.0, 1.0])
    turn[:3, 3] = [7, 2, 1]
    path = save(voxels, AFFINE @ turn, [("LIVER", 7, 0), ("Left_Kidney", 2, 0)])
    np.testing.assert_array_equal(read_segmentation(path, grid, STRUCTURES).array, array)


def test_layers_that_do_not_overlap_are_put_together(
    grid: Grid, array: np.ndarray, save: Callable[..., Path]
) -> None:
    layers = np.stack([array.T == 1, array.T == 4]).astype(np.uint8)
    path = save(layers, AFFINE, [("liver", 1, 0), ("left kidney", 1, 1)])
    np.testing.assert_array_equal(read_segmentation(path, grid, STRUCTURES).array, array)


def test_an_empty_segment_may_have_any_name(grid: Grid, array: np.ndarray, save: Callable[..., Path]) -> None:
    path = save(np.minimum(array.T, 1), AFFINE, [("liver", 1, 0), ("Segment_3", 9, 0)])
    assert np.count_nonzero(read_segmentation(path, grid, STRUCTURES).array) == np.count_nonzero(array)


@pytest.mark.parametrize(
    ("segments", "affine", "layers", "message"),
    [
        (
            [("spleen", 1, 0)],
            AFFINE,
            1,
            "has a segment 'spleen', which is none of the structures liver, left",
        ),
        ([("liver", 1, 0), ("left kidney", 1, 1)], AFFINE, 2, "voxels in both liver and left kidney"),
        ([("liver", 1, 0)], AFFINE @ np.diag([0.5, 0.5, 0.5, 1.0]), 1, "does not lie on the voxels of its"),
        ([("liver", 1, 0)], AFFINE + np.eye(4)[[0, 1, 2, 3]] * 0.3, 1, "does not lie on the voxels of its"),
        ([("liver", 1, 3)], AFFINE, 1, "expected three axes and layers"),
    ],
)
def test_what_an_annotator_should_mend(
    grid: Grid,
    array: np.ndarray,
    save: Callable[..., Path],
    segments: list[tuple[str, int, int]],
    affine: np.ndarray,
    layers: int,
    message: str,
) -> None:
    voxels = np.stack([(array.T > 0).astype(np.uint8)] * layers) if layers > 1 else np.minimum(array.T, 1)
    with pytest.raises(DataError, match=message):
        read_segmentation(save(voxels, affine, segments), grid, STRUCTURES)


def test_a_segmentation_of_another_scan(grid: Grid, array: np.ndarray, save: Callable[..., Path]) -> None:
    moved = AFFINE.copy()
    moved[:3, 3] += 5.0 * AFFINE[:3, 0]
    with pytest.raises(DataError, match="voxels outside of its image"):
        read_segmentation(save(np.minimum(array.T, 1), moved, [("liver", 1, 0)]), grid, STRUCTURES)


@pytest.mark.parametrize("content", [b"", b"NRRD0004\ntype: float\n", b"PK\x03\x04 no nrrd"])
def test_broken_files(tmp_path: Path, grid: Grid, content: bytes) -> None:
    (tmp_path / "a.seg.nrrd").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.seg\.nrrd"):
        read_segmentation(tmp_path / "a.seg.nrrd", grid, STRUCTURES)


def test_an_empty_file_is_called_one(tmp_path: Path, grid: Grid) -> None:
    (tmp_path / "a.seg.nrrd").touch()
    with pytest.raises(DataError, match=r"of 3D Slicer: the file is empty or ends too early$"):
        read_segmentation(tmp_path / "a.seg.nrrd", grid, STRUCTURES)


def test_a_cut_file(tmp_path: Path, grid: Grid, array: np.ndarray, save: Callable[..., Path]) -> None:
    path = save(array.T, AFFINE, [("liver", 1, 0), ("left kidney", 4, 0)])
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match="cannot be read as a segmentation of 3D Slicer"):
        read_segmentation(path, grid, STRUCTURES)


def test_without_slicerio_the_command_is_named(monkeypatch: pytest.MonkeyPatch, grid: Grid) -> None:
    monkeypatch.setitem(sys.modules, "slicerio", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'sentinel-loop\[slicer\]'"):
        read_segmentation(Path("a.seg.nrrd"), grid, STRUCTURES)


def test_a_folder_hands_them_out_and_takes_them_back(tmp_path: Path, array: np.ndarray) -> None:
    write_volume(tmp_path / "proposal.nii.gz", array, AFFINE)
    folder = Folder(
        folder=tmp_path / "work",
        images={"scan_1": tmp_path / "scan_1.nii.gz"},
        structures=STRUCTURES,
        asked=("scan_1",),
        suffix=".seg.nrrd",
    )
    request = Request(case_id="scan_1", structures=("liver",))
    items = [WorkItem(request=request, proposal=tmp_path / "proposal.nii.gz")]
    folder.send(items)
    handed = tmp_path / "work" / "todo" / "scan_1.seg.nrrd"
    before = handed.stat().st_mtime_ns
    folder.send(items)
    assert handed.stat().st_mtime_ns == before, "somebody may be at work on it"
    assert "done/scan_1.seg.nrrd" in (tmp_path / "work" / "worklist.csv").read_text()
    assert "scan_1.seg.nrrd" in folder.waits_for([request])

    back = tmp_path / "work" / "done" / "scan_1.seg.nrrd"
    back.write_bytes(handed.read_bytes())
    (back.parent / "scan_2.seg.nrrd").write_bytes(b"")
    (returned,) = folder.collect([request]).returned
    assert returned.path == back
    assert "not asked for, so not read: scan_2.seg.nrrd" in folder.waits_for([request])
    place = folder.aside(returned)
    folder.refuse(returned, "no")
    assert place == tmp_path / "work" / "quarantine" / "scan_1_1.seg.nrrd"
    assert read_label_map(tmp_path / "proposal.nii.gz").array.any()
