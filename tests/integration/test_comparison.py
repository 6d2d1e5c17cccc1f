"""Whole comparisons through real Prefect and real MLflow, on files in a temporary folder."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.tracking import MlflowClient

from cohort.volume import write_volume
from flows import campaign as campaigns
from flows import cli
from flows.campaign import Campaign
from flows.comparison_config import load_comparison
from flows.config import load_config
from flows.launch import launch, launch_comparison, report_comparison
from flows.progress import Display
from flows.stages import is_whole
from flows.tracking import tracking_uri
from flows.tracking.store import KIND

pytestmark = pytest.mark.slow

Make = Callable[[int], np.ndarray]
WriteYaml = Callable[..., Path]
ARMS = {"random": {"set": {"strategy": "random"}}, "quality": {"set": {"strategy": "quality"}}}


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory, affine: np.ndarray, make_label_map: Make) -> Path:
    """Nine cases in which a network can see something."""
    root, training = tmp_path_factory.mktemp("scans"), []
    for number in range(9):
        labels, name = make_label_map(number), f"case_{number:02d}.nii.gz"
        noise = np.random.default_rng(number).normal(0.0, 20.0, labels.shape)
        write_volume(root / "imagesTr" / name, (100.0 * labels + noise).astype(np.float32), affine)
        write_volume(root / "labelsTr" / name, labels, affine)
        training.append({"image": f"imagesTr/{name}", "label": f"labelsTr/{name}"})
    labels_of = {"0": "background", "1": "liver", "2": "spleen"}
    (root / "dataset.json").write_text(
        json.dumps({"name": "Tiny", "labels": labels_of, "training": training})
    )
    return root


@pytest.fixture(scope="module")
def write(scans: Path, write_campaign_yaml: WriteYaml) -> Callable[..., Path]:
    """Write a comparison of two arms below a folder; what is given replaces a key."""

    def make(folder: Path, **changes: object) -> Path:
        write_campaign_yaml(folder / "base.yaml", scans, {"rounds": 2, "name": None})
        values = {
            "name": "two",
            "campaign": "base.yaml",
            "root": str(folder / "comparisons"),
            "seeds": [0, 1],
            "arms": ARMS,
            **changes,
        }
        path = folder / "two.yaml"
        path.write_text(yaml.safe_dump(values, sort_keys=False))
        return path

    return make


def compare(path: Path) -> dict[str, str]:
    comparison = load_comparison(path)
    return launch_comparison(comparison, comparison.units, Display(quiet=True))


def opened(path: Path, name: str) -> Campaign:
    return campaigns.open_campaign(load_comparison(path).config.campaigns_root / name)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, write: Callable[..., Path]) -> Path:
    """The YAML of a comparison that nobody disturbed."""
    path = write(tmp_path_factory.mktemp("undisturbed"))
    assert compare(path) == {}
    return path


def payloads(campaign: Campaign, kind: str) -> list[Mapping[str, Any]]:
    return [entry.payload for entry in campaign.events(kind)]


def computed(campaign: Campaign) -> dict[str, object]:
    """What a campaign computed, whoever computed it."""
    measured = ("round", "dsc", "nsd", "dsc_per_structure", "checkpoint_sha256", "training_set", "budget")
    return {
        "selections": [
            (s["round"], s["selected"], s["ranked_sha256"]) for s in payloads(campaign, "selection")
        ],
        "annotations": [(a["round"], a["case_id"], a["sha256"]) for a in payloads(campaign, "annotation")],
        "results": [{key: result[key] for key in measured} for result in payloads(campaign, "result")],
        "trials": [(t["round"], t["estimator"], t["revealed_dsc"]) for t in payloads(campaign, "trial")],
    }


class TestSharedRoundZero:
    @pytest.mark.parametrize("arm", ["random", "quality"])
    def test_a_unit_comes_to_what_a_campaign_alone_comes_to(
        self, finished: Path, tmp_path: Path, arm: str
    ) -> None:
        values = opened(finished, f"{arm}-seed1").values
        path = tmp_path / "alone.yaml"
        path.write_text(yaml.safe_dump({**values, "campaigns_root": str(tmp_path / "alone")}))
        alone = launch(load_config(path), Display(quiet=True))
        assert computed(opened(finished, f"{arm}-seed1")) == computed(alone)

    def test_arms_of_a_seed_train_it_once(self, finished: Path) -> None:
        for seed in (0, 1):
            stages = [
                sorted((opened(finished, f"{arm}-seed{seed}").round_folder(0)).glob("[!.]*/stage.json"))
                for arm in ARMS
            ]
            shared = [path.parent.name for path in stages[0]]
            assert [name.rpartition("-")[0] for name in shared] == [
                "evaluate",
                "segment-held-out",
                "segment-pool",
                "train",
            ]
            theirs = {path.parent.name: path for path in stages[1]}
            assert all(path.samefile(theirs[path.parent.name]) for path in stages[0])
            assert any(name.startswith("sentinel-") for name in theirs)

    def test_the_same_command_again_changes_nothing(self, finished: Path) -> None:
        units = load_comparison(finished).units
        before = {unit.name: (unit.folder / "ledger.jsonl").read_bytes() for unit in units}
        assert compare(finished) == {}
        assert {unit.name: (unit.folder / "ledger.jsonl").read_bytes() for unit in units} == before


class TestLight:
    def test_masks_and_weights_go_and_a_later_arm_takes_round_zero(
        self, finished: Path, tmp_path: Path, write: Callable[..., Path]
    ) -> None:
        path = write(tmp_path, keep="light", seeds=[0], arms={"random": ARMS["random"]})
        assert compare(path) == {}
        campaign = opened(path, "random-seed0")
        (pruned,) = payloads(campaign, "pruned")
        assert pruned["files"] > 5
        later = [file for file in campaign.round_folder(1).rglob("*") if file.is_file()]
        assert {file.name for file in later} == {"stage.json", "curves.json", "results.csv"}
        assert all(is_whole(stage.parent) for stage in campaign.round_folder(0).glob("*/stage.json"))

        path = write(tmp_path, keep="light", seeds=[0])
        assert compare(path) == {}
        assert computed(opened(path, "quality-seed0")) == computed(opened(finished, "quality-seed0"))
        trained = [
            next(opened(path, f"{arm}-seed0").round_folder(0).glob("train-*/stage.json")) for arm in ARMS
        ]
        assert trained[0].samefile(trained[1])


class TestReport:
    def test_page_tables_and_mlflow_say_the_same(self, finished: Path) -> None:
        comparison = load_comparison(finished)
        for _ in range(2):
            page = report_comparison(comparison).page
        assert "4 of 4 campaigns are finished" in page.read_text()
        rounds = pd.read_parquet(page.parent / "tables" / "rounds.parquet")
        assert len(rounds) == 4 * 2

        client = MlflowClient(tracking_uri=tracking_uri(comparison.config.campaigns_root))
        experiment = client.get_experiment_by_name("two").experiment_id
        (run,) = client.search_runs([experiment], f"tags.`{KIND}` = 'comparison'")
        final = rounds[(rounds["arm"] == "quality") & (rounds["round"] == 1)]["dsc"].mean()
        assert run.data.metrics["quality/final_dsc"] == pytest.approx(final)
        children = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'")
        assert {child.info.run_name for child in children} == {unit.name for unit in comparison.units}
        assert all(child.info.run_id in run.data.tags["mlflow.note.content"] for child in children)
        assert {file.path for file in client.list_artifacts(run.info.run_id)} == {
            "comparison.json",
            "report.html",
            "tables",
        }

    def test_other_settings_do_not_blank_it(
        self, finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """As where --set was forgotten: none of the campaigns counts then."""
        page, finished_units, planned = report_comparison(load_comparison(finished))
        assert (finished_units, planned) == (4, 4)
        before = page.read_bytes()
        command = ["sentinel-loop", "compare", "--config", str(finished), "--report-only"]
        monkeypatch.setattr(sys, "argv", [*command, "--set", "segmenter.steps=99"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 2
        shown = " ".join(capsys.readouterr().err.split())
        assert f"No finished campaign has these settings, so {page} is left as it is" in shown
        assert "segmenter.steps: 3 -> 99" in shown
        assert page.read_bytes() == before
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 0
        assert f"The report, of 4 of 4 campaigns: {page}" in capsys.readouterr().out


class TestFailures:
    def test_a_unit_that_fails_does_not_stop_the_others(
        self,
        tmp_path: Path,
        write: Callable[..., Path],
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        path = write(tmp_path, seeds=[0])
        folder = load_comparison(path).config.campaigns_root / "random-seed0"
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("seed: 5\n")
        monkeypatch.setattr(sys, "argv", ["sentinel-loop", "compare", "--quiet", "--config", str(path)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 1
        shown = " ".join(capsys.readouterr().err.split())
        assert f"random-seed0 failed: The folder {folder} was made with another config" in shown
        assert "1 of 2 campaigns failed" in shown
        assert campaigns.state(opened(path, "quality-seed0")) == "finished"


class TestKills:
    @pytest.fixture
    def environment(self, tmp_path: Path) -> dict[str, str]:
        own = {
            name: value for name, value in os.environ.items() if not name.startswith(("PREFECT", "MLFLOW"))
        }
        return {**own, "HOME": str(tmp_path), "PYTHONPATH": str(Path(cli.__file__).parents[1])}

    def test_a_killed_comparison_goes_on_in_two_processes(
        self, finished: Path, tmp_path: Path, write: Callable[..., Path], environment: dict[str, str]
    ) -> None:
        path = write(tmp_path)
        command = [
            sys.executable,
            "-c",
            "from flows import cli; cli.main()",
            "compare",
            "-q",
            "-c",
            str(path),
        ]
        folder = load_comparison(path).config.campaigns_root / "random-seed0"
        with subprocess.Popen(command, env=environment) as process:
            while not list(folder.glob("rounds/001/train-*")):
                assert process.poll() is None, "the comparison ended before it could be killed"
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        assert campaigns.state(opened(path, "random-seed0")) == "interrupted"

        both = [subprocess.Popen(command, env=environment) for _ in range(2)]
        assert [process.wait() for process in both] == [0, 0]
        for unit in load_comparison(path).units:
            found = opened(path, unit.name)
            assert campaigns.state(found) == "finished"
            assert computed(found) == computed(opened(finished, unit.name))
            assert len(payloads(found, "start")) == 1
        assert not list(folder.parent.glob("*/process.json"))
