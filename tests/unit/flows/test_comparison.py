"""Which units a process runs, passes over and waits for; the campaigns themselves are not run here."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from types import SimpleNamespace

import pytest

from cohort.errors import DataError
from flows import campaign as campaigns
from flows import comparison as flow
from flows.comparison import Runner
from flows.comparison_config import Comparison, Unit
from flows.config import ActiveLearningConfig
from flows.progress import Display

Write = Callable[..., None]


class Work:
    """Stands for running a campaign: writes what it would have measured, or fails."""

    def __init__(self, write: Write, comparison: Comparison) -> None:
        self.write, self.units = write, {unit.name: unit for unit in comparison.units}
        self.ran: list[str] = []
        self.broken: set[str] = set()

    def __call__(self, config: ActiveLearningConfig, display: Display) -> None:
        self.ran.append(config.name)
        if config.name in self.broken:
            raise DataError(f"{config.name}: case_03 is broken")
        shared = config.folder / "rounds" / "000" / ".shared.json"
        kept = shared.read_bytes() if shared.is_file() else None
        for path in sorted(config.folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        config.folder.rmdir()
        self.write(self.units[config.name])
        if kept is not None:
            shared.write_bytes(kept)


@pytest.fixture
def comparison(make_comparison: Callable[..., Comparison]) -> Comparison:
    return make_comparison()


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch, write_measured: Write, comparison: Comparison) -> Work:
    found = Work(write_measured, comparison)
    monkeypatch.setattr(flow, "run_locked", found)
    return found


def runner(comparison: Comparison) -> Runner:
    return Runner(comparison=comparison, units=comparison.units, display=Display(quiet=True), pause_s=0.0)


def names(units: tuple[Unit, ...]) -> list[str]:
    return [unit.name for unit in units]


def test_units_are_run_in_order_and_once(comparison: Comparison, work: Work) -> None:
    assert runner(comparison).run() == {}
    assert work.ran == names(comparison.units)
    assert runner(comparison).run() == {}
    assert len(work.ran) == 6


def test_round_zero_may_be_taken_from_all_arms_of_the_seed(comparison: Comparison, work: Work) -> None:
    runner(comparison).run()
    folder = comparison.units[2].folder / "rounds" / "000"
    others = json.loads((folder / ".shared.json").read_text())
    assert [(folder / other).resolve() for other in others] == [
        comparison.config.campaigns_root.resolve() / name / "rounds" / "000"
        for name in ("random-seed0", "oracle-worst-seed0")
    ]


def test_a_failure_is_kept_and_the_others_go_on(comparison: Comparison, work: Work) -> None:
    work.broken = {"random-seed1"}
    assert runner(comparison).run() == {"random-seed1": "random-seed1: case_03 is broken"}
    assert work.ran == names(comparison.units)


def test_a_unit_of_another_process_is_looked_at_again_at_the_end(
    comparison: Comparison, work: Work, monkeypatch: pytest.MonkeyPatch, write_measured: Write
) -> None:
    """random-seed0 is held by another process, which has finished round 0, until all else is done."""
    write_measured(comparison.units[0], finished=False)
    with ExitStack() as other:
        other.enter_context(campaigns.locked(comparison.units[0].folder))
        monkeypatch.setattr(flow, "time", SimpleNamespace(sleep=lambda seconds: other.close()))
        assert runner(comparison).run() == {}
    assert work.ran == [*names(comparison.units[1:]), "random-seed0"]


def test_nobody_makes_a_round_zero_that_is_being_made(
    comparison: Comparison, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process has just begun random-seed0: all of seed 0 waits, and seed 1 goes on."""
    with ExitStack() as other:
        other.enter_context(campaigns.locked(comparison.units[0].folder))
        monkeypatch.setattr(flow, "time", SimpleNamespace(sleep=lambda seconds: other.close()))
        assert runner(comparison).run() == {}
    assert work.ran == [
        *(unit.name for unit in comparison.units if unit.seed == 1),
        *(unit.name for unit in comparison.units if unit.seed == 0),
    ]


def test_a_plan_that_lives_in_the_workspace_is_not_shared(
    comparison: Comparison, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "PLANS_IN_THE_WORKSPACE", frozenset({"torch"}))
    runner(comparison).run()
    assert not list(comparison.config.campaigns_root.glob("*/rounds/000/.shared.json"))
