"""What all annotators with people behind them write: the work list, and what is put aside."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from cohort.case import Structure
from cohort.slabs import Slab
from cohort.volume import write_bytes
from flows.annotators.base import Returned, WorkItem
from flows.annotators.label_tables import itksnap_table, slicer_table
from flows.annotators.returns import RETURNS, write_returns

WORKLIST, QUARANTINE, PICTURES = "worklist.csv", "quarantine", "pictures"
SLICER_TABLE, ITKSNAP_TABLE = "labels.ctbl", "labels_itksnap.txt"


def hand_out(source: Path, target: Path) -> None:
    """A copy of a file to work on; one that is there stays: somebody may be at work on it."""
    if target.exists():
        return
    partial = target.with_name(f".{target.name}.tmp")
    shutil.copyfile(source, partial)
    partial.replace(target)


def write_worklist(
    folder: Path,
    items: Sequence[WorkItem],
    structures: Sequence[Structure],
    places: Callable[[WorkItem], Mapping[str, str]],
) -> None:
    """Write the work in rank order, the tables of labels, and the table that people fill in.

    A work list that is there stays: people assign work and write remarks in it. Where slabs are asked for, a
    column says which slices, counted from 0 along the first axis of the array.

    Args:
        folder: of the work.
        items: in rank order.
        structures: of the label maps.
        places: where a case's image and proposal lie, and where its label map is put back.
    """
    labels = {structure.name: structure.label for structure in structures}
    rows = [
        {
            "rank": rank,
            "case_id": item.request.case_id,
            **places(item),
            "structures": "; ".join(f"{labels[name]} {name}" for name in item.request.structures),
            **({"slices": _listed(item.request.slabs)} if item.request.slabs else {}),
            "why": item.why,
            "picture": seen_from(folder, item.picture) if item.picture else "",
        }
        for rank, item in enumerate(items)
    ]
    if not (folder / WORKLIST).exists():
        write_bytes(folder / WORKLIST, pd.DataFrame(rows).to_csv(index=False).encode())
    write_bytes(folder / SLICER_TABLE, slicer_table(structures).encode())
    write_bytes(folder / ITKSNAP_TABLE, itksnap_table(structures).encode())
    write_returns(folder / RETURNS, [item.request for item in items])


def seen_from(folder: Path, path: Path) -> str:
    """A path as it is seen from the folder of the work, which people open wherever it is mounted.

    Absolute where it lies elsewhere: people do not open it from where the command ran.
    """
    folder, path = folder.absolute(), path.absolute()
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def _listed(slabs: Sequence[Slab]) -> str:
    return "; ".join(f"{slab.first}-{slab.last}" for slab in slabs)


def quarantine_place(folder: Path, returned: Returned) -> Path:
    """Where a label map goes that cannot be let in: never over an earlier one."""
    quarantine = folder / QUARANTINE
    suffix = returned.path.name.removeprefix(returned.case_id)
    number = 1
    while any((quarantine / f"{returned.case_id}_{number}{end}").exists() for end in (suffix, ".txt")):
        number += 1
    return quarantine / f"{returned.case_id}_{number}{suffix}"


def put_aside(folder: Path, returned: Returned, reason: str) -> None:
    """Move a label map that cannot be let in to the quarantine, with a text: why, and what brings it back.

    Raises:
        OSError: where it cannot be moved; it has not changed then.
    """
    target = quarantine_place(folder, returned)
    target.parent.mkdir(parents=True, exist_ok=True)
    suffix = returned.path.name.removeprefix(returned.case_id)
    shutil.move(returned.path, target)  # the folder of the work may lie on a share, or be a link to one
    told = (
        f"{reason}\nThe file is {seen_from(folder, target)}; {goes_back(seen_from(folder, returned.path))}\n"
    )
    write_bytes(target.with_name(f"{target.name.removesuffix(suffix)}.txt"), told.encode())


def goes_back(place: Path | str) -> str:
    """What has to be done with a file that was put aside: what `returns.csv` says of it moves no file."""
    return f"once it is corrected, or {RETURNS} says that it is right, put it back as {place}"
