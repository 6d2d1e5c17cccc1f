"""What goes to somebody else's program and what comes back: images and label maps in, masks out."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from isal import igzip
from numpy.typing import NDArray

from cohort.case import Structure
from cohort.errors import ConfigError, DataError, ModelError
from cohort.records import TrainingCase
from cohort.volume import (
    SUFFIXES,
    Volume,
    check_same_grid,
    read_image,
    read_label_map,
    write_bytes,
    write_volume,
)
from segmenters.command_config import CommandConfig, Source

COHORT_FILE = "cohort.json"
"""Beside the label maps of a training: the structures' labels, and what each label map answers for."""


@contextmanager
def bench(out: Path) -> Iterator[Path]:
    """An empty hidden folder in `out` for the files that a program reads and writes; gone after the block."""
    clear_bench(out)
    folder = _bench_folder(out)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        _remove(folder)


def clear_bench(out: Path) -> None:
    """Remove what a run that was killed left there."""
    _remove(_bench_folder(out))


def _bench_folder(out: Path) -> Path:
    return (out / ".command").resolve()


def offer_image(image: Path, case_id: str, folder: Path) -> Path:
    """Put an image into a folder as `<case_id>.nii.gz`, without copying where the file system lets it.

    Symbolic links would lead nowhere inside of a container, so it is a hard link or a copy.

    Raises:
        DataError: if the image is missing or broken.
    """
    read_image(image)
    offered = folder / f"{case_id}.nii.gz"
    folder.mkdir(parents=True, exist_ok=True)
    if not image.name.endswith(".gz"):
        write_bytes(offered, igzip.compress(image.read_bytes(), compresslevel=1, mtime=0))
        return offered
    try:
        os.link(image.resolve(), offered)
    except OSError:
        shutil.copyfile(image, offered)
    return offered


def offer_label_map(case: TrainingCase, structures: Sequence[Structure], folder: Path) -> None:
    """Write the annotation of a training case as `<case_id>.nii.gz`; what it does not answer for is 0.

    Raises:
        DataError: if a file is missing or broken, or a label is not declared.
        GeometryError: if the label map does not lie on the image's grid.
    """
    labels = read_label_map(case.label_map, frozenset(structure.label for structure in structures))
    check_same_grid(read_image(case.image), labels, case.image, case.label_map)
    table = np.zeros(256, dtype=np.uint8)
    for structure in structures:
        if structure.name in case.annotated:
            table[structure.label] = structure.label
    write_volume(folder / f"{case.case_id}.nii.gz", table[labels.array], labels.affine)


def write_cohort_file(cases: Sequence[TrainingCase], structures: Sequence[Structure], folder: Path) -> None:
    """Say beside the label maps what their labels mean, and which structures each of them answers for."""
    values = {
        "labels": {structure.name: structure.label for structure in structures},
        "annotated": {case.case_id: sorted(case.annotated) for case in cases},
    }
    write_bytes(folder / COHORT_FILE, json.dumps(values, indent=1).encode())


def resolve_sources(
    config: CommandConfig, structures: Sequence[Structure]
) -> dict[Structure, tuple[Source, ...]]:
    """What means each structure of the cohort in the program's output.

    Raises:
        ConfigError: if `labels` names a structure that the cohort does not have, or one source means two.
    """
    known = {structure.name for structure in structures}
    strange = sorted(set(config.labels) - known)
    if strange:
        raise ConfigError(f"labels names {strange}, but the structures of the cohort are {sorted(known)}")
    found: dict[Structure, tuple[Source, ...]] = {}
    taken: dict[Source, str] = {}
    for structure in structures:
        own: Source = structure.label if config.masks == "label_map" else structure.name
        named = config.sources(structure.name)
        found[structure] = (own,) if named is None else named
        for source in found[structure]:
            if source in taken:
                raise ConfigError(
                    f"{source!r} in the output of {config.architecture} means both {taken[source]!r} and "
                    f"{structure.name!r}; set labels so that each structure has its own"
                )
            taken[source] = structure.name
    return found


def check_all_written(config: CommandConfig, folder: Path, case_ids: Sequence[str]) -> None:
    """Refuse the output of a program that left cases out.

    Raises:
        ModelError: naming them, what was expected and what is there.
    """
    missing = [case_id for case_id in case_ids if _written(config, folder, case_id) is None]
    if missing:
        expected = "<case_id>.nii.gz" if config.masks == "label_map" else "<case_id>/<structure>.nii.gz"
        there = ", ".join(sorted(path.name for path in folder.iterdir())[:10]) or "nothing"
        raise ModelError(
            f"The program {config.architecture} ended well but wrote no mask of {', '.join(missing)}; "
            f"expected {expected} in its output folder, where there is: {there}"
        )


def read_masks(
    config: CommandConfig,
    sources: Mapping[Structure, tuple[Source, ...]],
    folder: Path,
    case_id: str,
    image: Volume,
    image_path: Path,
) -> NDArray[np.uint8]:
    """What the program says of a case, as a label map of the cohort on the image's grid.

    Where masks of several structures overlap, the voxel is that of the structure that comes first.

    Raises:
        DataError: if a file is missing or broken, or holds a label that is no structure's.
        GeometryError: if a mask does not lie on the image's grid.
    """
    written = _written(config, folder, case_id)
    if written is None:
        raise ModelError(f"There is no mask of case {case_id} in {folder}")
    if config.masks == "label_map":
        return _from_label_map(config, sources, written, image, image_path)
    labels = np.zeros(image.array.shape, dtype=np.uint8)
    for structure, names in sources.items():
        for name in names:
            mask = _read_on_grid(config, _mask_file(written, str(name), case_id), image, image_path)
            labels[(mask > 0) & (labels == 0)] = structure.label
    return labels


def _from_label_map(
    config: CommandConfig,
    sources: Mapping[Structure, tuple[Source, ...]],
    path: Path,
    image: Volume,
    image_path: Path,
) -> NDArray[np.uint8]:
    found = _read_on_grid(config, path, image, image_path)
    table = np.zeros(256, dtype=np.uint8)
    for structure, labels in sources.items():
        table[[int(label) for label in labels]] = structure.label
    unknown = [int(label) for label in np.unique(found) if label and not table[label]]
    if unknown and config.unmapped == "refuse":
        raise DataError(
            f"{path.name}, which {config.architecture} wrote, holds the labels {unknown}, which are no "
            "structure of the cohort; name them in labels, or set unmapped to background to ignore them"
        )
    return table[found]


def _read_on_grid(config: CommandConfig, path: Path, image: Volume, image_path: Path) -> NDArray[np.uint8]:
    try:
        mask = read_label_map(path)
        check_same_grid(image, mask, image_path, path)
    except DataError as error:
        raise type(error)(
            f"{error}. {config.architecture} wrote that file, which is removed: to look at what it writes, "
            f"run it on {image_path} by hand"
        ) from error
    return np.asarray(mask.array, dtype=np.uint8)


def _written(config: CommandConfig, folder: Path, case_id: str) -> Path | None:
    if config.masks == "per_structure":
        found = folder / case_id
        return found if found.is_dir() and any(found.iterdir()) else None
    return _volume_file(folder, case_id)


def _mask_file(folder: Path, name: str, case_id: str) -> Path:
    found = _volume_file(folder, name)
    if found is None:
        there = ", ".join(sorted(path.name for path in folder.iterdir())[:10])
        raise DataError(
            f"The program wrote no mask {name}.nii.gz of case {case_id} (it wrote {there}); give the mask's "
            "name in labels, or an empty list for a structure that the program does not know"
        )
    return found


def _volume_file(folder: Path, name: str) -> Path | None:
    files = (folder / f"{name}{suffix}" for suffix in SUFFIXES)
    return next((path for path in files if path.is_file()), None)


def _remove(folder: Path) -> None:
    if not folder.exists():
        return
    try:
        shutil.rmtree(folder)
    except PermissionError as error:
        raise ModelError(
            f"{folder} cannot be removed ({error}); a container that runs as another user may own its files: "
            "remove it, and run the container as yourself (docker run --user)"
        ) from error
