import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cohort.errors import DataError, GeometryError
from cohort.volume import (
    Grid,
    Volume,
    check_same_grid,
    from_canonical,
    read_grid,
    read_image,
    read_label_map,
    to_canonical,
    volume_id,
    whole_file,
    write_bytes,
    write_volume,
)

SHAPE = (8, 12, 16)
SPACING_MM = (3.0, 1.0, 0.5)
READERS = [read_grid, read_image, read_label_map]
Make = Callable[[int], np.ndarray]


@pytest.fixture
def image_path(tmp_path: Path, affine: np.ndarray, make_image: Make) -> Path:
    path = tmp_path / "scan.nii.gz"
    write_volume(path, make_image(0), affine)
    return path


def header_bytes(path: Path, offset: int, data: bytes) -> None:
    """Overwrite some bytes of the NIfTI header."""
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[offset : offset + len(data)] = data
    path.write_bytes(gzip.compress(bytes(raw)))


@pytest.mark.parametrize("name", ["scan.nii.gz", "scan.nii"])
def test_an_image_comes_back_as_it_was_written(
    tmp_path: Path, affine: np.ndarray, make_image: Make, name: str
) -> None:
    write_volume(tmp_path / name, make_image(1), affine)
    volume, grid = read_image(tmp_path / name), read_grid(tmp_path / name)
    np.testing.assert_array_equal(volume.array, make_image(1))
    assert volume.array.dtype == np.float32
    assert volume.array.flags.c_contiguous
    np.testing.assert_allclose(volume.affine, affine)
    assert grid.shape == SHAPE
    assert grid.spacing_mm == volume.spacing_mm == pytest.approx(SPACING_MM)


def test_the_first_axis_is_z_of_the_file(tmp_path: Path, affine: np.ndarray) -> None:
    array = np.zeros(SHAPE, dtype=np.uint8)
    array[7, 2, 3] = 1
    write_volume(tmp_path / "m.nii.gz", array, affine)
    stored = np.asanyarray(nib.load(tmp_path / "m.nii.gz").dataobj)
    assert stored.shape == (16, 12, 8)
    assert stored[3, 2, 7] == 1
    assert np.argwhere(read_label_map(tmp_path / "m.nii.gz").array).tolist() == [[7, 2, 3]]


def test_the_same_voxels_give_the_same_bytes(tmp_path: Path, affine: np.ndarray, make_image: Make) -> None:
    write_volume(tmp_path / "a.nii.gz", make_image(0), affine)
    write_volume(tmp_path / "b.nii.gz", make_image(0), affine)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_writing_leaves_no_temporary_file(tmp_path: Path) -> None:
    write_bytes(tmp_path / "new" / "a.txt", b"one")
    write_bytes(tmp_path / "new" / "a.txt", b"two")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.txt"]
    assert (tmp_path / "new" / "a.txt").read_bytes() == b"two"


def test_a_file_that_was_not_finished_leaves_what_was_there(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a.txt", b"one")
    with pytest.raises(KeyError, match="stop"), whole_file(tmp_path / "a.txt") as file:
        file.write(b"tw")
        raise KeyError("stop")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_bytes() == b"one"


def test_a_name_that_is_no_nifti_is_refused() -> None:
    with pytest.raises(DataError, match=r"scan\.nrrd is not a NIfTI file"):
        volume_id(Path("scan.nrrd"))


@pytest.mark.parametrize("read", READERS)
def test_a_missing_file_is_named(tmp_path: Path, read: Callable[[Path], object]) -> None:
    with pytest.raises(DataError, match=r"gone\.nii\.gz does not exist"):
        read(tmp_path / "gone.nii.gz")


@pytest.mark.parametrize("read", [read_image, read_label_map])
@pytest.mark.parametrize("kept", [0, 5, 300, -1])
def test_a_truncated_file_is_named(image_path: Path, read: Callable[[Path], object], kept: int) -> None:
    image_path.write_bytes(image_path.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"scan\.nii\.gz cannot be read .* copy it again"):
        read(image_path)


def test_voxels_that_end_too_early_are_noticed(image_path: Path) -> None:
    image_path.write_bytes(gzip.compress(gzip.decompress(image_path.read_bytes())[:1000]))
    with pytest.raises(DataError, match=r"cannot be read .*Expected 6144 bytes, got 648"):
        read_image(image_path)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("content", [b"", b"hello", b"hello" * 200])
def test_a_file_that_is_something_else_is_named(
    image_path: Path, read: Callable[[Path], object], content: bytes
) -> None:
    image_path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        read(image_path)


@pytest.mark.parametrize("read", READERS)
def test_a_header_with_an_unknown_type_of_voxel_is_named(
    image_path: Path, read: Callable[[Path], object]
) -> None:
    header_bytes(image_path, 70, b"\x7f\x7f")
    with pytest.raises(DataError, match=r"cannot be read \(data code 32639 not recognized"):
        read(image_path)


def test_a_flipped_bit_is_noticed(image_path: Path) -> None:
    data = bytearray(image_path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    image_path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="cannot be read"):
        read_image(image_path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_not_finite_are_counted(
    tmp_path: Path, affine: np.ndarray, make_image: Make, bad: float
) -> None:
    array = make_image(0)
    array[2, 3, 4:6] = bad
    write_volume(tmp_path / "scan.nii.gz", array, affine)
    with pytest.raises(DataError, match=r"scan\.nii\.gz has 2 NaN or infinite voxels of 1536"):
        read_image(tmp_path / "scan.nii.gz")


@pytest.mark.parametrize("shape", [(8, 12), (2, 8, 12, 16)])
def test_a_file_that_is_not_three_dimensional_is_refused(
    tmp_path: Path, affine: np.ndarray, shape: tuple[int, ...]
) -> None:
    write_volume(tmp_path / "scan.nii.gz", np.zeros(shape, dtype=np.float32), affine)
    with pytest.raises(DataError, match="expected three dimensions"):
        read_image(tmp_path / "scan.nii.gz")


def test_last_axes_of_one_volume_are_named(tmp_path: Path, affine: np.ndarray) -> None:
    nib.save(nib.Nifti1Image(np.zeros((8, 12, 16, 1, 1), np.float32), affine), tmp_path / "scan.nii.gz")
    with pytest.raises(DataError, match=r"\(8, 12, 16, 1, 1\).*: save it without the last axes"):
        read_image(tmp_path / "scan.nii.gz")


@pytest.mark.parametrize(("unit", "a_millimetre"), [("micron", 1e3), ("meter", 1e-3), ("mm", 1.0), (0, 1.0)])
def test_lengths_are_in_millimetres_whatever_the_header_gives_them_in(
    tmp_path: Path, affine: np.ndarray, make_label_map: Make, unit: str | int, a_millimetre: float
) -> None:
    image = nib.Nifti1Image(make_label_map(0).T, np.diag([*[a_millimetre] * 3, 1.0]) @ affine)
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "scan.nii.gz")
    grid, labels = read_grid(tmp_path / "scan.nii.gz"), read_label_map(tmp_path / "scan.nii.gz")
    np.testing.assert_allclose(grid.affine, affine, rtol=1e-6)
    np.testing.assert_array_equal(labels.affine, grid.affine)
    assert grid.spacing_mm == pytest.approx(SPACING_MM, rel=1e-6)


def test_a_unit_that_nifti_does_not_know_is_millimetres(image_path: Path, affine: np.ndarray) -> None:
    header_bytes(image_path, 123, bytes([7]))
    np.testing.assert_allclose(read_grid(image_path).affine, affine)


def test_an_affine_that_cannot_be_inverted_is_refused(image_path: Path) -> None:
    header_bytes(image_path, 312, bytes(16))  # the affine's third row
    with pytest.raises(GeometryError, match="cannot be inverted"):
        read_grid(image_path)


def test_undeclared_labels_are_listed(tmp_path: Path, affine: np.ndarray, make_label_map: Make) -> None:
    labels = make_label_map(0)
    labels[0, 0, :3] = (7, 9, 2)
    write_volume(tmp_path / "m.nii.gz", labels, affine)
    with pytest.raises(DataError, match=r"holds the labels 7, 9, .*\(declared: 1, 2\)"):
        read_label_map(tmp_path / "m.nii.gz", frozenset({1, 2}))
    np.testing.assert_array_equal(read_label_map(tmp_path / "m.nii.gz").array, labels)


@pytest.mark.parametrize(
    ("value", "message"),
    [(0.5, "fractional voxels"), (np.nan, "NaN or infinite"), (-1.0, "labels from -1"), (300.0, "to 300")],
)
def test_a_label_map_holds_whole_numbers_of_a_byte(
    tmp_path: Path, affine: np.ndarray, value: float, message: str
) -> None:
    array = np.zeros(SHAPE, dtype=np.float32)
    array[1, 2, 3] = value
    write_volume(tmp_path / "m.nii.gz", array, affine)
    with pytest.raises(DataError, match=message):
        read_label_map(tmp_path / "m.nii.gz")


def test_volumes_on_one_grid_pass(affine: np.ndarray, make_image: Make, make_label_map: Make) -> None:
    image = Volume(array=make_image(0), affine=affine)
    nudged = affine.copy()
    nudged[0, 3] += 1e-4
    check_same_grid(image, Volume(array=make_label_map(0), affine=nudged), Path("i"), Path("m"))
    check_same_grid(Grid(shape=SHAPE, affine=affine), image, Path("i"), Path("m"))


def test_another_shape_is_another_grid(affine: np.ndarray) -> None:
    image, mask = Grid(shape=SHAPE, affine=affine), Grid(shape=SHAPE[::-1], affine=affine)
    with pytest.raises(GeometryError, match=r"m has shape \(16, 12, 8\), but its image i has shape \(8, 12"):
        check_same_grid(image, mask, Path("i"), Path("m"))


@pytest.mark.parametrize("place", [(0, 3), (1, 1), (2, 0)])
def test_another_affine_is_another_grid(affine: np.ndarray, place: tuple[int, int]) -> None:
    moved = affine.copy()
    moved[place] += 0.5
    with pytest.raises(GeometryError, match="different affines"):
        check_same_grid(
            Grid(shape=SHAPE, affine=affine), Grid(shape=SHAPE, affine=moved), Path("i"), Path("m")
        )


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)])
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1), (-1, -1, 1)])
def test_canonical_and_back_is_the_same(
    make_image: Make, order: tuple[int, int, int], signs: tuple[int, int, int]
) -> None:
    affine = np.eye(4)
    affine[:3, :3] = (np.diag(signs) @ np.diag(SPACING_MM))[:, list(order)]
    stored = Volume(array=make_image(0), affine=affine)
    canonical = to_canonical(stored)
    assert nib.aff2axcodes(canonical.affine) == ("R", "A", "S")
    np.testing.assert_array_equal(from_canonical(canonical.array, affine, SHAPE), stored.array)


def test_canonical_keeps_every_voxel_in_its_place(affine: np.ndarray) -> None:
    array = np.zeros(SHAPE, dtype=np.uint8)
    array[1, 2, 3] = 1
    canonical = to_canonical(Volume(array=array, affine=affine))
    (z, y, x) = np.argwhere(canonical.array)[0]
    np.testing.assert_allclose(canonical.affine @ [x, y, z, 1], affine @ [3, 2, 1, 1])


def test_an_array_of_another_grid_does_not_turn_back(affine: np.ndarray) -> None:
    with pytest.raises(GeometryError, match="does not turn into the stored"):
        from_canonical(np.zeros((3, 4, 5)), affine, SHAPE)


def test_colour_voxels_are_refused(tmp_path: Path) -> None:
    colour = np.zeros((16, 12, 8), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(colour, np.eye(4)), tmp_path / "colour.nii.gz")
    for read in (read_image, read_label_map):
        with pytest.raises(DataError, match=r"colour\.nii\.gz holds .* voxels \(colour or complex\)"):
            read(tmp_path / "colour.nii.gz")


def test_nifti_2_is_read(tmp_path: Path) -> None:
    stored = np.arange(16 * 12 * 8, dtype=np.int16).reshape(16, 12, 8)
    nib.save(nib.Nifti2Image(stored, np.diag([0.5, 1.0, 3.0, 1.0])), tmp_path / "two.nii.gz")
    volume = read_image(tmp_path / "two.nii.gz")
    assert np.array_equal(volume.array, stored.T)
    assert volume.spacing_mm == SPACING_MM
