"""The comparison as a flow: one campaign after the other, each an arm with a seed, shared between processes.

A unit that another process runs is passed over and looked at again at the end, so processes that were
started with the same command divide the work; a unit that is finished is read, and one that was killed goes
on. All arms of a seed begin with the same round 0: what one of them has finished of it, the others take.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from prefect import flow
from prefect.exceptions import PrefectException
from prefect.runtime import flow_run

from cohort.errors import BusyError, SentinelLoopError
from flows import campaign as campaigns
from flows.active_learning import mark_crashed
from flows.campaign import Campaign
from flows.comparison_config import Comparison, Unit
from flows.launch import run_locked, train_locked
from flows.portable import placed
from flows.progress import Display
from flows.pruning import prune
from flows.semi_supervised_config import SemiSupervisedConfig
from flows.shared_stages import PLANS_IN_THE_WORKSPACE
from flows.stages import share

_FAILURES = (SentinelLoopError, PrefectException, OSError, RuntimeError, ValueError, LookupError, TypeError)
_log = logging.getLogger(__name__)


class Outcome(Enum):
    """What became of a unit."""

    FINISHED = "finished"
    ELSEWHERE = "another process runs it, or its seed's round 0"
    FAILED = "failed"


@flow(name="comparison", validate_parameters=False, persist_result=False)
def comparison_flow(runner: "Runner", own: Path, killed_flow_run: str | None) -> dict[str, str]:
    """The flow: every unit that is not finished.

    Args:
        runner: of the units.
        own: folder of this process.
        killed_flow_run: id of a flow run in that folder whose process was killed, None if there is none.

    Returns:
        Name of a unit -> why it failed.
    """
    campaigns.record_process(own, str(flow_run.id))
    if killed_flow_run:
        mark_crashed(killed_flow_run)
    try:
        return runner.run()
    finally:
        campaigns.forget_process(own)


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """Runs units of a comparison.

    Args:
        comparison: with all its units.
        units: those to run, in order.
        display: shows progress.
        pause_s: seconds to wait where everything that is left is run by others.
    """

    comparison: Comparison
    units: tuple[Unit, ...]
    display: Display
    pause_s: float = 10.0

    def run(self) -> dict[str, str]:
        """Run them all, or wait for the processes that do.

        Returns:
            Name of a unit -> why it failed.
        """
        failed: dict[str, str] = {}
        left: Sequence[Unit] = self.units
        while left:
            elsewhere = [unit for unit in left if self._attempt(unit, failed) is Outcome.ELSEWHERE]
            if len(elsewhere) == len(left):
                time.sleep(self.pause_s)
            left = elsewhere
        return failed

    def _attempt(self, unit: Unit, failed: dict[str, str]) -> Outcome:
        try:
            if not is_finished(unit) and self._round_zero_is_made_elsewhere(unit):
                return Outcome.ELSEWHERE
            with campaigns.locked(unit.folder):
                return self._run(unit, failed)
        except BusyError:
            return Outcome.ELSEWHERE
        except _FAILURES as error:
            _log.info("%s failed", unit.name, exc_info=True)
            failed[unit.name] = f"{error}" or type(error).__name__
            self.display.say(f"[red]{unit.name} failed[/red]; the others go on")
            return Outcome.FAILED

    def _run(self, unit: Unit, failed: dict[str, str]) -> Outcome:
        """Run a unit whose lock is held, unless it is finished."""
        campaigns.check_config(unit.config)
        if not is_finished(unit):
            place = self.comparison.units.index(unit) + 1
            self.display.say(f"[bold]{unit.name}[/bold] ({place} of {len(self.comparison.units)})")
            if isinstance(unit.config, SemiSupervisedConfig):
                train_locked(unit.config, self.display)
            else:
                self._share_round_zero(unit)
                run_locked(unit.config, self.display)
        campaign = campaigns.open_campaign(unit.folder)
        if campaign.event("finished") is None:
            failed[unit.name] = f"it waits for {_waits_for(campaign)}"
            return Outcome.FAILED
        if self.comparison.config.keep == "light":
            prune(campaign)
        return Outcome.FINISHED

    def _share_round_zero(self, unit: Unit) -> None:
        if unit.config.segmenter.family not in PLANS_IN_THE_WORKSPACE:
            share(_round_zero(unit), [_round_zero(other) for other in self._of_the_same_seed(unit)])

    def _round_zero_is_made_elsewhere(self, unit: Unit) -> bool:
        """Whether a process is at round 0 of another arm of this seed, which can be taken once made."""
        return any(
            not _has_round_zero(other) and campaigns.is_locked(other.folder)
            for other in self._of_the_same_seed(unit)
        )

    def _of_the_same_seed(self, unit: Unit) -> list[Unit]:
        return [other for other in self.comparison.units if other.seed == unit.seed and other.arm != unit.arm]


def is_finished(unit: Unit) -> bool:
    """Whether all rounds of a unit are in its ledger."""
    return _has(unit, "finished")


def _has_round_zero(unit: Unit) -> bool:
    """Whether everything that other arms could take of a unit's round 0 is made."""
    return any(_has(unit, event) for event in ("selection", "trial", "finished"))


def _has(unit: Unit, event: str) -> bool:
    if not (unit.folder / campaigns.CONFIG).is_file():
        return False
    return campaigns.open_campaign(unit.folder).event(event) is not None


def _waits_for(campaign: Campaign) -> str:
    last = campaign.ledger.entries()[-1]
    return placed(str(last.payload.get("waits_for", "an end of its rounds")), campaign.folder)


def _round_zero(unit: Unit) -> Path:
    return unit.folder / "rounds" / "000"
