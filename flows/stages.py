"""Stages: functions from files to files, skipped when their output is there and whole.

A stage's folder is named after the hash of its inputs. It works in a hidden folder beside it, which is
renamed when all is done; so a folder that is there was finished. Its manifest lists every file with its
hash: a file that was damaged or lost since makes the stage run again.
"""

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cohort.volume import write_bytes

MANIFEST = "stage.json"
_log = logging.getLogger(__name__)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_sha256(path: Path) -> str:
    """SHA-256 of a file, or of all files below a folder with their places in it; "" where nothing is there.

    Hidden files, and those that Python compiles for itself, do not count.
    """
    if path.is_dir():
        found = [each for each in _files(path) if "__pycache__" not in each.parts]
        return json_sha256({str(each.relative_to(path)): file_sha256(each) for each in found})
    return file_sha256(path) if path.is_file() else ""


def json_sha256(value: object) -> str:
    """SHA-256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def write_json(path: Path, value: object) -> None:
    """Write JSON atomically."""
    write_bytes(path, (json.dumps(value, indent=1, default=str) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def run_stage(parent: Path, name: str, inputs: Mapping[str, object], make: Callable[[Path], None]) -> Path:
    """Run a stage unless its output is there and whole.

    Args:
        parent: folder that gets the stage's folder.
        name: of the stage.
        inputs: everything the output depends on, as JSON values (hashes for files).
        make: writes the output into the folder that it is given. After a kill that folder may hold what was
            made before; a stage either overwrites it or goes on from it.

    Returns:
        The finished folder, `parent/name-<hash>`.
    """
    digest = json_sha256(inputs)[:12]
    finished = parent / f"{name}-{digest}"
    if is_whole(finished):
        return finished
    if finished.exists():
        _log.warning("%s is damaged; the stage runs again", finished)
        shutil.rmtree(finished)
    partial = parent / f".{name}-{digest}.partial"
    partial.mkdir(parents=True, exist_ok=True)
    for torn in partial.rglob(".*.tmp"):
        torn.unlink()
    started = time.monotonic()
    make(partial)
    seconds = round(time.monotonic() - started, 1)
    files = {str(path.relative_to(partial)): file_sha256(path) for path in _files(partial)}
    write_json(
        partial / MANIFEST, {"stage": name, "inputs": dict(inputs), "files": files, "seconds": seconds}
    )
    partial.rename(finished)
    return finished


def is_whole(folder: Path) -> bool:
    """Whether a stage finished and every file that it made is still what it was."""
    try:
        files: dict[str, str] = read_json(folder / MANIFEST)["files"]
        return all(file_sha256(folder / name) == sha256 for name, sha256 in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def stage_sha256(folder: Path) -> str:
    """Hash of all that a finished stage made."""
    return json_sha256(read_json(folder / MANIFEST)["files"])


def _files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and path.name != MANIFEST and not _is_hidden(path.relative_to(folder))
    )


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
