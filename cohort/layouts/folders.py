"""Plain folders of labelled, unlabelled and held-out cases, each with `images/` and perhaps `labels/`.

nnU-Net's names are understood too: `imagesTr/`, `labelsTr/`, and `_0000` at the end of an image's name.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cohort.case import Case, Dataset, Structure, check_case_id
from cohort.errors import DataError
from cohort.layouts.cases import read_cases, volumes_in
from cohort.layouts.patients import read_patients

_IMAGES = ("images", "imagesTr")
_LABELS = ("labels", "labelsTr")
_CHANNEL = "_0000"


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderSplit:
    """A data set whose folders say what each case is for.

    Args:
        dataset: all cases of all folders; its `held_out` is the one below.
        labelled: ids of the start set, ascending.
        unlabelled: ids to select from, ascending.
        held_out: ids to evaluate on, ascending.
    """

    dataset: Dataset
    labelled: tuple[str, ...]
    unlabelled: tuple[str, ...]
    held_out: tuple[str, ...]


def read(
    labelled: Path, unlabelled: Path | None, held_out: Path | None, structures: Mapping[str, int]
) -> FolderSplit:
    """Read up to three folders. Only headers of images are opened, never voxels.

    Label maps answer for all structures. Each folder may hold a `patients.csv`; patients are known where
    every folder has one. Label maps of the unlabelled folder are kept as references, for an annotator that
    is simulated; nothing else sees them.

    Args:
        labelled: folder of the cases to start from; each needs a label map.
        unlabelled: folder of the cases to select from, None for none.
        held_out: folder of the cases to evaluate on, each with a label map; None for none.
        structures: name -> label (1 to 255).

    Raises:
        DataError: in one sentence, if a folder is missing or empty, a label map has no image or an image no
            label map where it needs one, or a case is in two folders.
    """
    names = _structures(structures)
    parts = {
        "labelled": _read_folder(labelled, "labelled", names, needs_labels=True),
        "unlabelled": _read_folder(unlabelled, "unlabelled", names, needs_labels=False),
        "held_out": _read_folder(held_out, "held-out", names, needs_labels=True),
    }
    _refuse_shared(parts.values())
    ids = {part: tuple(sorted(cases)) for part, cases in parts.items()}
    folders = [folder for folder in (labelled, unlabelled, held_out) if folder is not None]
    cases = sorted((c for part in parts.values() for c in part.values()), key=lambda case: case.case_id)
    dataset = Dataset(
        name=labelled.resolve().name,
        structures=names,
        cases=tuple(cases),
        held_out=ids["held_out"],
        patients_known=all((folder / "patients.csv").is_file() for folder in folders),
    )
    return FolderSplit(dataset=dataset, **ids)


def _structures(structures: Mapping[str, int]) -> tuple[Structure, ...]:
    if not structures:
        raise DataError("The folders need to be told their structures: give each name its label")
    named = (Structure(name=name, label=label) for name, label in structures.items())
    return tuple(sorted(named, key=lambda structure: structure.label))


def _read_folder(
    folder: Path | None, what: str, structures: tuple[Structure, ...], *, needs_labels: bool
) -> dict[str, Case]:
    if folder is None:
        return {}
    if not folder.is_dir():
        raise DataError(f"The folder of {what} cases, {folder}, does not exist")
    image_folder = _subfolder(folder, _IMAGES)
    if image_folder is None:
        raise DataError(f"The folder of {what} cases, {folder}, has no folder images/ (or imagesTr/)")
    label_folder = _subfolder(folder, _LABELS)
    labels = {} if label_folder is None else volumes_in(label_folder)
    images = _images(volumes_in(image_folder), labels)
    if not images:
        raise DataError(f"{image_folder} holds no .nii.gz or .nii file; expected the {what} images there")
    _check_pairs(images, labels, needs_labels=needs_labels)
    patients = read_patients(folder, images.keys())
    files = {case_id: (image, labels.get(case_id)) for case_id, image in images.items()}
    annotated = {case_id: {s.name: 1.0 for s in structures} for case_id in labels}
    return {case.case_id: case for case in read_cases(files, patients, annotated)}


def _subfolder(folder: Path, names: Iterable[str]) -> Path | None:
    found = [folder / name for name in names if (folder / name).is_dir()]
    if len(found) > 1:
        raise DataError(f"{folder} has both {found[0].name}/ and {found[1].name}/; keep one of them")
    return found[0] if found else None


def _images(volumes: Mapping[str, Path], labels: Mapping[str, Path]) -> dict[str, Path]:
    """Case id -> image. `_0000` is nnU-Net's where a label map or all of the images say so."""
    all_marked = all(name.endswith(_CHANNEL) for name in volumes)
    images: dict[str, Path] = {}
    for name, path in volumes.items():
        stem = name.removesuffix(_CHANNEL)
        marked = stem != name and name not in labels and (stem in labels or all_marked)
        case_id = stem if marked else name
        try:
            check_case_id(case_id)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
        if marked and f"{stem}_0001" in volumes:
            raise DataError(
                f"{path} is one of several channels of the case {stem!r}; expected one image a case, so keep "
                "the channel to segment"
            )
        if case_id in images:
            raise DataError(f"{path} and {images[case_id]} are both the case {case_id!r}; keep one of them")
        images[case_id] = path
    return images


def _check_pairs(images: Mapping[str, Path], labels: Mapping[str, Path], *, needs_labels: bool) -> None:
    for case_id, label in labels.items():
        if case_id not in images:
            raise DataError(f"The label map {label} has no image of the same name; add it or rename the file")
    for case_id, image in images.items():
        if needs_labels and case_id not in labels:
            raise DataError(
                f"The image {image} has no label map of the same name beside it; add one, or move the image "
                "to the folder of unlabelled cases"
            )


def _refuse_shared(parts: Iterable[Mapping[str, Case]]) -> None:
    seen: dict[str, Case] = {}
    for part in parts:
        for case_id, case in part.items():
            if case_id in seen:
                raise DataError(
                    f"Case {case_id!r} is in two folders, as {seen[case_id].image} and as {case.image}; "
                    "every case belongs into one of them"
                )
            seen[case_id] = case
