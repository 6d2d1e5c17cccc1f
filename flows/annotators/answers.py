"""What people have put back: found, told from what is still being written, and read with its remarks."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from cohort.annotation import Request
from cohort.case import Structure
from cohort.errors import AnnotationError
from cohort.volume import SUFFIXES
from flows.annotators.base import Answer, Returned
from flows.annotators.returns import RETURNS, Note, read_returns
from flows.annotators.segmentations import SUFFIX, plain

QUIET_S = 3.0
"""A file that changed within so many seconds is looked at twice, so far apart."""


def read_names(case_id: str) -> tuple[str, ...]:
    """Names of the files under which a case is taken back."""
    return tuple(f"{case_id}{suffix}" for suffix in (*SUFFIXES, SUFFIX))


def handed_back(folder: Path, case_id: str) -> tuple[Path, ...]:
    """The label maps and segmentations of a case in a folder; none where it is not back."""
    return tuple(folder / name for name in read_names(case_id) if (folder / name).is_file())


def not_read(why: str, names: Iterable[str]) -> str:
    """What is said of files that are passed over, to be added to what a round waits for."""
    listed = ", ".join(sorted(names))
    return f"; {why}, so not read: {listed}" if listed else ""


def answers(
    folder: Path,
    requests: Sequence[Request],
    find: Callable[[str], tuple[Path, ...]],
    *,
    asked: Collection[str],
    structures: Sequence[Structure],
) -> Answer:
    """What is back of some requests: label maps, cases that are skipped, and what cannot be decided yet.

    A file that is still being written, a case that is back twice, and one that is back and marked as skipped
    are left where they are.

    Args:
        folder: that holds `returns.csv`.
        requests: to look for.
        find: the files of a case, none where it is not back.
        asked: ids of all cases of the round, which remarks may be about.
        structures: that remarks may name.

    Raises:
        AnnotationError: for a `returns.csv` that cannot be read, or is about something else.
    """
    table = folder / RETURNS
    notes = read_returns(table)
    _check_asked(table, notes, asked)
    absent = {
        case_id: _absent(note, structures, f"{table}, case {case_id}") for case_id, note in notes.items()
    }
    found = {request.case_id: find(request.case_id) for request in requests}
    unfinished = still_written([path for paths in found.values() for path in paths])
    returned, skipped, unsettled = [], {}, {}
    for request in requests:
        note, paths = notes.get(request.case_id, Note()), found[request.case_id]
        undecided = _undecided(note, paths, unfinished)
        if undecided:
            unsettled[request.case_id] = f"case {request.case_id} {undecided}"
        elif note.skip:
            skipped[request.case_id] = note.reason or "no reason given"
        elif paths:
            missing = absent.get(request.case_id, frozenset())
            returned.append(_returned(request, paths[0], note, missing))
    return Answer(returned=tuple(returned), skipped=skipped, unsettled=unsettled)


def still_written(paths: Sequence[Path]) -> frozenset[Path]:
    """Those of some files that somebody is at work on: they changed just now, and again while one looked."""
    before = {path: _looked_at(path) for path in paths}
    if not any(abs(time.time() - seen[1] / 1e9) < QUIET_S for seen in before.values() if seen):
        return frozenset()
    time.sleep(QUIET_S)
    return frozenset(path for path, seen in before.items() if _looked_at(path) != seen)


def _looked_at(path: Path) -> tuple[int, int] | None:
    """Size and time of the last change; None for a file that is gone."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _undecided(note: Note, paths: Sequence[Path], unfinished: Collection[Path]) -> str:
    """Why nothing can be done about a case yet, "" where it can."""
    names = " and ".join(path.name for path in paths)
    if any(path in unfinished for path in paths):
        return f"is still being written ({names})"
    if len(paths) > 1:
        return f"is back more than once ({names}); leave one of them"
    if note.skip and paths:
        return f"is back ({names}), and skipped in {RETURNS}; take one of these back"
    return ""


def _returned(request: Request, path: Path, note: Note, absent: frozenset[str]) -> Returned:
    return Returned(
        case_id=request.case_id,
        path=path,
        structures=dict.fromkeys(request.structures, 1.0),
        minutes=note.minutes,
        absent=absent,
        confirmed=note.confirmed,
        annotator=note.annotator,
        slabs=request.slabs,
    )


def _check_asked(table: Path, notes: Mapping[str, Note], asked: Collection[str]) -> None:
    strange = [case_id for case_id in notes if case_id not in asked]
    if strange:
        raise AnnotationError(
            f"{table} has a line for {strange[0]!r}, which was not asked for in this round; the cases are "
            f"{', '.join(sorted(asked))} (a spreadsheet may have changed the id)"
        )


def _absent(note: Note, structures: Sequence[Structure], where: str) -> frozenset[str]:
    """Structures that are declared absent, as the data set calls them; commas separate them too."""
    by_name = {plain(structure.name): structure.name for structure in structures}
    names = [part for text in note.absent for part in ([text] if plain(text) in by_name else text.split(","))]
    unknown = [name.strip() for name in names if plain(name) not in by_name]
    if unknown:
        known = ", ".join(by_name.values())
        raise AnnotationError(
            f"{where}: absent names {unknown[0]!r}, which is none of the structures {known}"
        )
    return frozenset(by_name[plain(name)] for name in names)
