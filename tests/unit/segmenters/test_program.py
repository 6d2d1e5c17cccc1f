import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from cohort.errors import ModelError
from segmenters.program import run_program

ROOT = Path(__file__).parents[3]


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", textwrap.dedent(code))


def test_keeps_what_the_program_says(tmp_path):
    run_program(python("import sys; print('one'); print('two', file=sys.stderr)"), tmp_path / "logs", "tool")
    run_program(python("print('three')"), tmp_path / "logs", "tool")

    assert (tmp_path / "logs" / "tool.out.log").read_text() == "one\nthree\n"
    assert (tmp_path / "logs" / "tool.err.log").read_text() == "two\n"


def test_a_failure_is_told_with_the_last_lines(tmp_path):
    run_program(python("import sys; print('of another run', file=sys.stderr)"), tmp_path, "tool")
    code = "import sys; print('progress 1%\\rprogress 2%', file=sys.stderr); sys.exit('no CUDA device')"

    with pytest.raises(
        ModelError, match=r"exit code 1; .* wrote: progress 1% \| progress 2% \| no CUDA"
    ) as found:
        run_program(python(code), tmp_path, "tool")
    assert "of another run" not in str(found.value)


def test_a_program_that_says_nothing_on_stderr_is_told_by_its_stdout(tmp_path):
    with pytest.raises(ModelError, match=r"exit code 3; the last lines that it wrote: out of memory"):
        run_program(python("print('out of memory'); raise SystemExit(3)"), tmp_path, "tool")


def test_a_program_that_a_signal_ended_failed(tmp_path):
    with pytest.raises(ModelError, match=r"exit code 137; the last lines that it wrote: nothing"):
        run_program(python("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"), tmp_path, "tool")


def test_a_program_that_cannot_be_started_failed(tmp_path):
    with pytest.raises(ModelError, match=r"The program .*gone.* cannot be started: .*No such file"):
        run_program((str(tmp_path / "gone"), "x"), tmp_path, "tool")


def test_a_program_has_nothing_to_read(tmp_path):
    run_program(python("import sys; print(len(sys.stdin.read()))"), tmp_path, "tool")

    assert (tmp_path / "tool.out.log").read_text() == "0\n"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_running_when_the_run_is_killed(tmp_path, number):
    """The program and a child of it hold a pipe open, which ends when the last of them has ended."""
    pipe = tmp_path / "alive"
    os.mkfifo(pipe)
    alive = f"""
        import time
        pipe = open({str(pipe)!r}, "w", buffering=1)
        print("here", file=pipe)
        time.sleep(300)
        print("survived", file=pipe)
    """
    program = f"""
        import subprocess, sys
        subprocess.Popen([sys.executable, "-c", {textwrap.dedent(alive)!r}])
        exec({textwrap.dedent(alive)!r})
    """
    asking = f"""
        import signal
        from pathlib import Path
        from segmenters.program import run_program
        signal.signal(signal.SIGINT, signal.default_int_handler)
        run_program({python(program)!r}, Path({str(tmp_path)!r}), "tool")
    """
    run = subprocess.Popen(python(asking), cwd=ROOT, stderr=subprocess.DEVNULL)
    with pipe.open() as said:
        assert [said.readline(), said.readline()] == ["here\n", "here\n"]
        run.send_signal(number)
        assert said.read() == ""
    assert run.wait() != 0
