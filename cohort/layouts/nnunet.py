"""nnU-Net's raw data: `dataset.json`, `imagesTr/<id>_0000.nii.gz` and `labelsTr/<id>.nii.gz`."""

from pathlib import Path

from cohort.errors import DataError
from cohort.layouts.cases import volumes_in
from cohort.layouts.documents import Document, as_object, as_text, read_json
from cohort.layouts.masks import MaskCase, MaskDataset, MaskFile
from cohort.volume import SUFFIXES

_NOT_A_STRUCTURE = frozenset({"background", "ignore"})


def read(root: Path, masks: Path | None = None) -> MaskDataset:
    """Find the labelled cases of a data set.

    A structure that is declared as a list of labels (a region) is the union of these. Of several channels the
    first is the image. Images without a label map are left out.

    Args:
        root: with `dataset.json`.
        masks: folder with other label maps, `<id>.nii.gz` or `.nii`, for images of `imagesTr` or `imagesTs`.

    Raises:
        DataError: for a dataset.json that is missing or broken, files that are not NIfTI, or images of other
            names.
    """
    path = root / "dataset.json"
    document = read_json(path)
    ending = as_text(document.get("file_ending", ".nii.gz"), path, "'file_ending'")
    if ending not in SUFFIXES:
        raise DataError(f"{path} declares files that end in {ending!r}; expected {' or '.join(SUFFIXES)}")
    structures = _structures(document, path)
    folders = ("imagesTr",) if masks is None else ("imagesTr", "imagesTs")
    given = {} if masks is None else volumes_in(masks)
    first = f"_0000{ending}"
    cases = []
    images = sorted(path for folder in folders for path in (root / folder).glob(f"*{first}"))
    if not images:
        raise DataError(
            f"No image in {' or '.join(str(root / folder) for folder in folders)} is named <case>{first}, as "
            "nnU-Net names the first channel; rename the images, or name folder, masks and structures with "
            "--images and --structure name=label"
        )
    for image in images:
        case_id = image.name.removesuffix(first)
        labels = root / "labelsTr" / f"{case_id}{ending}" if masks is None else given.get(case_id)
        if labels is not None and labels.is_file():
            found = tuple(
                MaskFile(structure=name, path=labels, labels=wanted) for name, wanted in structures.items()
            )
            cases.append(MaskCase(case_id=case_id, image=image, masks=found))
    return MaskDataset(
        name=as_text(document.get("name", root.resolve().name), path, "'name'"), cases=tuple(cases)
    )


def _structures(document: Document, path: Path) -> dict[str, tuple[int, ...]]:
    found = {}
    for name, value in as_object(document.get("labels"), path, "'labels'").items():
        labels = _labels(value, path, f"label {name!r}")
        if name not in _NOT_A_STRUCTURE and labels != (0,):
            found[name] = labels
    if not found:
        raise DataError(f"{path}: 'labels' declares no structure besides the background")
    return found


def _labels(value: object, path: Path, what: str) -> tuple[int, ...]:
    listed = value if isinstance(value, list) else [value]
    if not listed or not all(type(label) is int and 0 <= label <= 255 for label in listed):
        raise DataError(
            f"{path}: {what} is {value!r}; expected a whole number from 0 to 255, or a list of them, with "
            'the name as its key: {"background": 0, "liver": 1}'
        )
    return tuple(listed)
