"""A campaign as a flow that a Prefect server starts, and that suspends itself while people annotate.

Suspended, no process runs: the server keeps the run, and whoever resumes it in Prefect's UI answers its form.
Where a campaign is stands in its own folder alone: a run that is resumed starts it again, as a command does.
"""

import asyncio
import itertools
import sys
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.runner import Runner
from prefect.settings import get_current_settings

from cohort.errors import AnnotationError, BusyError, ConfigError
from flows.config import ActiveLearningConfig, load_config
from flows.launch import launch
from flows.progress import Display
from flows.status import status

NAME = "campaign"


class AnnotationIsBack(RunInput):
    """What a person says who resumes a run: whether to take in what is back, or to end the run."""

    look_again: bool = True


@flow(name=NAME, persist_result=True)
def campaign(config: str, settings: list[str] | None = None) -> str:
    """Run a campaign to its end, suspended wherever it waits for people.

    Args:
        config: path of the campaign's YAML, from where `sentinel-loop serve` was started.
        settings: overrides, `key=value`.

    Returns:
        State of the campaign: "finished", or "awaiting annotation" where its run was told to end.

    Raises:
        SentinelLoopError: for every mistake that a user can mend.
    """
    loaded = load_config(Path(config), settings or ())
    for look in itertools.count(1):
        state, waits_for = _go_on(loaded)
        if not waits_for:
            return state
        form = AnnotationIsBack.with_initial_data(
            description=f"**{loaded.name}** waits for {waits_for}\n\nResume when it is back, all or a part."
        )
        # of a look that an earlier process of this run had, the answer comes at once
        answer = suspend_flow_run(wait_for_input=form, key=f"look-{look}", timeout=None)
        if not answer.look_again:
            break
    return state


class _Runner(Runner):
    """Ends on SIGTERM, with the runs that it started; Prefect's own handler forgets to await its stop."""

    def handle_sigterm(self, *args: Any, **kwargs: Any) -> None:
        if self._loop is None or not self.started:
            sys.exit(0)
        asyncio.run_coroutine_threadsafe(self.astop(), self._loop)


def serve(display: Display, limit: int = 1) -> None:
    """Offer the flow to the Prefect server, and run what it starts, until the process is told to end.

    Args:
        display: says how a campaign is started.
        limit: how many campaigns may run at once.

    Raises:
        ConfigError: where no server is named, or it cannot be reached.
    """
    url = get_current_settings().api.url
    if not url:
        raise ConfigError(
            "Serving campaigns needs a Prefect server that stays when this command ends: start one with "
            "'prefect server start', and name it with PREFECT_API_URL=http://127.0.0.1:4200/api"
        )
    with get_client(sync_client=True) as client:
        problem = client.api_healthcheck()
    if problem is not None:
        raise ConfigError(f"The Prefect server {url} does not answer ({problem}); is it started?")
    runner = _Runner(name=NAME, limit=limit)
    runner.add_flow(campaign, name=NAME)
    display.say(f"Serving; to start one: prefect deployment run {NAME}/{NAME} -p config=FILE")
    asyncio.run(runner.start())


def _go_on(config: ActiveLearningConfig) -> tuple[str, str]:
    """State of the campaign, and what it waits for; nothing where it does not wait."""
    try:
        opened = launch(config, Display(quiet=True))
    except AnnotationError as error:
        return "awaiting annotation", f"corrected annotations: {error}"
    except BusyError as error:
        return "running", f"another process to end: {error}"
    found = status(opened)
    return str(found["state"]), str(found["waits_for"] or "")
