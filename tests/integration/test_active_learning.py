"""Whole campaigns through real Prefect and real MLflow, on files in a temporary folder."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cohort.errors import AnnotationError, CampaignError
from cohort.volume import read_label_map, write_volume
from flows import campaign as campaigns
from flows import cli
from flows.campaign import Campaign
from flows.config import load_config
from flows.launch import launch, launch_ingest
from flows.progress import Display
from flows.status import status

pytestmark = pytest.mark.slow

Make = Callable[[int], np.ndarray]
WriteYaml = Callable[..., Path]
CASES = 9
ROUNDS = {"random": 3, "entropy": 2, "quality": 2}


@pytest.fixture(scope="module")
def scans(
    tmp_path_factory: pytest.TempPathFactory, affine: np.ndarray, make_label_map: Make
) -> Callable[..., Path]:
    """Write nine cases in which a network can see something, and give their root."""

    def write(*, unlabelled: tuple[int, ...] = ()) -> Path:
        root = tmp_path_factory.mktemp("scans")
        training = []
        for number in range(CASES):
            labels, name = make_label_map(number), f"case_{number:02d}.nii.gz"
            noise = np.random.default_rng(number).normal(0.0, 20.0, labels.shape)
            image = (100.0 * labels + noise).astype(np.float32)
            write_volume(root / "imagesTr" / name, image, affine)
            if number not in unlabelled:
                write_volume(root / "labelsTr" / name, labels, affine)
            training.append({"image": f"imagesTr/{name}", "label": f"labelsTr/{name}"})
        document = {"labels": {"0": "background", "1": "liver", "2": "spleen"}, "training": training}
        (root / "dataset.json").write_text(json.dumps({"name": "Tiny", **document}))
        return root

    return write


@pytest.fixture(scope="module")
def shared_scans(scans: Callable[..., Path]) -> Path:
    return scans()


def start(path: Path, *overrides: str) -> Campaign:
    return launch(load_config(path, overrides), Display(quiet=True))


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, shared_scans: Path, write_campaign_yaml: WriteYaml
) -> Callable[[str], Campaign]:
    """A strategy's campaign that nobody disturbed; all of them lie beside each other."""
    folder, done = tmp_path_factory.mktemp("arms"), {}

    def run(strategy: str) -> Campaign:
        if strategy not in done:
            changes = {"strategy": strategy, "rounds": ROUNDS[strategy], "name": None}
            done[strategy] = start(write_campaign_yaml(folder / "arm.yaml", shared_scans, changes))
        return done[strategy]

    return run


def payloads(campaign: Campaign, kind: str) -> list[Mapping[str, Any]]:
    return [entry.payload for entry in campaign.events(kind)]


def computed(campaign: Campaign) -> dict[str, object]:
    """What a campaign computed, whoever was killed on the way."""
    selections, annotations = payloads(campaign, "selection"), payloads(campaign, "annotation")
    results, trials = payloads(campaign, "result"), payloads(campaign, "trial")
    measured = ("round", "dsc", "nsd", "dsc_per_structure", "checkpoint_sha256", "training_set", "budget")
    return {
        "selections": [(s["round"], s["selected"], s["ranked_sha256"]) for s in selections],
        "annotations": [(a["round"], a["case_id"], a["sha256"], a["cost"]) for a in annotations],
        "results": [{key: result[key] for key in measured} for result in results],
        "trials": [(t["round"], t["estimator"], t["revealed_dsc"]) for t in trials],
    }


def query(database: Path, sql: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(database)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def charted(campaign: Campaign, name: str = "dsc") -> list[tuple[int, float]]:
    """A metric over rounds, as MLflow's store has it of the parent run."""
    return query(
        campaign.folder.parent / "mlflow.db",
        f"select metrics.step, metrics.value from metrics join tags using (run_uuid) "
        f"where metrics.key = '{name}' and tags.key = 'mlflow.runName' and tags.value = '{campaign.name}' "
        "order by metrics.step",
    )


@pytest.mark.parametrize("strategy", ROUNDS)
class TestStrategies:
    def test_every_round_is_in_the_ledger(self, finished: Callable[[str], Campaign], strategy: str) -> None:
        campaign, rounds = finished(strategy), ROUNDS[strategy]
        selecting = [f"{kind}" for kind in ("selection", "annotation", "annotation", "trial", "result")]
        events = [entry.event for entry in campaign.ledger.entries()]
        assert events == [
            "start",
            *["annotation"] * 3,
            "result",
            *selecting * (rounds - 1),
            "finished",
        ]
        results = payloads(campaign, "result")
        assert [result["labelled_cases"] for result in results] == [3 + 2 * n for n in range(rounds)]
        assert [result["budget"]["cases"] for result in results] == [3.0 + 2 * n for n in range(rounds)]
        for result in results:
            assert 0.0 < result["dsc"] < 1.0
            assert result["dsc_per_structure"].keys() == {"liver", "spleen"}
        assert status(campaign)["state"] == "finished"

    def test_selections_come_from_the_pool_once(
        self, finished: Callable[[str], Campaign], strategy: str
    ) -> None:
        campaign = finished(strategy)
        (begun,) = payloads(campaign, "start")
        selected = [case_id for s in payloads(campaign, "selection") for case_id in s["selected"]]
        assert set(selected) <= set(begun["pool"])
        assert len(set(selected)) == len(selected)
        annotated = [a["case_id"] for a in payloads(campaign, "annotation")]
        assert annotated == [*begun["start"], *selected]
        assert not set(annotated) & set(begun["held_out"])

    def test_annotations_are_the_references(
        self, finished: Callable[[str], Campaign], strategy: str, shared_scans: Path
    ) -> None:
        for annotation in finished(strategy).annotations():
            reference = read_label_map(shared_scans / "labelsTr" / f"{annotation.case_id}.nii.gz")
            found = read_label_map(annotation.path)
            np.testing.assert_array_equal(found.array, reference.array)
            np.testing.assert_allclose(found.affine, reference.affine)

    def test_mlflow_shows_what_the_ledger_says(
        self, finished: Callable[[str], Campaign], strategy: str
    ) -> None:
        campaign = finished(strategy)
        assert charted(campaign) == [(r["round"], r["dsc"]) for r in payloads(campaign, "result")]
        tracked = [(t["round"], t["estimator"].get("n")) for t in payloads(campaign, "trial")]
        assert charted(campaign, "estimator/n") == [(n, count) for n, count in tracked if count is not None]

    def test_the_figures_are_there(self, finished: Callable[[str], Campaign], strategy: str) -> None:
        campaign = finished(strategy)
        found = {path.name for path in campaign.round_folder(0).glob("figures/*.png")}
        scored = {"worst_and_best.png", "trial.png"} if strategy != "random" else set()
        assert found == {"selected.png", *scored}
        assert (campaign.folder / "figures" / "dsc.png").is_file()

    def test_the_same_command_again_changes_nothing(
        self, finished: Callable[[str], Campaign], strategy: str
    ) -> None:
        campaign = finished(strategy)
        before = campaign.ledger.entries()
        stamps = {path: path.stat().st_mtime_ns for path in campaign.folder.glob("rounds/*/*-*/*")}
        assert len(stamps) > 10
        again = start(campaign.folder / "config.yaml")
        assert again.ledger.entries() == before
        assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


class TestArms:
    def test_all_start_alike(self, finished: Callable[[str], Campaign]) -> None:
        """Strategies differ by what they select, and by nothing before that."""
        begun = [payloads(finished(strategy), "start")[0] for strategy in ROUNDS]
        for key in ("held_out", "start", "pool", "dataset_sha256"):
            assert begun[0][key] == begun[1][key] == begun[2][key]
        first = [payloads(finished(strategy), "result")[0] for strategy in ROUNDS]
        assert len({result["checkpoint_sha256"] for result in first}) == 1
        assert len({result["dsc"] for result in first}) == 1

    def test_only_estimators_score(self, finished: Callable[[str], Campaign]) -> None:
        assert payloads(finished("random"), "trial")[0]["estimator"] == {}
        for strategy in ("entropy", "quality"):
            (trial, *_) = payloads(finished(strategy), "trial")
            assert trial["estimator"]["n"] + trial["estimator"]["missing"] == 4
        names = {path.name.split("-")[0] for path in finished("random").folder.glob("rounds/*/*-*")}
        assert names == {"train", "segment", "evaluate"}

    def test_prefect_completed_every_flow(self, finished: Callable[[str], Campaign]) -> None:
        for strategy in ROUNDS:
            finished(strategy)
        database = Path(os.environ["PREFECT_HOME"]) / "prefect.db"
        runs = query(database, "select name, state_type from flow_run where name like 'arm-%'")
        assert {name for name, _ in runs} == {f"arm-{strategy}-seed0" for strategy in ROUNDS}
        assert {state for _, state in runs} == {"COMPLETED"}

    def test_data_that_changed_are_refused(
        self,
        finished: Callable[[str], Campaign],
        shared_scans: Path,
        affine: np.ndarray,
        make_label_map: Make,
    ) -> None:
        campaign = finished("random")
        path = shared_scans / "labelsTr" / "case_03.nii.gz"
        kept, before = path.read_bytes(), campaign.ledger.entries()
        write_volume(path, np.flip(make_label_map(3), axis=0), affine)
        try:
            with pytest.raises(CampaignError, match="started with other data: dataset_sha256 changed"):
                start(campaign.folder / "config.yaml")
        finally:
            path.write_bytes(kept)
        assert campaign.ledger.entries() == before


class TestTrial:
    def test_a_ranking_without_evidence_gives_way(
        self, tmp_path: Path, shared_scans: Path, write_campaign_yaml: WriteYaml
    ) -> None:
        """Three cases have six orders, so that no ranking of them can convince with 95 % confidence."""
        changes = {
            "strategy": "entropy",
            "start.cases": 1,
            "budget.per_round": 3,
            "trial": {"fallback": "random", "min_cases": 3, "confidence": 0.95},
        }
        campaign = start(write_campaign_yaml(tmp_path / "trial.yaml", shared_scans, changes))
        first, second = payloads(campaign, "selection")
        assert (first["used_strategy"], first["evidence"]) == ("entropy", None)
        assert second["used_strategy"] == "random"
        assert second["evidence"]["cases"] == 3
        assert second["evidence"]["p"] > 0.05

    def test_one_sentinel_serves_several_rounds(
        self, tmp_path: Path, shared_scans: Path, write_campaign_yaml: WriteYaml
    ) -> None:
        changes = {"strategy": "quality", "rounds": 3, "budget.per_round": 1, "trial.retrain_every": 2}
        campaign = start(write_campaign_yaml(tmp_path / "trial.yaml", shared_scans, changes))
        trained = sorted(path.parent.name for path in campaign.folder.glob("rounds/*/sentinel-*"))
        assert trained == ["000"]
        assert len(list(campaign.folder.glob("rounds/001/score-*/scores.csv"))) == 1
        assert len(payloads(campaign, "selection")) == 2


class TestPeople:
    """Annotation through a folder: the campaign stops, and the same command goes on."""

    @pytest.fixture
    def path(self, tmp_path: Path, scans: Callable[..., Path], write_campaign_yaml: WriteYaml) -> Path:
        root = scans(unlabelled=(0, 1, 3, 5))
        (root / "splits.json").write_text(json.dumps({"held_out": ["case_02", "case_07"]}))
        return write_campaign_yaml(tmp_path / "people.yaml", root, {"annotator.kind": "folder", "rounds": 2})

    def test_from_waiting_to_finished(
        self, path: Path, affine: np.ndarray, make_label_map: Make, tmp_path: Path
    ) -> None:
        campaign = start(path)
        assert status(campaign)["state"] == "awaiting annotation"
        (selection,) = payloads(campaign, "selection")
        first, second = selection["selected"]
        work = campaign.folder / "annotation" / "round_000"
        assert {file.name for file in (work / "todo").iterdir()} == {f"{first}.nii.gz", f"{second}.nii.gz"}
        assert f"{work / 'done'}: {first}.nii.gz, {second}.nii.gz" in status(campaign)["waits_for"]

        write_volume(work / "done" / f"{first}.nii.gz", np.full((8, 12, 16), 9, np.uint8), affine)
        write_volume(work / "done" / f"{second}.nii.gz", np.ones((8, 12, 15), np.uint8), affine)
        with pytest.raises(AnnotationError) as refused:
            start(path)
        wrong_labels, wrong_grid = str(refused.value).splitlines()
        assert wrong_labels.startswith(f"The annotation of case {first} cannot be used")
        assert wrong_grid.startswith(f"The annotation of case {second} does not fit its scan")
        assert status(campaign)["state"] == "awaiting annotation"
        told = status(campaign)["waits_for"].partition("put aside, to be corrected: ")[2]
        for why, case_id in ((wrong_labels, first), (wrong_grid, second)):
            place = work / "quarantine" / f"{case_id}_1.nii.gz"
            assert f"(it lies in {place}; once it is corrected" in why
            assert why.endswith(f"put it back as {work / 'done' / case_id}.nii.gz)")
            assert why in told
        assert {file.name for file in (work / "quarantine").glob("*.nii.gz")} == {
            f"{first}_1.nii.gz",
            f"{second}_1.nii.gz",
        }
        said = (work / "quarantine" / f"{second}_1.txt").read_text()
        assert wrong_grid.startswith(f"{said.splitlines()[0]} (it lies in ")
        assert f"quarantine/{second}_1.nii.gz; once it is corrected" in said
        assert said.endswith(f"put it back as done/{second}.nii.gz\n")
        assert list((work / "done").iterdir()) == []

        self.put_back(work, first, affine, make_label_map)
        campaign = start(path)
        assert [a["case_id"] for a in payloads(campaign, "annotation")][3:] == [first]
        assert status(campaign)["state"] == "awaiting annotation"
        told = status(campaign)["waits_for"]
        assert f"{work / 'done'}: {second}.nii.gz (" in told
        assert wrong_grid in told, "a later look does not forget it"
        assert wrong_labels not in told

        (masks,) = campaign.folder.glob("rounds/000/segment-pool-*")
        masks.rename(tmp_path / "masks")
        with pytest.raises(
            CampaignError, match=rf"that round 0 of .* sent out are gone, of case {second} among"
        ):
            launch_ingest(campaign)
        (tmp_path / "masks").rename(masks)

        self.put_back(work, second, affine, make_label_map)
        found = launch_ingest(campaign)
        assert found is not None
        assert (found.taken.let_in, found.waits_for) == ((second,), "")
        assert status(campaign)["state"] == "all is back"
        assert "sentinel-loop resume tiny" in status(campaign)["waits_for"]
        campaign = start(path)
        assert status(campaign)["state"] == "finished"
        assert [a["case_id"] for a in payloads(campaign, "annotation")][3:] == [first, second]
        assert [a["annotator"] for a in payloads(campaign, "annotation")][3:] == ["folder", "folder"]
        assert [s["selected"] for s in payloads(campaign, "selection")] == [[first, second]]
        assert [result["labelled_cases"] for result in payloads(campaign, "result")] == [3, 5]

    def test_work_for_slicer_goes_out_and_comes_back(self, path: Path) -> None:
        """What people save over the proposals, under the same names, is what they corrected."""
        slicerio = pytest.importorskip("slicerio")
        campaign = start(path, "annotator.format=seg.nrrd")
        work = campaign.folder / "annotation" / "round_000"
        handed = sorted((work / "todo").iterdir())
        assert [file.name.removeprefix("case_0")[1:] for file in handed] == [".seg.nrrd"] * 2
        for file in handed:
            segmentation = slicerio.read_segmentation(str(file))
            assert [segment["name"] for segment in segmentation["segments"]] == ["liver", "spleen"]
            segmentation["voxels"][2:5, 2:5, 2:5], segmentation["voxels"][6:9, 6:9, 3:6] = 1, 2
            slicerio.write_segmentation(str(work / "done" / file.name), segmentation)
        campaign = start(path, "annotator.format=seg.nrrd")
        assert status(campaign)["state"] == "finished"
        for annotation in campaign.annotations()[3:]:
            found = read_label_map(annotation.path).array
            assert found[3, 3, 3] == 1
            assert found[4, 7, 7] == 2

    def test_a_whole_campaign_through_the_datastore_of_monai_label(
        self,
        path: Path,
        affine: np.ndarray,
        make_label_map: Make,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """What a server would save is put there by hand; `ingest` takes it in, `resume` goes on."""
        campaign = start(path, "annotator.kind=monailabel", "rounds=3")

        def command(*words: str) -> tuple[int, str]:
            monkeypatch.setattr(sys, "argv", ["sentinel-loop", *words])
            try:
                cli.main()
            except SystemExit as ended:
                return int(ended.code or 0), capsys.readouterr().out
            return 0, capsys.readouterr().out

        for number in range(2):
            first, second = payloads(campaign, "selection")[number]["selected"]
            work = campaign.folder / "annotation" / f"round_{number:03d}"
            assert {f.name for f in (work / "studies" / "labels" / "original").iterdir()} == {
                f"{first}.nii.gz",
                f"{second}.nii.gz",
            }
            assert (work / "pictures" / f"{first}.png").is_file()
            final = work / "studies" / "labels" / "final"
            self.put_back(work, first, affine, make_label_map, final)
            code, said = command("ingest", str(campaign.folder))
            assert code == 0, said
            assert f"let in   {first}" in said
            assert f"(as final): {second}" in " ".join(said.split())
            assert status(campaign)["state"] == "awaiting annotation"

            (work / "returns.csv").write_text(f"case_id,skip,reason\n{second},yes,motion\n")
            code, said = command("ingest", str(campaign.folder), "--watch", "0.1", "--resume", "--quiet")
            assert code == 0
            assert f"skipped  {second}: motion" in said
        assert status(campaign)["state"] == "finished"
        assert [result["labelled_cases"] for result in payloads(campaign, "result")] == [3, 4, 5]
        assert [(skip["round"], skip["reason"]) for skip in payloads(campaign, "skip")] == [
            (0, "motion"),
            (1, "motion"),
        ]
        code, said = command("ingest", str(campaign.folder))
        assert (code, said.strip()) == (0, "tiny does not wait for annotation")
        code, said = command("resume", str(campaign.folder), "--quiet")
        assert code == 0
        assert "tiny: finished" in said
        moved = campaign.folder.rename(campaign.folder.with_name("moved"))
        code, said = command("resume", str(moved), "--quiet")
        assert code == 0
        assert "moved: finished" in said
        assert not campaign.folder.exists()

    def test_the_command_line_says_what_it_waits_for_and_what_is_wrong(
        self,
        path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        command = ["sentinel-loop", "active-learning", "--quiet", "--config", str(path)]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert "tiny: awaiting annotation" in shown
        assert "Waits for corrected label maps in" in shown

        work = path.parent / "campaigns" / "tiny" / "annotation" / "round_000"
        name = next((work / "todo").iterdir()).name
        (work / "done" / name).write_bytes((work / "todo" / name).read_bytes()[:-100])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 2
        shown = capsys.readouterr().err
        assert shown.startswith("Error: The annotation of case")
        assert "Traceback" not in shown

    @staticmethod
    def put_back(
        work: Path, case_id: str, affine: np.ndarray, make_label_map: Make, place: Path | None = None
    ) -> None:
        number = int(case_id.removeprefix("case_"))
        labels = make_label_map(number)
        labels[0, 0, number] = 1  # no two people draw the same to the voxel
        write_volume((place or work / "done") / f"{case_id}.nii.gz", labels, affine)


class Interrupted(BaseException):
    """What a kill would be, if a process could survive it."""


class TestInterruptions:
    def test_before_and_after_every_line_of_the_ledger(
        self,
        finished: Callable[[str], Campaign],
        tmp_path: Path,
        shared_scans: Path,
        write_campaign_yaml: WriteYaml,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """One campaign, stopped at each of its steps in turn, comes to what an undisturbed one comes to."""
        undisturbed, append = finished("entropy"), Campaign.append
        waiting = {"before": True, "after": False}

        def stop_once(self: Campaign, kind: str, **payload: object) -> None:
            waiting["before"] = not waiting["before"]
            if not waiting["before"]:
                raise Interrupted
            append(self, kind, **payload)
            raise Interrupted

        changes = {"strategy": "entropy", "rounds": ROUNDS["entropy"]}
        path = write_campaign_yaml(tmp_path / "tiny.yaml", shared_scans, changes)
        monkeypatch.setattr(Campaign, "append", stop_once)
        for _ in range(2 * len(undisturbed.ledger.entries())):
            with pytest.raises(Interrupted):
                start(path)
        campaign = start(path)
        assert status(campaign)["state"] == "finished"
        assert computed(campaign) == computed(undisturbed)
        assert charted(campaign) == charted(undisturbed)


KILL_IN_ANNOTATION = """
import os, signal
from flows import cli
from flows.campaign import Campaign

append = Campaign.append

def killed(self, kind, **payload):
    if kind == "annotation" and self.events("annotation", 0):
        os.kill(os.getpid(), signal.SIGKILL)
    append(self, kind, **payload)

Campaign.append = killed
cli.main()
"""
"""Dies with one of two annotations in the ledger; the file of the other is there, but not its line."""


class TestKills:
    @pytest.fixture
    def environment(self, tmp_path: Path) -> dict[str, str]:
        own = {
            name: value for name, value in os.environ.items() if not name.startswith(("PREFECT", "MLFLOW"))
        }
        return {**own, "HOME": str(tmp_path), "PYTHONPATH": str(Path(cli.__file__).parents[1])}

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Iterator[Path]:
        folder = tmp_path / "campaigns" / "tiny"
        yield folder
        campaigns.end_orphans(folder)

    def test_a_killed_campaign_comes_to_the_same_result(
        self,
        finished: Callable[[str], Campaign],
        folder: Path,
        shared_scans: Path,
        write_campaign_yaml: WriteYaml,
        environment: dict[str, str],
        tmp_path: Path,
    ) -> None:
        changes = {"strategy": "quality", "rounds": ROUNDS["quality"]}
        path = write_campaign_yaml(tmp_path / "tiny.yaml", shared_scans, changes)
        arguments = ["active-learning", "--quiet", "--config", str(path)]
        plain = [sys.executable, "-c", "from flows import cli; cli.main()", *arguments]
        dying = [sys.executable, "-c", KILL_IN_ANNOTATION, *arguments]

        with subprocess.Popen(plain, env=environment) as process:
            wait_for(folder, "rounds/000/.sentinel-*.partial", process)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        campaign = campaigns.open_campaign(folder)
        assert campaigns.state(campaign) == "interrupted"
        assert campaign.event("selection") is None
        first_server = server_of(folder)
        assert is_server(first_server)

        assert subprocess.run(dying, env=environment, check=False).returncode == -signal.SIGKILL
        assert has_ended(first_server), "the killed run's server was ended"
        runs = query(
            folder.parent / ".prefect" / "prefect.db", "select state_type from flow_run order by start_time"
        )
        assert runs == [("CRASHED",), ("RUNNING",)]
        assert len(payloads(campaign, "annotation")) == 3 + 1
        assert len(list((folder / "annotations").glob("[!.]*"))) == 3 + 2

        second_server = server_of(folder)
        campaign = start(path)
        assert has_ended(second_server)
        undisturbed = finished("quality")
        assert status(campaign)["state"] == "finished"
        assert computed(campaign) == computed(undisturbed)
        assert len({a["case_id"] for a in payloads(campaign, "annotation")}) == 5
        assert charted(campaign) == charted(undisturbed)
        assert list(folder.glob("rounds/*/.*.partial")) == []
        assert not (folder / "process.json").exists()


def wait_for(folder: Path, pattern: str, process: "subprocess.Popen[bytes]") -> None:
    while not list(folder.glob(pattern)):
        assert process.poll() is None, f"the campaign ended before {pattern} was there"
        time.sleep(0.01)


def server_of(folder: Path) -> int:
    (server,) = json.loads((folder / "process.json").read_text())["servers"]
    assert isinstance(server, int)
    return server


def has_ended(pid: int) -> bool:
    """Whether a server is gone, within the time that it takes one to shut down on a loaded machine."""
    for _ in range(100):
        if not is_server(pid):
            return True
        time.sleep(0.1)
    return False


def is_server(pid: int) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return False
    return b"prefect.server.api.server" in command
