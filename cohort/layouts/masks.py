"""Data sets as collections of masks to be judged, in the layouts that tools write them in."""

import logging
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import pandas as pd

from cohort.errors import ConfigError, DataError
from cohort.layouts.cases import volumes_in
from cohort.volume import SUFFIXES, volume_id

_LISTED = 3
_LABELS = MappingProxyType({"nnunet": "labelsTr"})
"""Where a layout has its own label maps, if nothing but their names says of which case they are."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskFile:
    """One mask of a case.

    Args:
        structure: name as the data set spells it.
        path: of the file, which may hold other masks too.
        labels: of the structure in it; none for a binary mask, in which any voxel above 0 counts.
    """

    structure: str
    path: Path
    labels: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskCase:
    """An image and its masks.

    Args:
        case_id: unique in the data set.
        image: path of the image.
        masks: of the case.
    """

    case_id: str
    image: Path
    masks: tuple[MaskFile, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MaskDataset:
    """All masks of a data set.

    Args:
        name: of the data set.
        cases: by id; those without a mask are left out.
        metadata: a row per case, indexed by its id, or None.
    """

    name: str
    cases: tuple[MaskCase, ...]
    metadata: pd.DataFrame | None = None


Reader = Callable[[Path, Path | None], MaskDataset]


def read_masks(root: Path, layout: str, *, masks: Path | None = None) -> MaskDataset:
    """Find all masks of a data set; no voxel is read.

    Args:
        root: folder of the data set.
        layout: "totalsegmentator", "decathlon" or "nnunet".
        masks: folder of other masks than the data set's own, such as a model's predictions:
            label maps `<case_id>.nii.gz` or `.nii`, or for totalsegmentator a folder of masks per case. Cases
            without a file are left out, files without a case too, with a warning.

    Raises:
        ConfigError: for another layout.
        DataError: for a folder that is missing or does not hold what the layout promises.
    """
    if layout not in LAYOUTS:
        raise ConfigError(f"Unknown layout {layout!r}; expected one of {', '.join(sorted(LAYOUTS))}")
    if not root.is_dir():
        raise DataError(f"The data set's folder {root} does not exist")
    if masks is not None and not masks.is_dir():
        raise DataError(f"The folder of masks {masks} does not exist")
    found = LAYOUTS[layout](root, masks)
    if not found.cases:
        where = root if masks is None else masks
        raise DataError(f"No mask was found in {where} for the layout {layout!r}; is it another layout?")
    beside = masks or (root / _LABELS[layout] if layout in _LABELS else None)
    if beside is not None and beside.is_dir():
        _name_masks_of_nobody(beside, {case.case_id for case in found.cases}, root)
    return found


def _name_masks_of_nobody(masks: Path, known: Set[str], root: Path) -> None:
    """Say which masks are left out because the data set does not have their case."""
    there = {path: _case_of(path) for path in sorted(masks.iterdir()) if path.name[0] != "."}
    strays = [path.name for path, case_id in there.items() if case_id is not None and case_id not in known]
    if strays:
        listed = ", ".join(strays[:_LISTED]) + (" ..." if len(strays) > _LISTED else "")
        _log.warning(
            "Left out, of no case in %s: %d of the masks in %s (%s)", root, len(strays), masks, listed
        )


def _case_of(path: Path) -> str | None:
    """The case that a label map, or a folder of masks, is named after; None for anything else."""
    if path.is_dir():
        holds_masks = any(path.glob("*.nii*")) or any(path.glob("segmentations/*.nii*"))
        return path.name if holds_masks else None
    return volume_id(path) if path.name.endswith(SUFFIXES) else None


def _totalsegmentator(root: Path, masks: Path | None) -> MaskDataset:
    from cohort.layouts import totalsegmentator

    return totalsegmentator.read(root, masks)


def _nnunet(root: Path, masks: Path | None) -> MaskDataset:
    from cohort.layouts import nnunet

    return nnunet.read(root, masks)


def _decathlon(root: Path, masks: Path | None) -> MaskDataset:
    from cohort.layouts import decathlon

    dataset = decathlon.read(root)
    given = {} if masks is None else volumes_in(masks)
    cases = []
    for case in dataset.cases:
        path = case.reference if masks is None else given.get(case.case_id)
        if path is None or not path.is_file():
            continue
        listed = case.annotated if masks is None else [s.name for s in dataset.structures]
        found = tuple(
            MaskFile(structure=s.name, path=path, labels=(s.label,))
            for s in dataset.structures
            if s.name in listed
        )
        if found:
            cases.append(MaskCase(case_id=case.case_id, image=case.image, masks=found))
    return MaskDataset(name=dataset.name, cases=tuple(cases))


LAYOUTS: Mapping[str, Reader] = MappingProxyType(
    {"totalsegmentator": _totalsegmentator, "decathlon": _decathlon, "nnunet": _nnunet}
)
"""Name -> how to read the layout."""
