"""JSON files of a data set, read with errors that name the file and the key."""

import json
from collections.abc import Collection
from pathlib import Path

from cohort.errors import DataError

Document = dict[str, object]


def read_json(path: Path) -> Document:
    """Read a JSON file that holds an object.

    Raises:
        DataError: if the file is missing, no JSON, or something else than an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; the data set needs it") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from error
    return as_object(value, path, "the file")


def as_object(value: object, path: Path, what: str) -> Document:
    """The value if it is a JSON object with text keys, else a DataError that names the place."""
    if not isinstance(value, dict):
        raise DataError(f"{path}: {what} holds {_kind(value)}; expected keys and values")
    return {str(key): item for key, item in value.items()}


def as_list(value: object, path: Path, what: str) -> list[object]:
    """The value if it is a JSON list, else a DataError that names the place."""
    if not isinstance(value, list):
        raise DataError(f"{path}: {what} holds {_kind(value)}; expected a list")
    return list(value)


def as_text(value: object, path: Path, what: str) -> str:
    """The value if it is a text that is not empty, else a DataError that names the place."""
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{path}: {what} holds {_kind(value)}; expected a text")
    return value


def check_known_ids(ids: Collection[str], known: Collection[str], path: Path, what: str) -> None:
    """Refuse ids that are not in the data set.

    Raises:
        DataError: naming the first of them and how many there are.
    """
    unknown = sorted(set(ids) - set(known))
    if unknown:
        raise DataError(
            f"{path}: {what} names the case {unknown[0]!r}, which the data set does not have "
            f"({len(unknown)} such ids); correct or remove it"
        )


def _kind(value: object) -> str:
    return "nothing" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"
