"""What people write beside their label maps: `returns.csv`."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cohort.annotation import Request
from cohort.errors import AnnotationError
from cohort.volume import write_bytes

RETURNS = "returns.csv"
COLUMNS = ("case_id", "annotator", "minutes", "absent", "confirmed", "skip", "reason")
_YES, _NO = frozenset({"yes", "y", "true", "1", "x"}), frozenset({"", "no", "n", "false", "0"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What somebody wrote about a case.

    Args:
        annotator: who, "" where nobody said.
        minutes: that it took, None where nobody said.
        absent: structures that are not there.
        confirmed: whether an unchanged proposal was looked at.
        skip: whether nobody annotates the case.
        reason: why not.
    """

    annotator: str = ""
    minutes: float | None = None
    absent: frozenset[str] = frozenset()
    confirmed: bool = False
    skip: bool = False
    reason: str = ""


def write_returns(path: Path, requests: Sequence[Request]) -> None:
    """Write the table to fill in, with a line for each case, unless it is there."""
    if path.exists():
        return
    lines = [",".join(COLUMNS), *(f"{request.case_id},,,,,," for request in requests)]
    write_bytes(path, ("\n".join(lines) + "\n").encode())


def read_returns(path: Path) -> dict[str, Note]:
    """Read what was filled in; a spreadsheet's semicolons and byte-order mark are taken too.

    Returns:
        Case id -> what was written; empty where there is no file.

    Raises:
        AnnotationError: for a table that cannot be read, naming line and column.
    """
    if not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise AnnotationError(f"{path} cannot be read; save it as CSV in UTF-8") from error
    first = text.partition("\n")[0]
    delimiter = ";" if first.count(";") > first.count(",") else ","
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        return _notes(rows, path, delimiter)
    except csv.Error as error:
        raise AnnotationError(
            f"{path} is no CSV from line {rows.line_num + 1} on ({error}); is a quote missing?"
        ) from error


def _notes(rows: "csv.DictReader[str]", path: Path, delimiter: str) -> dict[str, Note]:
    found = list(rows.fieldnames or ())
    if "case_id" not in found or not set(found) <= set(COLUMNS):
        raise AnnotationError(
            f"{path} has the columns {', '.join(found) or 'none'}; expected case_id and any of "
            f"{', '.join(COLUMNS[1:])}"
        )
    notes: dict[str, Note] = {}
    for row in rows:
        number = rows.line_num
        if None in row:  # what lies beyond the last column
            raise AnnotationError(
                f"{path}, line {number} has more fields than columns; write decimals with a point, and put "
                f"text that holds {delimiter!r} between quotes"
            )
        case_id = (row["case_id"] or "").strip()
        if not case_id:
            continue
        if case_id in notes:
            raise AnnotationError(f"{path}, line {number}: case {case_id} comes twice; keep one line")
        notes[case_id] = _note(
            {key: (row.get(key) or "").strip() for key in COLUMNS}, f"{path}, line {number}"
        )
    return notes


def _note(row: dict[str, str], where: str) -> Note:
    return Note(
        annotator=row["annotator"],
        minutes=_minutes(row["minutes"], where),
        absent=frozenset(name.strip() for name in row["absent"].replace("|", ";").split(";") if name.strip()),
        confirmed=_yes(row["confirmed"], "confirmed", where),
        skip=_yes(row["skip"], "skip", where),
        reason=row["reason"],
    )


def _minutes(text: str, where: str) -> float | None:
    if not text:
        return None
    try:
        minutes = float(text.replace(",", "."))
    except ValueError:
        minutes = math.nan
    if not 0.0 <= minutes < math.inf:
        raise AnnotationError(f"{where}: minutes is {text!r}; expected a number, 0 or more, or nothing")
    return minutes


def _yes(text: str, column: str, where: str) -> bool:
    if text.lower() in _YES | _NO:
        return text.lower() in _YES
    raise AnnotationError(f"{where}: {column} is {text!r}; expected yes, no or nothing")
