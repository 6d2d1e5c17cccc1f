import json
import logging
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from flows import campaign as campaigns
from flows.campaign import Campaign
from flows.config import load_config
from flows.config_files import flatten
from flows.stages import run_stage, write_json
from flows.tracking import Tracker, charts_link, server_command, tracking_uri

BUDGET = {"cases": 3.0, "structures": 6.0, "slices": 20.0, "foreground_voxels": 700.0, "minutes": 16.0}


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with tables and nothing in them: making the tables takes MLflow seconds."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def campaign(make_campaign_yaml: Callable[..., Path], empty_store: Path) -> Campaign:
    config = load_config(make_campaign_yaml("scans", {"strategy": "quality", "experiment": "livers"}))
    config.campaigns_root.mkdir()
    shutil.copyfile(empty_store, config.campaigns_root / "mlflow.db")
    campaign = campaigns.create_or_open(config)
    campaign.append(
        "start",
        dataset="Tiny",
        dataset_sha256="d" * 64,
        config_sha256="c" * 64,
        code_version="0.1.0",
        held_out=["a", "b"],
        start=["c", "d", "e"],
        pool=["f", "g", "h", "i"],
    )
    return campaign


@pytest.fixture
def client(campaign: Campaign) -> MlflowClient:
    return MlflowClient(tracking_uri=tracking_uri(campaign.folder.parent))


def add_result(campaign: Campaign, number: int, dsc: float) -> None:
    campaign.append(
        "result",
        round=number,
        labelled_cases=3 + 2 * number,
        budget={name: (1 + number) * amount for name, amount in BUDGET.items()},
        dsc=dsc,
        nsd=0.5,
        dsc_per_structure={"liver": dsc, "Kidney (L)": None},
        nsd_per_structure={"liver": 0.5, "Kidney (L)": None},
    )

    def train(folder: Path) -> None:
        write_json(folder / "curves.json", [{"step": step, "loss": 1.0 / step} for step in (1, 2, 3)])

    run_stage(campaign.round_folder(number), "train", {"seed": number}, train)


def add_selection(campaign: Campaign, number: int) -> None:
    folder = campaign.round_folder(number)
    (folder / "ranked.csv").write_text("rank,case_id,priority,selected\n0,f,0.9,True\n1,g,0.1,False\n")
    (folder / "figures").mkdir()
    (folder / "figures" / "trial.png").write_bytes(b"picture")
    campaign.append("selection", round=number, selected=["f"])
    campaign.append("trial", round=number, estimator={"spearman": 0.5, "mae": None, "n": 2, "missing": 0})


def runs(client: MlflowClient, kind: str) -> list[Run]:
    experiment = client.get_experiment_by_name("livers")
    assert experiment is not None
    query = f"tags.`sentinel_loop.kind` = '{kind}'"
    return list(client.search_runs([experiment.experiment_id], query, order_by=["attributes.start_time"]))


def history(client: MlflowClient, run: Run, name: str) -> list[tuple[int, float]]:
    return [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name)]


def metric_rows(campaign: Campaign) -> int:
    with sqlite3.connect(campaign.folder.parent / "mlflow.db") as store:
        (rows,) = store.execute("select count(*) from metrics").fetchone()
    store.close()
    return int(rows)


class TestParentRun:
    def test_metrics_over_rounds(self, campaign: Campaign, client: MlflowClient) -> None:
        add_result(campaign, 0, 0.25)
        add_selection(campaign, 0)
        add_result(campaign, 1, 0.75)
        assert Tracker(campaign=campaign).sync()

        (run,) = runs(client, "campaign")
        assert run.info.run_name == "tiny"
        for name in ("dsc", "All/DSC", "DSC/liver"):
            assert history(client, run, name) == [(0, 0.25), (1, 0.75)]
        assert history(client, run, "labelled_cases") == [(0, 3.0), (1, 5.0)]
        assert history(client, run, "used_budget/minutes") == [(0, 16.0), (1, 32.0)]
        assert history(client, run, "estimator/spearman") == [(0, 0.5)]
        assert "estimator/mae" not in run.data.metrics, "what is not known is not logged"
        assert not [name for name in run.data.metrics if "Kidney" in name]

    def test_the_whole_config_and_where_the_data_come_from(
        self, campaign: Campaign, client: MlflowClient
    ) -> None:
        Tracker(campaign=campaign).sync()
        (run,) = runs(client, "campaign")
        assert run.data.params.keys() == flatten(campaign.values).keys()
        assert run.data.params["segmenter.patch"] == "[8, 8, 8]"
        assert run.data.tags["strategy"] == "quality"
        assert run.data.tags["dataset_sha256"] == "d" * 64
        note = run.data.tags["mlflow.note.content"]
        assert "chooses among 4 cases and measures on 2 held-out cases" in note

    def test_its_status_is_that_of_the_campaign(self, campaign: Campaign, client: MlflowClient) -> None:
        tracker = Tracker(campaign=campaign)
        tracker.sync()
        assert runs(client, "campaign")[0].info.status == "RUNNING"
        campaigns.record_failure(campaign.folder, OSError("No space left on device"))
        tracker.sync()
        assert runs(client, "campaign")[0].info.status == "FAILED"
        campaigns.forget_failure(campaign.folder)
        tracker.sync()
        assert runs(client, "campaign")[0].info.status == "RUNNING"
        campaign.append("finished", why="all rounds are done")
        tracker.sync()
        assert runs(client, "campaign")[0].info.status == "FINISHED"
        assert runs(client, "campaign")[0].info.end_time is not None


class TestChildRuns:
    def test_one_for_each_round_with_its_curves(self, campaign: Campaign, client: MlflowClient) -> None:
        add_result(campaign, 0, 0.25)
        add_selection(campaign, 0)
        add_result(campaign, 1, 0.75)
        campaign.append("finished", why="all rounds are done")
        Tracker(campaign=campaign).sync()

        (parent,), children = runs(client, "campaign"), runs(client, "round")
        assert [child.info.run_name for child in children] == ["tiny round 0", "tiny round 1"]
        assert {child.data.tags["mlflow.parentRunId"] for child in children} == {parent.info.run_id}
        assert {child.info.status for child in children} == {"FINISHED"}
        assert history(client, children[1], "held_out/dsc") == [(1, 0.75)]
        assert history(client, children[0], "train/loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]

    def test_selection_and_pictures_of_a_finished_round(
        self, campaign: Campaign, client: MlflowClient, tmp_path: Path
    ) -> None:
        add_result(campaign, 0, 0.25)
        Tracker(campaign=campaign).sync()
        (child,) = runs(client, "round")
        assert client.list_artifacts(child.info.run_id) == [], "the round is not over"

        add_selection(campaign, 0)
        Tracker(campaign=campaign).sync()
        (child,) = runs(client, "round")
        names = [file.path for file in client.list_artifacts(child.info.run_id)]
        assert names == ["figures", "ranked.json", "selection.json"]
        found = client.download_artifacts(child.info.run_id, "selection.json", str(tmp_path))
        assert json.loads(Path(found).read_text())["selected"] == ["f"]
        (parent,) = runs(client, "campaign")
        assert client.list_artifacts(parent.info.run_id, "figures/round_000")[0].path.endswith("trial.png")
        assert (campaign.folder.parent / "mlflow-artifacts" / "livers").is_dir()


class TestSync:
    def test_twice_changes_nothing(self, campaign: Campaign, client: MlflowClient) -> None:
        add_result(campaign, 0, 0.25)
        add_selection(campaign, 0)
        add_result(campaign, 1, 0.75)
        Tracker(campaign=campaign).sync()
        rows = metric_rows(campaign)
        assert rows > 20

        assert Tracker(campaign=campaigns.open_campaign(campaign.folder)).sync()
        assert metric_rows(campaign) == rows
        assert history(client, runs(client, "campaign")[0], "dsc") == [(0, 0.25), (1, 0.75)]
        assert len(runs(client, "round")) == 2

    def test_round_by_round_gives_what_all_at_once_gives(
        self, campaign: Campaign, client: MlflowClient, empty_store: Path
    ) -> None:
        for number in (0, 1):
            add_result(campaign, number, number / 4)
            Tracker(campaign=campaign).sync()
            add_selection(campaign, number)
            Tracker(campaign=campaign).sync()
        rows = metric_rows(campaign)
        shutil.copyfile(empty_store, campaign.folder.parent / "mlflow.db")
        assert Tracker(campaign=campaign).sync(), "a store that was lost is filled again"
        assert metric_rows(campaign) == rows
        assert history(client, runs(client, "campaign")[0], "dsc") == [(0, 0.0), (1, 0.25)]

    def test_a_campaign_without_a_ledger_has_nothing_to_show(
        self, make_campaign_yaml: Callable[..., Path]
    ) -> None:
        fresh = campaigns.create_or_open(load_config(make_campaign_yaml("scans"), ["name=fresh"]))
        assert Tracker(campaign=fresh).sync()
        assert not (fresh.folder.parent / "mlflow.db").exists()

    def test_a_campaign_of_the_same_name_is_another_run(
        self, campaign: Campaign, client: MlflowClient
    ) -> None:
        Tracker(campaign=campaign).sync()
        start = campaign.ledger.entries()[0].payload
        campaign.ledger.path.unlink()
        again = campaigns.open_campaign(campaign.folder)
        again.ledger.append("start", at="2001-01-01T00:00:00.000+00:00", **start)
        Tracker(campaign=again).sync()
        assert len(runs(client, "campaign")) == 2

    @pytest.mark.parametrize(
        "uri",
        [
            "http://127.0.0.1:1",
            "sqlite:///{tmp_path}/file/mlflow.db",
            "sqlite:///{tmp_path}/file",
        ],
        ids=["no server", "no such folder", "no database"],
    )
    def test_a_store_out_of_reach_is_a_warning(
        self,
        campaign: Campaign,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        uri: str,
    ) -> None:
        (tmp_path / "file").write_text("this is no database, however long one looks at it\n" * 100)
        uri = uri.format(tmp_path=tmp_path)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        with caplog.at_level(logging.WARNING, logger="flows.tracking"):
            assert not Tracker(campaign=campaign).sync()
        (record,) = [record for record in caplog.records if record.name == "flows.tracking.campaigns"]
        assert record.levelno == logging.WARNING
        assert f"MLflow at {uri} cannot be written" in record.getMessage()
        assert f"run `sentinel-loop track {campaign.folder}` later" in record.getMessage()


class TestWhere:
    def test_beside_the_campaigns(self, tmp_path: Path) -> None:
        assert tracking_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"

    def test_or_where_the_user_says(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
        assert tracking_uri(tmp_path) == "http://mlflow:5000"
        assert "http://mlflow:5000" in server_command(tmp_path, "127.0.0.1", 5001)

    def test_the_link_filters_the_runs_of_campaigns(self) -> None:
        assert charts_link("http://127.0.0.1:5000", "7") == (
            "http://127.0.0.1:5000/#/experiments/7/runs?workflowType=machine_learning&compareRunsMode=CHART"
            "&searchFilter=tags.%60sentinel_loop.kind%60%20%3D%20%27campaign%27"
        )

    def test_two_campaigns_share_an_experiment(
        self, campaign: Campaign, make_campaign_yaml: Callable[..., Path]
    ) -> None:
        config = load_config(make_campaign_yaml("scans", {"experiment": "livers"}), ["name=other"])
        other = campaigns.create_or_open(config)
        assert Tracker(campaign=other).experiment_id() == Tracker(campaign=campaign).experiment_id()
