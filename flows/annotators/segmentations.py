"""Segmentations of 3D Slicer (.seg.nrrd) as label maps, and the other way round, through slicerio.

Slicer crops what it saves to the segments, turns axes as it likes, gives a segment any number, and lets
segments overlap. What is read is put onto the grid of the image by where its voxels lie, and named by its
segments.
"""

import importlib
import importlib.util
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cohort.case import Structure
from cohort.errors import DataError, MissingExtraError
from cohort.volume import Affine, Grid, Volume, read_label_map
from flows.annotators.label_tables import coloured

SUFFIX = ".seg.nrrd"
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""NIfTI counts to the right and to the front, NRRD to the left and to the back."""
_TOLERANCE = 0.05
"""Of a voxel, in which a segmentation may lie beside the image's grid."""


def require_slicerio() -> None:
    """Say what to install where it is missing.

    Raises:
        MissingExtraError: naming the command.
    """
    if importlib.util.find_spec("slicerio") is None:
        raise MissingExtraError("Reading and writing segmentations of 3D Slicer (.seg.nrrd)", "slicer")


def write_segmentation(source: Path, target: Path, structures: Sequence[Structure]) -> None:
    """Write a label map as a segmentation with a named and coloured segment for each structure, atomically.

    Args:
        source: label map, NIfTI.
        target: ends in .seg.nrrd.
        structures: of the label map; one without a voxel becomes an empty segment.

    Raises:
        DataError: for a label map that cannot be read.
        MissingExtraError: where slicerio is not installed.
    """
    label_map = read_label_map(source)
    segments = [
        {
            "id": f"Segment_{structure.label}",
            "name": structure.name,
            "labelValue": structure.label,
            "layer": 0,
            "color": [channel / 255.0 for channel in colour],
        }
        for structure, colour in coloured(structures)
    ]
    partial = target.with_name(f".{target.name.removesuffix(SUFFIX)}.tmp{SUFFIX}")
    _slicerio().write_segmentation(
        str(partial),
        {
            "voxels": np.asfortranarray(label_map.array.T),
            "ijkToLPS": _LPS @ label_map.affine,
            "encoding": "gzip",
            "containedRepresentationNames": ["Binary labelmap"],
            "segments": segments,
        },
    )
    partial.replace(target)


def read_segmentation(path: Path, grid: Grid, structures: Sequence[Structure]) -> Volume:
    """Read a segmentation as a label map on the grid of an image.

    Args:
        path: of the .seg.nrrd file.
        grid: of the image that was segmented.
        structures: that segments may be named after; case, spaces and underscores do not matter.

    Returns:
        uint8 label map on the grid.

    Raises:
        DataError: for a file that is broken or is no segmentation, whose voxels are no voxels of the image,
            with a segment of another name that is not empty, or with segments that overlap.
        MissingExtraError: where slicerio is not installed.
    """
    found = _read(path)
    layers, to_grid = _layers(found, path), np.linalg.inv(grid.affine) @ _LPS @ np.asarray(found["ijkToLPS"])
    by_name = {plain(structure.name): structure for structure in structures}
    array = np.zeros(grid.shape, dtype=np.uint8)
    for segment in found["segments"]:
        name = str(segment.get("name", segment.get("id", "")))
        filled = np.argwhere(layers[int(segment.get("layer", 0))] == int(segment["labelValue"]))
        if not len(filled):
            continue
        if plain(name) not in by_name:
            known = ", ".join(structure.name for structure in structures)
            raise DataError(
                f"{path} has a segment {name!r}, which is none of the structures {known}; rename or remove it"
            )
        voxels = _places(filled, to_grid, grid, path)
        taken = array[voxels]
        if taken.any():
            other = next(s.name for s in structures if s.label == taken.max())
            raise DataError(
                f"{path} has {np.count_nonzero(taken)} voxels in both {other} and {name}; segments must not "
                "overlap (in Slicer: Masking > Modify other segments > Overwrite all)"
            )
        array[voxels] = by_name[plain(name)].label
    return Volume(array=array, affine=grid.affine)


def _read(path: Path) -> Mapping[str, Any]:
    slicerio = _slicerio()
    broken: tuple[type[Exception], ...] = (
        OSError,
        ValueError,
        LookupError,
        EOFError,
        StopIteration,  # of an empty file
        zlib.error,
        importlib.import_module("nrrd").NRRDError,
    )
    try:
        found: Mapping[str, Any] = slicerio.read_segmentation(str(path))
    except broken as error:
        why = str(error) or "the file is empty or ends too early"
        raise DataError(f"{path} cannot be read as a segmentation of 3D Slicer: {why}") from error
    missing = [key for key in ("voxels", "ijkToLPS", "segments") if key not in found]
    if missing or not all("labelValue" in segment for segment in found["segments"]):
        raise DataError(
            f"{path} is no segmentation of 3D Slicer (it names no segments); save the segmentation node as "
            f"{SUFFIX}, or a label map as .nii.gz"
        )
    return found


def _layers(found: Mapping[str, Any], path: Path) -> NDArray[np.integer[Any]]:
    """(layers, x, y, z)."""
    voxels = np.asarray(found["voxels"])
    layers = voxels[None] if voxels.ndim == 3 else voxels
    last = max((int(segment.get("layer", 0)) for segment in found["segments"]), default=0)
    if layers.ndim != 4 or last >= len(layers):
        raise DataError(f"{path} has voxels of the shape {voxels.shape}; expected three axes and layers")
    return layers


def _places(
    filled: NDArray[np.integer[Any]], to_grid: Affine, grid: Grid, path: Path
) -> tuple[NDArray[np.int64], ...]:
    """(N, 3) voxels of the file in (x, y, z) -> indices in (D, H, W) of the grid."""
    exact = filled @ to_grid[:3, :3].T + to_grid[:3, 3]
    nearest = np.rint(exact).astype(np.int64)
    beside = np.abs(exact - nearest).max() > _TOLERANCE or abs(abs(np.linalg.det(to_grid)) - 1.0) > _TOLERANCE
    if beside:
        raise DataError(
            f"{path} does not lie on the voxels of its image; in Slicer, choose the image as the source "
            "volume of the segmentation, without oversampling"
        )
    outside = ((nearest < 0) | (nearest >= np.array(grid.shape[::-1]))).any(axis=1)
    if outside.any():
        raise DataError(
            f"{path} has {np.count_nonzero(outside)} voxels outside of its image; is it of another one?"
        )
    return tuple(nearest.T[::-1])


def plain(name: str) -> str:
    """A name as people type it.

    >>> plain("Left_Kidney ")
    'left kidney'
    """
    return " ".join(name.replace("_", " ").lower().split())


def _slicerio() -> Any:
    require_slicerio()
    return importlib.import_module("slicerio")
