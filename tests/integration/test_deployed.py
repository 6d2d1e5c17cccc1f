"""A campaign that a real Prefect server starts, suspends and resumes."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from cohort.volume import write_volume
from flows import campaign as campaigns
from flows import cli

pytestmark = pytest.mark.slow

Make = Callable[[int], np.ndarray]
Start = Callable[..., "subprocess.Popen[bytes]"]
SOURCE = Path(cli.__file__).parents[1]
CASES = 8


@pytest.fixture
def root(tmp_path: Path, affine: np.ndarray, make_label_map: Make) -> Path:
    """Cases of which two are without a label."""
    folder, training = tmp_path / "scans", []
    for number in range(CASES):
        labels, name = make_label_map(number), f"case_{number:02d}.nii.gz"
        noise = np.random.default_rng(number).normal(0.0, 20.0, labels.shape)
        write_volume(folder / "imagesTr" / name, (100.0 * labels + noise).astype(np.float32), affine)
        if number not in (0, 1):
            write_volume(folder / "labelsTr" / name, labels, affine)
        training.append({"image": f"imagesTr/{name}", "label": f"labelsTr/{name}"})
    document = {"name": "Tiny", "labels": {"0": "background", "1": "liver", "2": "spleen"}}
    (folder / "dataset.json").write_text(json.dumps({**document, "training": training}))
    (folder / "splits.json").write_text(json.dumps({"held_out": ["case_02", "case_07"]}))
    return folder


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT", "MLFLOW"))}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return {
        **own,
        "HOME": str(tmp_path),
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PYTHONPATH": str(SOURCE),
    }


@pytest.fixture
def started(tmp_path: Path, environment: dict[str, str]) -> Iterator[Start]:
    """Start a command that runs until the test ends; its output stands in `<number>.log`."""
    running: list[subprocess.Popen[bytes]] = []

    def start(*words: str) -> "subprocess.Popen[bytes]":
        with (tmp_path / f"{len(running)}.log").open("wb") as log:
            running.append(
                subprocess.Popen(
                    [sys.executable, *words],
                    env=environment,
                    cwd=SOURCE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
        return running[-1]

    yield start
    for process in reversed(running):
        process.terminate()
        process.wait(timeout=60)


def wait_for(found: Callable[[], Any], what: str, seconds: float = 240.0) -> Any:
    """What a function gives, as soon as it is not None."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if (answer := found()) is not None:
                return answer
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    raise AssertionError(f"waited in vain for {what}")


def test_it_suspends_for_people_and_goes_on(
    tmp_path: Path,
    root: Path,
    write_campaign_yaml: Callable[..., Path],
    environment: dict[str, str],
    started: Start,
    affine: np.ndarray,
    make_label_map: Make,
) -> None:
    changes = {"annotator.kind": "folder", "rounds": 2, "strategy": "random"}
    path = write_campaign_yaml(tmp_path / "people.yaml", root, changes)
    url = environment["PREFECT_API_URL"]
    port = url.split(":")[-1].split("/")[0]
    started("-m", "prefect", "server", "start", "--port", port, "--no-ui")
    with httpx.Client(base_url=f"{url}/", timeout=30.0) as server:
        wait_for(lambda: server.get("health").raise_for_status(), "the server")
        started("-c", "from flows import cli; cli.main()", "serve")

        def deployed() -> str | None:
            answer = server.get("deployments/name/campaign/campaign")
            return str(answer.json()["id"]) if answer.status_code == 200 else None

        deployment = wait_for(deployed, "the deployment")

        def begin() -> str:
            """The server answers 503 while its database is busy; the key makes a second try the same run."""
            wanted = {"parameters": {"config": str(path)}, "state": {"type": "SCHEDULED"}}
            answer = server.post(
                f"deployments/{deployment}/create_flow_run", json={**wanted, "idempotency_key": "people"}
            )
            return str(answer.raise_for_status().json()["id"])

        run = wait_for(begin, "the flow run")

        def state() -> dict[str, Any]:
            answer = server.get(f"flow_runs/{run}").raise_for_status()
            found: dict[str, Any] = answer.json()["state"]
            assert found["type"] not in ("FAILED", "CRASHED"), found["message"]
            return found

        def look(name: str, key: str = "") -> bool | None:
            found = state()
            return True if found["name"] == name and key in str(found["state_details"]) else None

        def resume() -> bool | None:
            """Refused until the form of the suspension has reached the server too."""
            answer = server.post(f"flow_runs/{run}/resume", json={"run_input": {"look_again": True}})
            return True if answer.raise_for_status().json()["status"] == "ACCEPT" else None

        wait_for(lambda: look("Suspended", "look-1"), "the first suspension")
        campaign = campaigns.open_campaign(tmp_path / "campaigns" / "tiny")
        assert campaigns.state(campaign) == "awaiting annotation"
        assert not (campaign.folder / "process.json").exists(), "no process is left behind"
        first, second = campaign.events("selection")[0].payload["selected"]
        done = campaign.folder / "annotation" / "round_000" / "done"

        for case_id, key in ((first, "look-2"), (second, "")):
            number = int(case_id.removeprefix("case_"))
            labels = make_label_map(number)
            labels[0, 0, number] = 1  # no two people draw the same to the voxel
            write_volume(done / f"{case_id}.nii.gz", labels, affine)
            wait_for(resume, "the run to take its resumption")
            wait_for(lambda wanted=key: look("Suspended", wanted) if wanted else look("Completed"), key)
    assert campaigns.state(campaign) == "finished"
    assert [entry.payload["case_id"] for entry in campaign.events("annotation")][-2:] == [first, second]


def test_it_ends_when_it_is_told_to(tmp_path: Path, environment: dict[str, str], started: Start) -> None:
    url = environment["PREFECT_API_URL"]
    port = url.split(":")[-1].split("/")[0]
    started("-m", "prefect", "server", "start", "--port", port, "--no-ui")
    with httpx.Client(base_url=f"{url}/", timeout=30.0) as server:
        wait_for(lambda: server.get("health").raise_for_status(), "the server")
        serving = started("-c", "from flows import cli; cli.main()", "serve")
        log = tmp_path / "1.log"
        wait_for(lambda: "prefect deployment run" in log.read_text() or None, "the deployment")
        time.sleep(3.0)  # until it looks for runs
        serving.terminate()
        assert serving.wait(timeout=30) == 0
        assert "never awaited" not in log.read_text()
        assert "Traceback" not in log.read_text()


def test_without_a_server_it_says_what_to_start(tmp_path: Path, environment: dict[str, str]) -> None:
    own = {n: value for n, value in environment.items() if n not in ("PREFECT_API_URL", "PREFECT_HOME")}
    command = [sys.executable, "-c", "from flows import cli; cli.main()", "serve"]
    told = {}
    for name, variables in (("none", own), ("silent", environment)):
        ended = subprocess.run(
            command, env=variables, cwd=SOURCE, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 2
        told[name] = " ".join(ended.stderr.split())
        assert "Warning" not in told[name]
    assert "start one with 'prefect server start'" in told["none"]
    assert "does not answer" in told["silent"]
