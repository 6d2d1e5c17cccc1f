"""NIfTI volumes in and out, with the checks that keep a broken scan from going any further.

Arrays are (D, H, W) = (z, y, x) as stored; affines are NIfTI's, from voxel (x, y, z) to world millimetres,
whatever unit the header gives them in.
"""

import os
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from cohort.case import Shape, Spacing
from cohort.errors import DataError, GeometryError

Array = NDArray[Any]
Affine = NDArray[np.float64]

SUFFIXES = (".nii.gz", ".nii")
_AFFINE_TOLERANCE_MM = 1e-2
_UNITS_MM = {"meter": 1e3, "micron": 1e-3}
_NIFTI2_SIZES = (b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c")
_BROKEN_FILE: tuple[type[Exception], ...] = (
    EOFError,
    OSError,
    ValueError,
    zlib.error,
    cast("type[Exception]", isal_zlib.error),
    ImageFileError,
    HeaderDataError,
    WrapStructError,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Volume:
    """Voxels of one scan or mask on their grid.

    Args:
        array: (D, H, W), float32 for images and uint8 for label maps.
        affine: (4, 4), voxel (x, y, z) -> world in mm.
    """

    array: Array
    affine: Affine

    @property
    def spacing_mm(self) -> Spacing:
        """Voxel size in (D, H, W)."""
        return affine_spacing_mm(self.affine)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grid:
    """Where the voxels of a file lie, read from its header alone."""

    shape: Shape
    affine: Affine

    @property
    def spacing_mm(self) -> Spacing:
        """Voxel size in (D, H, W)."""
        return affine_spacing_mm(self.affine)


def affine_spacing_mm(affine: Affine) -> Spacing:
    """Voxel size in (D, H, W) of a NIfTI affine.

    >>> affine_spacing_mm(np.diag([0.5, 1.0, 3.0, 1.0]))
    (3.0, 1.0, 0.5)
    """
    x, y, z = (float(size) for size in np.sqrt((affine[:3, :3] ** 2).sum(axis=0)))
    return (z, y, x)


def volume_id(path: Path) -> str:
    """File name without .nii or .nii.gz.

    >>> volume_id(Path("imagesTr/pt_1.nii.gz"))
    'pt_1'
    """
    for suffix in SUFFIXES:
        if path.name.endswith(suffix):
            return path.name[: -len(suffix)]
    raise DataError(f"{path} is not a NIfTI file: expected a name that ends in .nii.gz or .nii")


def read_grid(path: Path) -> Grid:
    """Read shape and affine of a NIfTI file without its voxels.

    Raises:
        DataError: if the file is missing, no NIfTI file, or not three-dimensional.
    """
    with _named_failures(path):
        image = nib.load(path)
    return _grid(image, path)


def read_image(path: Path) -> Volume:
    """Read an image as float32.

    Raises:
        DataError: if the file is missing, truncated, not three-dimensional, or has NaN or infinite voxels.
    """
    image = _load(path)
    grid = _grid(image, path)
    with _named_failures(path):
        array = np.ascontiguousarray(image.get_fdata(dtype=np.float32, caching="unchanged").T)
    finite = np.isfinite(array)
    if not finite.all():
        count = int(array.size - finite.sum())
        raise DataError(
            f"{path} has {count} NaN or infinite voxels of {array.size}; expected finite intensities: "
            "repair the scan or take it out of the data set"
        )
    return Volume(array=array, affine=grid.affine)


def read_label_map(path: Path, labels: frozenset[int] | None = None) -> Volume:
    """Read a label map as uint8.

    Args:
        path: of the NIfTI file.
        labels: the declared labels; background 0 is always allowed. None allows 0 to 255.

    Raises:
        DataError: if the file is missing, truncated, not three-dimensional, or holds anything but declared
            whole numbers.
    """
    image = _load(path)
    grid = _grid(image, path)
    with _named_failures(path):
        stored = np.asanyarray(image.dataobj)
    array = _as_labels(stored, path)
    if labels is not None:
        unknown = undeclared_labels(array, labels)
        if unknown:
            raise DataError(
                f"{path} holds the labels {_listed(unknown)}, which the data set does not declare "
                f"(declared: {_listed(sorted(labels))}); declare them or correct the label map"
            )
    return Volume(array=np.ascontiguousarray(array.T), affine=grid.affine)


def undeclared_labels(array: Array, labels: Collection[int]) -> list[int]:
    """Labels of a label map that are neither declared nor background, in their order.

    Args:
        array: uint8.
        labels: that are declared.
    """
    found = set(np.flatnonzero(np.bincount(array.ravel(), minlength=256)).tolist())
    return sorted(found.difference(labels, {0}))


def check_same_grid(image: Volume | Grid, mask: Volume | Grid, image_path: Path, mask_path: Path) -> None:
    """Refuse a mask that does not lie on its image's grid.

    Raises:
        GeometryError: if shapes differ, or affines by more than 0.01 mm anywhere in the volume.
    """
    image_shape, mask_shape = _shape(image), _shape(mask)
    if image_shape != mask_shape:
        raise GeometryError(
            f"{mask_path} has shape {mask_shape}, but its image {image_path} has shape "
            f"{image_shape} (D, H, W); both must lie on one grid: resample the mask to the image"
        )
    far_corner = np.array([*image_shape[::-1], 1.0])
    shift = np.abs(image.affine - mask.affine) @ far_corner
    if float(shift.max()) > _AFFINE_TOLERANCE_MM:
        raise GeometryError(
            f"{mask_path} and its image {image_path} have different affines "
            f"(up to {shift.max():.3g} mm apart); both must lie on one grid: resample the mask or correct "
            "its header"
        )


def write_volume(path: Path, array: Array, affine: Affine) -> None:
    """Write (D, H, W) voxels as NIfTI, atomically; the same input gives the same bytes."""
    image = nib.Nifti1Image(np.ascontiguousarray(array).T, affine)
    image.header.set_xyzt_units("mm")
    raw = image.to_bytes()
    data = igzip.compress(raw, compresslevel=1, mtime=0) if path.name.endswith(".gz") else raw
    write_bytes(path, data)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, flush it to disk, and rename it: it is whole or not there."""
    with whole_file(path) as file:
        file.write(data)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write piece by piece as `write_bytes` does; an error in the block leaves what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def to_canonical(volume: Volume) -> Volume:
    """Flip and transpose to the closest canonical orientation (RAS+), without resampling."""
    image = nib.Nifti1Image(volume.array.T, volume.affine)
    turned = nib.as_closest_canonical(image)
    return Volume(
        array=np.ascontiguousarray(np.asanyarray(turned.dataobj).T),
        affine=np.asarray(turned.affine, dtype=np.float64),
    )


def from_canonical(array: Array, stored: Affine, stored_shape: Shape) -> Array:
    """Put a canonical (D, H, W) array back on the grid that it was stored on.

    Args:
        array: voxels in canonical orientation.
        stored: affine of the file, before `to_canonical`.
        stored_shape: (D, H, W) of the file.
    """
    to_ras = nib.io_orientation(stored)
    back = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), to_ras)
    turned = nib.orientations.apply_orientation(array.T, back).T
    if turned.shape != stored_shape:
        raise GeometryError(f"An array of shape {array.shape} does not turn into the stored {stored_shape}")
    return np.ascontiguousarray(turned)


def _shape(volume: Volume | Grid) -> Shape:
    if isinstance(volume, Grid):
        return volume.shape
    depth, height, width = volume.array.shape
    return (depth, height, width)


def _load(path: Path) -> Any:
    if not path.is_file():
        raise DataError(f"{path} does not exist; expected a NIfTI file there")
    with _named_failures(path):
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = igzip.decompress(data)
        kind = nib.Nifti2Image if data[:4] in _NIFTI2_SIZES else nib.Nifti1Image
        image = kind.from_bytes(data)
    if image.get_data_dtype().kind not in "biuf":
        raise DataError(
            f"{path} holds {image.get_data_dtype()} voxels (colour or complex); expected one real number each"
        )
    return image


def _grid(image: Any, path: Path) -> Grid:
    shape = tuple(int(size) for size in image.shape)
    if len(shape) != 3 or 0 in shape:
        single = len(shape) > 3 and set(shape[3:]) == {1}
        advice = ": save it without the last axes, which hold one volume" if single else ""
        raise DataError(f"{path} has shape {shape}; expected three dimensions, none of them empty{advice}")
    affine = np.asarray(image.affine, dtype=np.float64)
    affine = np.diag([*[_millimetres(image.header)] * 3, 1.0]) @ affine
    if not np.isfinite(affine).all() or abs(float(np.linalg.det(affine[:3, :3]))) < 1e-12:
        raise GeometryError(f"{path} has an affine that cannot be inverted; correct its header")
    return Grid(shape=(shape[2], shape[1], shape[0]), affine=affine)


def _millimetres(header: Any) -> float:
    """Length of the unit of a header; 1 where it names none that NIfTI knows."""
    try:
        unit = header.get_xyzt_units()[0]
    except (AttributeError, KeyError):
        return 1.0
    return _UNITS_MM.get(unit, 1.0)


def _as_labels(stored: Array, path: Path) -> NDArray[np.uint8]:
    if not np.isfinite(stored).all():
        raise DataError(f"{path} has NaN or infinite voxels; expected whole numbers from 0 to 255")
    if stored.dtype.kind == "f" and not np.array_equal(stored, np.rint(stored)):
        raise DataError(f"{path} has fractional voxels; a label map holds whole numbers from 0 to 255")
    if stored.min() < 0 or stored.max() > 255:
        raise DataError(
            f"{path} has labels from {stored.min()} to {stored.max()}; expected whole numbers from 0 to 255"
        )
    return stored.astype(np.uint8)


def _listed(labels: list[int]) -> str:
    return ", ".join(str(label) for label in labels)


class _named_failures:  # noqa: N801
    """Turn what nibabel and gzip raise into a DataError that names the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, FileNotFoundError):
            raise DataError(f"{self._path} does not exist; expected a NIfTI file there") from error
        if isinstance(error, _BROKEN_FILE):
            raise DataError(
                f"{self._path} cannot be read ({error}); it may be truncated or no NIfTI file: copy it again"
            ) from error
