"""Kept masks as files: links to what is kept whole, new label maps of what is kept in part."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cohort.errors import DataError
from cohort.filtering import Verdict
from cohort.layouts.masks import MaskCase
from cohort.volume import SUFFIXES, read_label_map, whole_file, write_volume
from segmenters.base import Report

_COPY_BYTES = 1 << 20

Files = dict[tuple[str, str], Path]
"""(case id, structure) -> file that holds the mask."""


def lay_out(
    cases: Sequence[MaskCase], verdicts: Sequence[Verdict], folder: Path, ignore_label: int, report: Report
) -> Files:
    """Put the kept masks into a folder, and remove what else is in it.

    A file that holds nothing but kept masks is linked. A label map that holds others, or labels that nobody
    judged, is written anew.

    Args:
        cases: with their masks.
        verdicts: on all of these.
        folder: that gets `<case>.nii.gz`, or `<case>/<file>` where a case's masks lie in several files.
        ignore_label: what all other voxels become.
        report: told of the cases done.

    Raises:
        DataError: for a label map that cannot be read, or that holds `ignore_label` already.
    """
    kept = {(verdict.case_id, verdict.structure): verdict for verdict in verdicts}
    files: Files = {}
    for done, case in enumerate(cases, start=1):
        files |= _lay_out_case(case, kept, folder, ignore_label)
        report(done, len(cases), {})
    for stale in set(folder.rglob("*")) - set(files.values()):
        if stale.is_file():
            stale.unlink()  # kept before the masks were changed
    return files


def _lay_out_case(
    case: MaskCase, verdicts: Mapping[tuple[str, str], Verdict], folder: Path, ignore_label: int
) -> Files:
    files: Files = {}
    sources = list(dict.fromkeys(mask.path for mask in case.masks))
    for source in sources:
        own = [mask for mask in case.masks if mask.path == source]
        kept = [mask for mask in own if verdicts[case.case_id, mask.structure].kept]
        if not kept:
            continue
        single = len(sources) == 1 and any(mask.labels for mask in own)
        name = f"{case.case_id}{_suffix(source)}" if single else f"{case.case_id}/{source.name}"
        taken = {label for mask in kept for label in mask.labels}
        if not taken or not _written(source, folder / name, taken, ignore_label):
            _link(source, folder / name)
        files |= {(case.case_id, mask.structure): folder / name for mask in kept}
    return files


def _suffix(path: Path) -> str:
    return next(suffix for suffix in SUFFIXES if path.name.endswith(suffix))


def _written(source: Path, target: Path, taken: set[int], ignore_label: int) -> bool:
    """Write a label map with the taken labels alone; False where it holds no other."""
    labels = read_label_map(source)
    others = ~np.isin(labels.array, [0, *sorted(taken)])
    if not others.any():
        return False
    if ignore_label and bool((labels.array == ignore_label).any()):
        raise DataError(f"{source} holds the label {ignore_label} already; name another --ignore-label")
    write_volume(target, np.where(others, np.uint8(ignore_label), labels.array), labels.affine)
    return True


def _link(source: Path, target: Path) -> None:
    """A hard link to a file, or a copy where links do not work; whole or not there."""
    if target.exists() and target.samefile(source):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), temporary)
        temporary.replace(target)
    except OSError:
        with source.open("rb") as whole, whole_file(target) as file:
            shutil.copyfileobj(whole, file, _COPY_BYTES)
    finally:
        temporary.unlink(missing_ok=True)
