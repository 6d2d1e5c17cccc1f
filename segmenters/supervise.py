"""Runs a program so that no part of it outlives the process that asked for it.

Started as `python -I supervise.py program arguments...` with a pipe as its standard input that nobody writes
to. When the asking process ends in whatever way, even by SIGKILL, the pipe closes, and the program's process
group is told to end and then killed. It imports the standard library alone, so that it starts at once.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

GRACE_SECONDS = 10.0
"""Between SIGTERM, on which for example `docker run` stops its container, and SIGKILL."""


def supervise(command: Sequence[str]) -> int:
    """Run a program until it ends or standard input closes.

    Returns:
        Its exit code; 128 + the signal's number where a signal ended it.
    """
    program = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603
    threading.Thread(target=_end_when_alone, args=(program,), daemon=True).start()
    code = program.wait()
    _signal(program, signal.SIGKILL)
    return code if code >= 0 else 128 - code


def _end_when_alone(program: "subprocess.Popen[bytes]") -> None:
    os.read(sys.stdin.fileno(), 1)
    _signal(program, signal.SIGTERM)
    threading.Event().wait(GRACE_SECONDS)
    _signal(program, signal.SIGKILL)


def _signal(program: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    """Signal every process that the program started and that did not leave its group."""
    try:
        os.killpg(program.pid, number)
    except (ProcessLookupError, PermissionError):
        return


if __name__ == "__main__":
    try:
        sys.exit(supervise(sys.argv[1:]))
    except OSError as error:
        sys.exit(f"The program {sys.argv[1]} cannot be started: {error}")
