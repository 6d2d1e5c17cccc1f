"""Somebody else's program: run, its output kept, its failure told in a sentence."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cohort.errors import ModelError
from segmenters import supervise

_TAIL_LINES = 5
_TAIL_CHARACTERS = 1000


def run_program(command: Sequence[str], logs: Path, name: str) -> None:
    """Run a program to its end; nothing of it is left running when this process ends before, however it ends.

    Args:
        command: the program and its arguments; no shell is involved, and standard input is empty.
        logs: folder that gets `<name>.out.log` and `<name>.err.log`, what the program said; both are
            continued where they are there.
        name: of the logs.

    Raises:
        ModelError: if it ends with another exit code than 0, with the last lines that it wrote.
    """
    logs.mkdir(parents=True, exist_ok=True)
    out, err = logs / f"{name}.out.log", logs / f"{name}.err.log"
    before = [path.stat().st_size if path.exists() else 0 for path in (out, err)]
    with out.open("ab") as stdout, err.open("ab") as stderr:
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-I", supervise.__file__, *command],
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
        try:
            code = process.wait()
        finally:
            process.communicate()
    if code != 0:
        said = _tail(err, before[1]) or _tail(out, before[0]) or "nothing"
        raise ModelError(
            f"The program {command[0]} ended with exit code {code}; the last lines that it wrote: {said} "
            f"(all of it in {out.name} and {err.name} of {logs})"
        )


def _tail(log: Path, start: int) -> str:
    with log.open("rb") as file:
        file.seek(start)
        text = file.read().decode(errors="replace").replace("\r", "\n")
    lines = [line.strip() for line in text.splitlines() if line.strip(" \t^~")]
    return " | ".join(lines[-_TAIL_LINES:])[-_TAIL_CHARACTERS:]
