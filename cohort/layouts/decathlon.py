"""Medical Segmentation Decathlon: `dataset.json` beside the folders of images and label maps.

Beyond the Decathlon, three optional additions are read: `annotated_structures` in dataset.json says which
structures were contoured in which case, `splits.json` holds cases out, `patients.csv` names the patients.
"""

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from cohort.case import Dataset, Structure, check_case_id
from cohort.errors import DataError
from cohort.layouts.cases import Files, read_cases
from cohort.layouts.documents import Document, as_list, as_object, as_text, check_known_ids, read_json
from cohort.layouts.patients import read_patients
from cohort.volume import volume_id

_PARTIAL = re.compile(r"partial (0(?:\.\d+)?|1(?:\.0+)?|\.\d+)")


def read(root: Path) -> Dataset:
    """Read a data set in the Decathlon layout. Only headers of images are opened, never voxels.

    `training` lists {"image": ..., "label": ...}, or an image's path alone. An entry without a label, or
    whose label file is not there, is a case without reference. `test` is not read: its cases have no
    labels and no part in a campaign; list them under `training` to have them selected. Where
    `annotated_structures` is present, a structure that it does not list for a case was not contoured
    there; where it is absent, every label map answers for all structures.

    Args:
        root: folder that holds dataset.json.

    Raises:
        DataError: naming the file, if anything is missing, twice, malformed or outside the folder.
    """
    if not root.is_dir():
        raise DataError(f"The data set's folder {root} does not exist; expected a folder with dataset.json")
    path = root / "dataset.json"
    document = read_json(path)
    structures = _structures(document, path)
    files = _files(document, root, path)
    patients = read_patients(root, files.keys())
    annotated = _annotated(document, path, files, structures)
    return Dataset(
        name=as_text(document.get("name", root.resolve().name), path, "'name'"),
        structures=structures,
        cases=read_cases(files, patients, annotated),
        held_out=_held_out(root / "splits.json", files),
        modality=_modality(document, path),
        patients_known=bool(patients),
    )


def _structures(document: Document, path: Path) -> tuple[Structure, ...]:
    labels = as_object(document.get("labels"), path, "'labels'")
    structures = []
    for key, name in labels.items():
        if not key.isdecimal():
            raise DataError(
                f"{path}: 'labels' has the key {key!r}; expected whole numbers with names as their values, "
                'for example {"0": "background", "1": "liver"}'
            )
        if int(key) != 0:
            text = as_text(name, path, f"label {key}")
            structures.append(Structure(name=text, label=int(key)))
    if not structures:
        raise DataError(f"{path}: 'labels' declares no structure besides the background")
    return tuple(sorted(structures, key=lambda structure: structure.label))


def _files(document: Document, root: Path, path: Path) -> Files:
    files: dict[str, tuple[Path, Path | None]] = {}
    for number, entry in enumerate(as_list(document.get("training"), path, "'training'")):
        image, label = _entry(entry, root, path, f"entry {number} of 'training'")
        case_id = volume_id(image)
        try:
            check_case_id(case_id)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
        if case_id in files:
            raise DataError(f"{path} lists the case {case_id!r} twice; every case id must be unique")
        if not image.is_file():
            raise DataError(
                f"{path} lists the image {image}, which does not exist; copy it or remove the case"
            )
        files[case_id] = (image, label)
    if not files:
        raise DataError(f"{path}: 'training' lists no case")
    return files


def _entry(entry: object, root: Path, path: Path, what: str) -> tuple[Path, Path | None]:
    if isinstance(entry, str):
        return _inside(entry, root, path, what), None
    fields = as_object(entry, path, what)
    image = _inside(as_text(fields.get("image"), path, f"'image' of {what}"), root, path, what)
    if fields.get("label") is None:
        return image, None
    label = _inside(as_text(fields["label"], path, f"'label' of {what}"), root, path, what)
    return image, label if label.is_file() else None


def _inside(text: str, root: Path, path: Path, what: str) -> Path:
    relative = PurePosixPath(text.replace("\\", "/"))
    if relative.is_absolute() or ".." in relative.parts:
        raise DataError(
            f"{path}: {what} points to {text!r}, outside the data set; expected a path below {root}"
        )
    return root / relative


def _annotated(
    document: Document, path: Path, files: Files, structures: tuple[Structure, ...]
) -> Mapping[str, Mapping[str, float]]:
    """Case id -> structure -> fraction in the field of view, for the cases that have a label map."""
    labelled = [case_id for case_id, (_, label) in files.items() if label is not None]
    if "annotated_structures" not in document:
        return {case_id: {s.name: 1.0 for s in structures} for case_id in labelled}
    listed = as_object(document["annotated_structures"], path, "'annotated_structures'")
    check_known_ids(listed.keys(), files.keys(), path, "'annotated_structures'")
    names = {s.name for s in structures}
    annotated: dict[str, dict[str, float]] = {case_id: {} for case_id in labelled}
    for case_id, values in listed.items():
        what = f"'annotated_structures' of {case_id}"
        fractions = {
            name: _fraction(value, path, f"{name!r} in {what}")
            for name, value in as_object(values, path, what).items()
        }
        undeclared = sorted(fractions.keys() - names)
        if undeclared:
            raise DataError(f"{path}: {what} names {undeclared[0]!r}, which 'labels' does not declare")
        if case_id in annotated:
            annotated[case_id] = fractions
    return annotated


def _fraction(value: object, path: Path, what: str) -> float:
    if value == "complete":
        return 1.0
    match = _PARTIAL.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise DataError(f"{path}: {what} is {value!r}; expected 'complete' or, for example, 'partial 0.62'")
    return float(match.group(1))


def _held_out(path: Path, files: Files) -> tuple[str, ...]:
    if not path.is_file():
        return ()
    listed = as_list(read_json(path).get("held_out", []), path, "'held_out'")
    held_out = tuple(as_text(case_id, path, "an id of 'held_out'") for case_id in listed)
    check_known_ids(held_out, files.keys(), path, "'held_out'")
    if len(set(held_out)) != len(held_out):
        raise DataError(f"{path}: 'held_out' names a case twice; every case id must be unique")
    return held_out


def _modality(document: Document, path: Path) -> str:
    if "modality" not in document:
        return ""
    named = {str(name) for name in as_object(document["modality"], path, "'modality'").values()}
    if named == {"CT"}:
        return "CT"
    return "MR" if named and all(name.upper().startswith("MR") for name in named) else ""
