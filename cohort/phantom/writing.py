"""The generated cohort on disk, in the layout of the Medical Segmentation Decathlon."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from cohort.case import Shape, Spacing
from cohort.errors import ConfigError, DataError
from cohort.phantom.generation import DEFAULT_SHAPE, DEFAULT_SPACING_MM, check_grid, generate_case
from cohort.phantom.structures import STRUCTURES
from cohort.volume import write_bytes, write_volume

VERSION = 1
"""Of the generator: raised when the same parameters give other voxels."""

_RECORD = "phantom.json"
_Parameters = Mapping[str, int | list[int] | list[float]]


def write_phantom(
    root: Path,
    *,
    cases: int,
    held_out: int,
    seed: int,
    shape: Shape = DEFAULT_SHAPE,
    spacing_mm: Spacing = DEFAULT_SPACING_MM,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the cohort; go on where an earlier call with the same parameters was stopped.

    `dataset.json` is written last, so a folder that has one is whole.

    Args:
        root: folder to write, made if need be.
        cases: number of cases in all, 1 or more.
        held_out: how many of them `splits.json` holds out (the last ones), 0 or more and fewer than `cases`.
        seed: of the cohort.
        shape: (D, H, W) voxels of every case.
        spacing_mm: (D, H, W).
        progress: called with the number of cases that are there and the number in all.

    Raises:
        ConfigError: for numbers that make no cohort.
        DataError: if the folder holds a cohort with other parameters, or another data set.
    """
    check_grid(shape, spacing_mm)
    if cases < 1 or not 0 <= held_out < cases:
        raise ConfigError(
            f"A phantom of {cases} cases with {held_out} held out cannot be made; expected at least one "
            "case, and at least one that is not held out"
        )
    parameters: _Parameters = {
        "version": VERSION,
        "seed": seed,
        "cases": cases,
        "held_out": held_out,
        "shape": [int(size) for size in shape],
        "spacing_mm": [float(size) for size in spacing_mm],
    }
    _claim(root, parameters)
    ids = [f"phantom_{index:03d}" for index in range(cases)]
    for index, case_id in enumerate(ids):
        _write_case(root, index, case_id, seed, shape, spacing_mm)
        if progress is not None:
            progress(index + 1, cases)
    note = "The last cases of the generated cohort, in order: take the first n. Cases are independent draws."
    _write_json(root / "splits.json", {"note": note, "held_out": ids[cases - held_out :]})
    _write_json(root / "dataset.json", _description(ids, parameters))


def _claim(root: Path, parameters: _Parameters) -> None:
    """Check that the folder is empty or holds this very cohort, and note the parameters in it."""
    dataset, record = root / "dataset.json", root / _RECORD
    if dataset.is_file():
        found = _read_json(dataset).get("phantom")
    elif record.is_file():
        found = _read_json(record)
    elif any((root / folder).is_dir() for folder in ("imagesTr", "labelsTr")):
        found = None
    else:
        found = parameters
    if found is None:
        raise DataError(f"{root} holds another data set; choose an empty folder for the phantom")
    if found != parameters:
        raise DataError(
            f"{root} holds a phantom made with {json.dumps(found)}, asked for {json.dumps(parameters)}; "
            "choose another folder or delete this one"
        )
    if not record.is_file():
        _write_json(record, parameters)


def _write_case(root: Path, index: int, case_id: str, seed: int, shape: Shape, spacing_mm: Spacing) -> None:
    image_path = root / "imagesTr" / f"{case_id}.nii.gz"
    label_path = root / "labelsTr" / f"{case_id}.nii.gz"
    if image_path.is_file() and label_path.is_file():
        return
    image, labels = generate_case(index, seed=seed, shape=shape, spacing_mm=spacing_mm)
    write_volume(image_path, image.array.astype(np.int16), image.affine)
    write_volume(label_path, labels.array, labels.affine)


def _description(ids: list[str], parameters: _Parameters) -> Mapping[str, object]:
    labels = {"0": "background"} | {str(s.label): s.name for s in STRUCTURES}
    training = [
        {"image": f"./imagesTr/{case_id}.nii.gz", "label": f"./labelsTr/{case_id}.nii.gz"} for case_id in ids
    ]
    return {
        "name": "Phantom",
        "description": "Generated multi-organ abdominal CT; no patient was scanned for it",
        "licence": "CC0 1.0 (generated)",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": labels,
        "numTraining": len(ids),
        "numTest": 0,
        "training": training,
        "phantom": parameters,
    }


def _read_json(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read as JSON ({error}); delete it and write the phantom again"
        ) from error
    if not isinstance(content, dict):
        raise DataError(
            f"{path} holds a {type(content).__name__}, expected an object; delete it and write again"
        )
    return content


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    write_bytes(path, (json.dumps(content, indent=1) + "\n").encode())
