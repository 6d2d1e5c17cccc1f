import http.server
import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from cohort.errors import AnnotationError, BusyError, ConfigError
from flows import campaign as campaigns
from flows import cli, launch, mlflow_ui
from flows.campaign import Campaign
from flows.config import load_config
from flows.tracking import Tracker

Run = Callable[..., tuple[int, str, str]]
COMMANDS = ("active-learning", "status", "track", "score", "audit", "train-sentinel", "ui")


@pytest.fixture
def campaign(make_campaign_yaml: Callable[..., Path]) -> Campaign:
    found = campaigns.create_or_open(load_config(make_campaign_yaml("scans")))
    found.append("start")
    found.append(
        "result",
        round=0,
        labelled_cases=3,
        budget={"minutes": 16.0},
        dsc=0.25,
        nsd=0.5,
        dsc_per_structure={"liver": 0.25},
        nsd_per_structure={"liver": 0.5},
    )
    return found


def test_no_arguments_show_the_commands(run: Run) -> None:
    _, out, err = run()
    for command in COMMANDS:
        assert command in out + err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(run: Run, command: str) -> None:
    code, out, _ = run(command, "--help")
    assert code == 0
    assert "Usage" in out


@pytest.mark.parametrize(
    "arguments", [("active-learnin",), ("active-learning",), ("status",), ("ui", "x", "--port", "many")]
)
def test_a_command_that_is_not_understood(run: Run, arguments: tuple[str, ...]) -> None:
    code, _, err = run(*arguments)
    assert code == 2
    assert "Traceback" not in err
    assert "Usage" in err


class TestStatus:
    def test_a_table_for_people(self, run: Run, campaign: Campaign) -> None:
        code, out, _ = run("status", "tiny", "--campaigns-root", str(campaign.folder.parent))
        assert code == 0
        assert "tiny: interrupted" in out
        assert "0.250" in out
        assert "Waits for the command that started it" in out

    def test_json_for_programs(self, run: Run, campaign: Campaign) -> None:
        code, out, _ = run("status", str(campaign.folder), "--json")
        assert code == 0
        found = json.loads(out)
        assert (found["campaign"], found["state"], found["rounds"][0]["dsc"]) == ("tiny", "interrupted", 0.25)

    def test_a_finished_campaign_waits_for_nothing(self, run: Run, campaign: Campaign) -> None:
        campaign.append("finished", why="all rounds are done")
        _, out, _ = run("status", str(campaign.folder))
        assert "Waits" not in out

    def test_an_unknown_campaign(self, run: Run, campaign: Campaign) -> None:
        code, out, err = run("status", "huge", "--campaigns-root", str(campaign.folder.parent))
        assert (code, out) == (2, "")
        assert err.startswith(f"Error: There is no campaign at {campaign.folder.parent / 'huge'}")
        assert err.endswith("campaigns beside it: tiny\n")

    def test_a_name_goes_before_a_folder_here(
        self, run: Run, campaign: Campaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert run("status", "tiny")[0] == 0, "below campaigns/"
        campaign.folder.rename(tmp_path / "tiny")
        assert run("status", "tiny")[0] == 0, "here"
        monkeypatch.chdir(tmp_path / "tiny")
        code, out, _ = run("status", ".", "--json")
        assert code == 0
        assert json.loads(out)["campaign"] == "tiny"

    def test_a_broken_config(self, run: Run, campaign: Campaign) -> None:
        path = campaign.folder / "config.yaml"
        path.write_text("a: [1,")
        code, _, err = run("status", str(campaign.folder))
        assert (code, err) == (2, f"Error: {path} is not valid YAML any more; restore it from a copy\n")

    def test_a_broken_ledger(self, run: Run, campaign: Campaign) -> None:
        campaign.ledger.path.write_text("no json\n")
        code, _, err = run("status", str(campaign.folder))
        assert code == 2
        assert err.startswith(f"Error: Line 1 of the ledger {campaign.ledger.path} is broken")


class TestIngest:
    def test_a_watch_goes_on_after_a_typo_and_beside_another_process(
        self, run: Run, campaign: Campaign, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answers = iter([AnnotationError("confirmed is 'ja'"), BusyError("it is at work"), None])

        def look(opened: Campaign) -> None:
            answer = next(answers)
            if answer is not None:
                raise answer

        monkeypatch.setattr(launch, "launch_ingest", look)
        code, out, err = run("ingest", str(campaign.folder), "--watch", "0.01")
        assert (code, err) == (0, "")
        assert out.splitlines() == [
            "not yet  confirmed is 'ja'",
            "not yet  it is at work",
            "tiny does not wait for annotation",
        ]

    def test_one_look_ends_with_the_mistake(
        self, run: Run, campaign: Campaign, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def look(opened: Campaign) -> None:
            raise AnnotationError("confirmed is 'ja'")

        monkeypatch.setattr(launch, "launch_ingest", look)
        assert run("ingest", str(campaign.folder)) == (2, "", "Error: confirmed is 'ja'\n")


class TestTrack:
    def test_success(self, run: Run, campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Tracker, "sync", lambda self: True)
        assert run("track", str(campaign.folder)) == (0, "tiny is in MLflow\n", "")

    def test_failure_says_that_nothing_is_lost(
        self, run: Run, campaign: Campaign, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Tracker, "sync", lambda self: False)
        code, out, err = run("track", str(campaign.folder))
        assert (code, out) == (2, "")
        assert "MLflow could not be written; the ledger of" in err


class TestEnds:
    def test_an_error_may_look_like_markup(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail() -> None:
            raise ConfigError("checkpoint_steps [9] lie after [/red] the last step")

        monkeypatch.setattr(cli, "app", fail)
        code, _, err = run()
        assert (code, err) == (2, "Error: checkpoint_steps [9] lie after [/red] the last step\n")

    def test_a_disk_that_refuses_is_no_traceback(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail() -> None:
            raise PermissionError(13, "Permission denied", "campaigns")

        monkeypatch.setattr(cli, "app", fail)
        code, _, err = run()
        assert (code, err) == (2, "Error: [Errno 13] Permission denied: 'campaigns'\n")

    def test_a_defect_is_not_hidden(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail() -> None:
            raise ZeroDivisionError("a defect")

        monkeypatch.setattr(cli, "app", fail)
        with pytest.raises(ZeroDivisionError, match="a defect"):
            cli.main()

    def test_ctrl_c_tells_how_to_go_on(
        self, run: Run, campaign: Campaign, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(found: Campaign) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("flows.status.status", interrupted)
        code, _, err = run("status", str(campaign.folder))
        assert code == 130
        assert "Stopped; the same command goes on from here." in err


class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        return None


class FakeServer:
    """In place of MLflow's server process."""

    def __init__(self, returncode: int | None = None) -> None:
        self.returncode, self.terminated = returncode, False

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if timeout is None:
            raise KeyboardInterrupt
        return 0

    def terminate(self) -> None:
        self.terminated = True


@pytest.fixture
def healthy() -> Iterator[int]:
    """Port of a server that says that it is well."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Healthy) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


class TestUi:
    @pytest.fixture(autouse=True)
    def no_store(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Tracker, "sync", lambda self: True)
        monkeypatch.setattr(Tracker, "experiment_id", lambda self: "7")

    def test_serves_the_store_and_prints_the_link(
        self, run: Run, campaign: Campaign, monkeypatch: pytest.MonkeyPatch, healthy: int
    ) -> None:
        server, commands = FakeServer(), []
        monkeypatch.setattr(mlflow_ui, "free_port", lambda host, port: healthy)
        monkeypatch.setattr(
            mlflow_ui.subprocess, "Popen", lambda command, **_: commands.append(command) or server
        )
        code, out, err = run("ui", str(campaign.folder))
        assert code == 0
        assert out.startswith(f"http://127.0.0.1:{healthy}/#/experiments/7/runs?")
        assert "Stopped." in err
        assert server.terminated
        (command,) = commands
        assert command[:4] == [sys.executable, "-m", "mlflow", "server"]
        assert f"sqlite:///{campaign.folder.parent}/mlflow.db" in command

    def test_a_server_that_ends_at_once(
        self, run: Run, campaign: Campaign, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server = FakeServer(1)

        def ends(command: list[str], *, stdout: IO[bytes], stderr: IO[bytes]) -> FakeServer:
            stderr.write(b"no such store")
            return server

        monkeypatch.setattr(mlflow_ui.subprocess, "Popen", ends)
        code, out, err = run("ui", str(campaign.folder), "--port", "0")
        assert (code, out) == (2, "")
        assert "MLflow's server ended at once: no such store" in err
        assert server.terminated

    def test_a_store_on_a_server_of_its_own_needs_no_other(
        self, run: Run, campaign: Campaign, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000/")
        monkeypatch.setattr(mlflow_ui.subprocess, "Popen", None)
        code, out, _ = run("ui", str(campaign.folder))
        assert code == 0
        assert out.startswith("http://mlflow:5000/#/experiments/7/runs?")

    def test_a_store_that_cannot_be_written(
        self, run: Run, campaign: Campaign, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Tracker, "sync", lambda self: False)
        code, out, err = run("ui", str(campaign.folder))
        assert (code, out) == (2, "")
        assert "MLflow's store cannot be written, so there is nothing to show" in err
