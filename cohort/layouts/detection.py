"""Which layout a folder of masks has, and plain folders of images and label maps."""

from collections.abc import Mapping
from pathlib import Path

from cohort.case import check_case_id
from cohort.errors import DataError
from cohort.layouts.cases import volumes_in
from cohort.layouts.documents import read_json
from cohort.layouts.masks import MaskCase, MaskDataset, MaskFile
from cohort.layouts.totalsegmentator import IMAGES


def detect_layout(root: Path) -> str:
    """The layout of a data set: "decathlon", "nnunet" or "totalsegmentator".

    The Decathlon's dataset.json names a structure for each number, nnU-Net's a number for each structure.

    Raises:
        DataError: for a folder that is missing or has none of them.
    """
    if not root.is_dir():
        raise DataError(f"The folder {root} does not exist")
    document = root / "dataset.json"
    if document.is_file():
        labels = read_json(document).get("labels")
        names = list(labels) if isinstance(labels, Mapping) else []
        return "decathlon" if names and all(str(name).isdigit() for name in names) else "nnunet"
    if any((folder / image).is_file() for folder in [root, *sorted(root.iterdir())] for image in IMAGES):
        return "totalsegmentator"
    raise DataError(
        f"{root} is no data set with images and masks (no dataset.json, no folder with ct.nii.gz); if it "
        "holds masks alone, name their data set with --data, or --images and --structure name=label"
    )


def read_plain(images: Path, masks: Path, structures: Mapping[str, int]) -> MaskDataset:
    """Label maps of any tool in one folder, and their images in another.

    Args:
        images: `<case>.nii.gz` or `<case>_0000.nii.gz`.
        masks: `<case>.nii.gz`; images without one are left out.
        structures: name -> label.

    Raises:
        DataError: for a folder that is missing, a label map without an image, or a file that is there as .nii
            and as .nii.gz.
    """
    for folder in (images, masks):
        if not folder.is_dir():
            raise DataError(f"The folder {folder} does not exist")
    exact = volumes_in(images)
    by_case = {name.removesuffix("_0000"): path for name, path in exact.items()} | exact
    cases = []
    for case_id, path in volumes_in(masks).items():
        check_case_id(case_id)
        if case_id not in by_case:
            raise DataError(
                f"{path} has no image {case_id}.nii.gz in {images}; add it or remove the label map"
            )
        found = tuple(
            MaskFile(structure=name, path=path, labels=(label,)) for name, label in structures.items()
        )
        cases.append(MaskCase(case_id=case_id, image=by_case[case_id], masks=found))
    if not cases:
        raise DataError(f"There is no label map (.nii.gz or .nii) in {masks}")
    return MaskDataset(name=masks.resolve().name, cases=tuple(cases))
