"""TotalSegmentator: a folder per case with `ct.nii.gz` and `segmentations/<class>.nii.gz`, and `meta.csv`."""

from pathlib import Path

import pandas as pd

from cohort.layouts.cases import volumes_in
from cohort.layouts.masks import MaskCase, MaskDataset, MaskFile
from cohort.layouts.tables import read_metadata
from cohort.volume import SUFFIXES

IMAGES = tuple(f"{name}{suffix}" for name in ("ct", "mri") for suffix in SUFFIXES)
_META = "meta.csv"


def read(root: Path, masks: Path | None = None) -> MaskDataset:
    """Find the cases of a data set, or the one case whose folder `root` is.

    Args:
        root: with a folder per case, and `meta.csv` where there is metadata.
        masks: folder with other masks: `<case>/segmentations/*.nii.gz` or `<case>/*.nii.gz`.

    Raises:
        DataError: for metadata that cannot be read, or a mask that is there as .nii and as .nii.gz.
    """
    folders = [root] if _image(root) else sorted(path for path in root.iterdir() if path.is_dir())
    cases = [case for folder in folders if (case := _case(folder, masks)) is not None]
    meta = root / _META
    metadata: pd.DataFrame | None = read_metadata(meta) if meta.is_file() else None
    return MaskDataset(name=root.resolve().name, cases=tuple(cases), metadata=metadata)


def _image(folder: Path) -> Path | None:
    return next((folder / name for name in IMAGES if (folder / name).is_file()), None)


def _case(folder: Path, masks: Path | None) -> MaskCase | None:
    image, name = _image(folder), folder.resolve().name
    if image is None:
        return None
    where = folder if masks is None else masks / name
    where = where / "segmentations" if (where / "segmentations").is_dir() else where
    files = volumes_in(where) if where.is_dir() else {}
    found = tuple(
        MaskFile(structure=name, path=path) for name, path in files.items() if path.name not in IMAGES
    )
    return MaskCase(case_id=name, image=image, masks=found) if found else None
