"""What a person sees while a long step runs: a live bar in a terminal, a line now and then elsewhere."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from segmenters.base import Report

_SECONDS_BETWEEN_LINES = 15.0


@dataclass(slots=True)
class Display:
    """Shows steps on a console.

    Args:
        console: where to.
        quiet: show nothing.
    """

    console: Console = field(default_factory=lambda: Console(stderr=True))
    quiet: bool = False

    def say(self, text: str) -> None:
        """Print a line."""
        if not self.quiet:
            self.console.print(text, highlight=False)

    @contextmanager
    def step(self, description: str) -> Iterator[Report]:
        """Show the progress of one step, reported through the function that this yields."""
        if self.quiet:
            yield _ignore
        elif self.console.is_terminal:
            yield from self._bar(description)
        else:
            yield self._lines(description)

    def _bar(self, description: str) -> Iterator[Report]:
        columns = (
            TextColumn("{task.description:<34}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[metrics]}"),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(description, total=None, metrics="")

            def report(step: int, total: int, metrics: Mapping[str, float]) -> None:
                progress.update(task, completed=step, total=total, metrics=_shown(metrics))

            started = time.monotonic()
            yield report
        self.say(f"  {description:<34} [dim]{time.monotonic() - started:6.1f} s[/dim]")

    def _lines(self, description: str) -> Report:
        last = time.monotonic()

        def report(step: int, total: int, metrics: Mapping[str, float]) -> None:
            nonlocal last
            if step >= total or time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
                last = time.monotonic()
                self.say(f"  {description}: {step}/{total} {_shown(metrics)}".rstrip())

        return report


def shifted(report: Report, before: int, whole: int) -> Report:
    """A report of a part of a longer step.

    Args:
        report: of the longer step.
        before: items that were done when the part began.
        whole: items of the longer step.
    """

    def told(step: int, total: int, metrics: Mapping[str, float]) -> None:
        report(before + step, whole, metrics)

    return told


def recorded(report: Report) -> tuple[list[dict[str, float]], Report]:
    """A list that collects what is reported, and the function to report through."""
    curve: list[dict[str, float]] = []

    def told(step: int, total: int, metrics: Mapping[str, float]) -> None:
        if metrics:
            curve.append({"step": step, **metrics})
        report(step, total, metrics)

    return curve, told


def _ignore(step: int, total: int, metrics: Mapping[str, float]) -> None:
    return None


def _shown(metrics: Mapping[str, float]) -> str:
    """The first metric: trainings report their loss first."""
    return " ".join(f"{name} {value:.3f}" for name, value in list(metrics.items())[:1])
