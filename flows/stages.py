"""Stages: functions from files to files, skipped when their output is there and whole.

A stage's folder is named after the hash of its inputs. It works in a hidden folder beside it, which is
renamed when all is done; so a folder that is there was finished. Its manifest lists every file with its
hash: a file that was damaged or lost since makes the stage run again.
"""

import hashlib
import json
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cohort.volume import write_bytes

MANIFEST = "stage.json"
SHARED = ".shared.json"
"""Names other folders in which stages of a folder may be finished already."""

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


def json_number(value: float) -> float | None:
    """A number as JSON has it: None where nothing could be measured."""
    return None if math.isnan(value) else value


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
    if _take(finished, json_sha256(inputs)):
        return finished
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


def share(parent: Path, others: Sequence[Path]) -> None:
    """Let a folder take stages that are finished in other folders, instead of running them.

    A stage is taken where name and inputs are the same and every file is whole: its files are hard-linked, or
    copied where the disk cannot link, into a hidden folder, which is renamed. Nothing changes a finished
    stage's files in place, so the folders stay independent of each other.

    Args:
        parent: whose stages may be taken.
        others: folders of stages, which need not exist yet.
    """
    parent.mkdir(parents=True, exist_ok=True)
    write_json(parent / SHARED, [os.path.relpath(other, parent) for other in others])


def link_stage(found: Path, finished: Path) -> None:
    """Give a finished stage another place, whole or not at all.

    Args:
        found: folder of the stage, which is whole.
        finished: its other place, where nothing is yet.
    """
    taken = finished.parent / f".{finished.name}.taken"
    shutil.rmtree(taken, ignore_errors=True)
    for name in (*read_json(found / MANIFEST)["files"], MANIFEST):
        _link(found / name, taken / name)
    taken.rename(finished)


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


def _take(finished: Path, inputs_sha256: str) -> bool:
    """Take a stage from a folder that `share` named; whether there was one."""
    shared = finished.parent / SHARED
    if not shared.is_file():
        return False
    for other in read_json(shared):
        found = finished.parent / other / finished.name
        if not is_whole(found) or json_sha256(read_json(found / MANIFEST)["inputs"]) != inputs_sha256:
            continue
        link_stage(found, finished)
        shutil.rmtree(finished.parent / f".{finished.name}.partial", ignore_errors=True)
        return True
    return False


def _link(source: Path, target: Path) -> None:
    """Another name for a file, or a copy where the disk cannot have that."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and path.name != MANIFEST and not _is_hidden(path.relative_to(folder))
    )


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
