import io
import itertools
import re

import pytest
from rich.console import Console

from flows import progress
from flows.progress import Display


def display(*, terminal: bool = False, quiet: bool = False) -> tuple[Display, io.StringIO]:
    written = io.StringIO()
    console = Console(file=written, force_terminal=terminal, width=110, color_system=None)
    return Display(console=console, quiet=quiet), written


def test_outside_a_terminal_the_end_of_a_step_is_a_line_with_the_first_metric() -> None:
    shown, written = display()
    with shown.step("train") as report:
        report(1, 3, {"loss": 2.0})
        report(3, 3, {"loss": 0.5, "dice_loss": 0.25})
    assert written.getvalue() == "  train: 3/3 loss 0.500\n"


def test_outside_a_terminal_a_long_step_is_told_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(0.0, progress._SECONDS_BETWEEN_LINES)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    shown, written = display()
    with shown.step("segment") as report:
        report(1, 3, {})
        report(2, 3, {})
    assert written.getvalue() == "  segment: 1/3\n  segment: 2/3\n"


def test_in_a_terminal_a_bar_moves_and_a_line_stays() -> None:
    shown, written = display(terminal=True)
    with shown.step("train") as report:
        report(1, 4, {})
        report(4, 4, {"loss": 0.5})
    text = written.getvalue()
    assert "4/4" in text
    assert "loss 0.500" in text
    after_the_bar = text.rpartition("\x1b[2K")[2]
    assert re.fullmatch(r"  train +\d+\.\d s\n", after_the_bar)


def test_a_step_that_fails_does_not_hide_why() -> None:
    shown, _ = display(terminal=True)
    with pytest.raises(ValueError, match="broken"), shown.step("train"):
        raise ValueError("broken")


@pytest.mark.parametrize("terminal", [True, False])
def test_quiet_is_quiet(terminal: bool) -> None:
    shown, written = display(terminal=terminal, quiet=True)
    with shown.step("train") as report:
        report(1, 1, {"loss": 1.0})
    shown.say("hello")
    assert written.getvalue() == ""


def test_a_line_for_people() -> None:
    shown, written = display()
    shown.say("[bold]round 0[/bold]: DSC 0.5")
    assert written.getvalue() == "round 0: DSC 0.5\n"
