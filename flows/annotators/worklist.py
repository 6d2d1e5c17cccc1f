"""What all annotators with people behind them share: work list, answers, and what is put aside."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from cohort.annotation import Request
from cohort.case import Structure
from cohort.errors import AnnotationError
from cohort.slabs import Slab
from cohort.volume import SUFFIXES, write_bytes
from flows.annotators.base import Answer, Returned, WorkItem
from flows.annotators.label_tables import itksnap_table, slicer_table
from flows.annotators.returns import Note, read_returns, write_returns
from flows.annotators.segmentations import SUFFIX

WORKLIST, RETURNS, QUARANTINE, PICTURES = "worklist.csv", "returns.csv", "quarantine", "pictures"
SLICER_TABLE, ITKSNAP_TABLE = "labels.ctbl", "labels_itksnap.txt"


def hand_out(source: Path, target: Path) -> None:
    """A copy of a file to work on; one that is there stays: somebody may be at work on it."""
    if target.exists():
        return
    partial = target.with_name(f".{target.name}.tmp")
    shutil.copyfile(source, partial)
    partial.replace(target)


def handed_back(folder: Path, case_id: str) -> Path | None:
    """A case's label map or segmentation in a folder; None where it is not back.

    Raises:
        AnnotationError: where it is back more than once.
    """
    places = [folder / f"{case_id}{suffix}" for suffix in (*SUFFIXES, SUFFIX)]
    found = [path for path in places if path.is_file()]
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise AnnotationError(
            f"Case {case_id} is back more than once in {folder}: {names}; leave one of them"
        )
    return found[0] if found else None


def write_worklist(
    folder: Path,
    items: Sequence[WorkItem],
    structures: Sequence[Structure],
    places: Callable[[WorkItem], Mapping[str, str]],
) -> None:
    """Write the work in rank order, the tables of labels, and the table that people fill in.

    Where slabs are asked for, a column says which slices, counted from 0 along the first axis of the array.

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
            "picture": str(item.picture) if item.picture else "",
        }
        for rank, item in enumerate(items)
    ]
    write_bytes(folder / WORKLIST, pd.DataFrame(rows).to_csv(index=False).encode())
    write_bytes(folder / SLICER_TABLE, slicer_table(structures).encode())
    write_bytes(folder / ITKSNAP_TABLE, itksnap_table(structures).encode())
    write_returns(folder / RETURNS, [item.request for item in items])


def _listed(slabs: Sequence[Slab]) -> str:
    return "; ".join(f"{slab.first}-{slab.last}" for slab in slabs)


def answers(folder: Path, requests: Sequence[Request], find: Callable[[str], Path | None]) -> Answer:
    """What is back of some requests: label maps, and cases that are skipped.

    Args:
        folder: that holds `returns.csv`.
        requests: to look for.
        find: the label map of a case, None where it is not back.

    Raises:
        AnnotationError: for a `returns.csv` that cannot be read, and whatever `find` raises.
    """
    notes = read_returns(folder / RETURNS)
    returned, skipped = [], {}
    for request in requests:
        note, path = notes.get(request.case_id, Note()), find(request.case_id)
        if note.skip:
            skipped[request.case_id] = note.reason or "no reason given"
        elif path is not None:
            returned.append(
                Returned(
                    case_id=request.case_id,
                    path=path,
                    structures=dict.fromkeys(request.structures, 1.0),
                    minutes=note.minutes,
                    absent=note.absent,
                    confirmed=note.confirmed,
                    annotator=note.annotator,
                    slabs=request.slabs,
                )
            )
    return Answer(returned=tuple(returned), skipped=skipped)


def put_aside(folder: Path, returned: Returned, reason: str) -> Path:
    """Move a label map that cannot be let in to the quarantine, with a text that says why.

    Returns:
        Where it lies now: never over an earlier one.
    """
    quarantine = folder / QUARANTINE
    quarantine.mkdir(parents=True, exist_ok=True)
    suffix = returned.path.name.removeprefix(returned.case_id)
    number = 1
    while (target := quarantine / f"{returned.case_id}_{number}{suffix}").exists():
        number += 1
    write_bytes(quarantine / f"{returned.case_id}_{number}.txt", f"{reason}\n".encode())
    returned.path.replace(target)
    return target
