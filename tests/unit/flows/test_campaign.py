import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from cohort.budget import Cost
from cohort.errors import AnnotationError, CampaignError
from flows import campaign as campaigns
from flows.campaign import Campaign
from flows.config import ActiveLearningConfig, load_config
from flows.config_files import as_dict

MakeYaml = Callable[..., Path]

HOLD = """
import sys, filelock
with filelock.FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""
SERVER = "prefect.server.api.server:create_app"


@pytest.fixture
def config(make_campaign_yaml: MakeYaml) -> ActiveLearningConfig:
    return load_config(make_campaign_yaml("scans"))


@pytest.fixture
def campaign(config: ActiveLearningConfig) -> Campaign:
    return campaigns.create_or_open(config)


@contextmanager
def held_by_another_process(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", HOLD, str(folder / campaigns.LOCK)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield
        finally:
            process.communicate("")


@contextmanager
def sleeping(*words: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A child process that sleeps, with words on its command line."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)", *words]) as process:
        try:
            yield process
        finally:
            process.kill()


def annotate(campaign: Campaign, number: int | None, case_id: str) -> None:
    campaign.append(
        "annotation",
        round=number,
        case_id=case_id,
        structures={"liver": 1.0},
        path=f"annotations/{case_id}.nii.gz",
        sha256="0",
        annotator="folder",
        minutes=1.0,
        cost=Cost.zero().as_dict(),
    )


class TestOpening:
    def test_the_folder_gets_the_resolved_config(
        self, config: ActiveLearningConfig, campaign: Campaign
    ) -> None:
        assert campaign.folder == config.folder
        assert campaign.name == "tiny"
        written = yaml.safe_load((campaign.folder / "config.yaml").read_text())
        assert written == as_dict(config) == campaign.values
        assert written["segmenter"]["overlap"] == 0.5, "defaults are written down too"

    def test_a_second_start_opens_the_same(self, config: ActiveLearningConfig, campaign: Campaign) -> None:
        campaign.append("start")
        before = (campaign.folder / "config.yaml").read_bytes()
        again = campaigns.create_or_open(config)
        assert again.ledger.entries() == campaign.ledger.entries()
        assert (campaign.folder / "config.yaml").read_bytes() == before

    def test_another_config_is_refused_with_the_keys_that_differ(
        self, make_campaign_yaml: MakeYaml, campaign: Campaign
    ) -> None:
        other = load_config(make_campaign_yaml("elsewhere"), ["segmenter.steps=9", "seed=2"])
        with pytest.raises(
            CampaignError, match=r"another config \(seed: 0 -> 2; segmenter\.steps: 3 -> 9\); start it with"
        ):
            campaigns.create_or_open(other)

    def test_data_that_moved_are_no_other_config(
        self, make_campaign_yaml: MakeYaml, campaign: Campaign
    ) -> None:
        campaigns.check_config(load_config(make_campaign_yaml("elsewhere")))

    def test_a_config_from_before_a_key_was_added_is_the_same(
        self, campaign: Campaign, config: ActiveLearningConfig
    ) -> None:
        """The key counts as its default, which is what was done then."""
        path = campaign.folder / campaigns.CONFIG
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        del values["evaluation"], values["budget"]["minutes_per_slice"]
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        campaigns.check_config(config)
        changed = config.model_copy(
            update={"budget": config.budget.model_copy(update={"minutes_per_slice": 9.0})}
        )
        with pytest.raises(CampaignError, match=r"budget\.minutes_per_slice: 0\.2 -> 9\.0"):
            campaigns.check_config(changed)

    def test_a_key_that_is_no_more_is_told(self, campaign: Campaign, config: ActiveLearningConfig) -> None:
        path = campaign.folder / campaigns.CONFIG
        path.write_text(path.read_text(encoding="utf-8") + "temperature: 3\n", encoding="utf-8")
        with pytest.raises(CampaignError, match=r"temperature: 3 -> None"):
            campaigns.check_config(config)

    @pytest.mark.parametrize(
        ("content", "message"),
        [("a: [1,", "is not valid YAML any more"), ("", "does not hold a configuration any more")],
    )
    def test_a_config_that_was_damaged_since(
        self, config: ActiveLearningConfig, campaign: Campaign, content: str, message: str
    ) -> None:
        (campaign.folder / "config.yaml").write_text(content)
        told = rf"config\.yaml {message}; restore it from a copy"
        with pytest.raises(CampaignError, match=told):
            campaigns.open_campaign(campaign.folder)
        with pytest.raises(CampaignError, match=told):
            campaigns.check_config(config)

    def test_no_campaign_names_those_beside_it(self, campaign: Campaign) -> None:
        root = campaign.folder.parent
        (root / "no_campaign").mkdir()
        with pytest.raises(CampaignError, match=r"no campaign at .*/other .*campaigns beside it: tiny$"):
            campaigns.open_campaign(root / "other")
        with pytest.raises(CampaignError, match=r"campaigns beside it: none$"):
            campaigns.open_campaign(root / "tiny" / "rounds")


class TestReading:
    def test_events_by_kind_and_round(self, campaign: Campaign) -> None:
        campaign.append("start")
        for number in (0, 1):
            campaign.append("result", round=number, dsc=number / 10)
            campaign.append("selection", round=number, selected=[])
        assert [entry.payload["dsc"] for entry in campaign.events("result")] == [0.0, 0.1]
        assert [entry.payload["round"] for entry in campaign.events("result", 0)] == [0]
        last = campaign.event("result")
        assert last is not None
        assert last.payload["round"] == 1
        assert campaign.event("result", 2) is None
        assert campaign.event("finished") is None

    def test_times_are_utc_and_grow(self, campaign: Campaign) -> None:
        first, second = campaign.append("a"), campaign.append("b")
        assert first.at.endswith("+00:00")
        assert first.at <= second.at

    def test_annotations_come_back_whole(self, campaign: Campaign) -> None:
        cost = Cost(cases=1, structures=2, slices=7, foreground_voxels=90, minutes=3.4)
        campaign.append(
            "annotation",
            round=None,
            case_id="case_00",
            structures={"liver": 1.0, "spleen": 0.62},
            path="annotations/case_00.nii.gz",
            sha256="abc",
            annotator="oracle",
            minutes=3.4,
            cost=cost.as_dict(),
        )
        (found,) = campaign.annotations()
        assert found.path == campaign.folder / "annotations" / "case_00.nii.gz"
        assert found.structures == {"liver": 1.0, "spleen": 0.62}
        assert (found.sha256, found.annotator, found.minutes, found.cost) == ("abc", "oracle", 3.4, cost)

    def test_round_folders_sort(self, campaign: Campaign) -> None:
        assert campaign.round_folder(7) == campaign.folder / "rounds" / "007"


class TestLock:
    def test_a_refused_campaign_leaves_no_trace(self, tmp_path: Path) -> None:
        folder = tmp_path / "campaigns" / "deep" / "tiny"
        with pytest.raises(ValueError, match="refused"), campaigns.locked(folder):
            assert campaigns.is_locked(folder)
            raise ValueError("refused")
        assert list(tmp_path.iterdir()) == []

    def test_a_campaign_that_began_stays(self, config: ActiveLearningConfig) -> None:
        with pytest.raises(ValueError, match="later"), campaigns.locked(config.folder):
            campaigns.create_or_open(config)
            raise ValueError("later")
        assert (config.folder / "config.yaml").is_file()
        assert not campaigns.is_locked(config.folder)

    def test_folders_that_were_there_stay(self, tmp_path: Path) -> None:
        root = tmp_path / "campaigns"
        root.mkdir()
        with campaigns.locked(root / "tiny"):
            pass
        assert list(tmp_path.iterdir()) == [root]
        assert list(root.iterdir()) == []

    def test_neighbours_stay(self, tmp_path: Path) -> None:
        root = tmp_path / "campaigns"
        with campaigns.locked(root / "tiny"):
            (root / "other").mkdir()
        assert [path.name for path in root.iterdir()] == ["other"]

    def test_one_process_at_a_time(self, campaign: Campaign) -> None:
        with held_by_another_process(campaign.folder):
            assert campaigns.is_locked(campaign.folder)
            with (
                pytest.raises(CampaignError, match=r"Another process works in .*/tiny; wait"),
                campaigns.locked(campaign.folder),
            ):
                pass
        assert not campaigns.is_locked(campaign.folder)
        with campaigns.locked(campaign.folder):
            pass
        assert (campaign.folder / "config.yaml").is_file()

    def test_a_folder_without_a_lock_is_not_locked(self, tmp_path: Path) -> None:
        assert not campaigns.is_locked(tmp_path / "nothing")
        assert not (tmp_path / "nothing").exists()


class TestState:
    def test_failed_until_a_run_begins_or_it_is_finished(self, campaign: Campaign) -> None:
        campaigns.record_failure(campaign.folder, OSError("No space left on device"))
        assert campaigns.state(campaign) == "failed"
        assert campaigns.failure(campaign.folder) == "No space left on device"
        campaign.append("awaiting", round=0, waits_for="people")
        assert campaigns.state(campaign) == "awaiting annotation"
        campaign.append("trial", round=0)
        campaigns.forget_failure(campaign.folder)
        assert campaigns.state(campaign) == "interrupted"

    def test_an_error_without_words_has_its_name(self, campaign: Campaign) -> None:
        campaigns.record_failure(campaign.folder, MemoryError())
        assert campaigns.failure(campaign.folder) == "MemoryError"

    def test_interrupted_from_its_first_moment(self, campaign: Campaign) -> None:
        assert campaigns.state(campaign) == "interrupted"
        campaign.append("start")
        campaign.append("selection", round=0)
        assert campaigns.state(campaign) == "interrupted"

    def test_running(self, campaign: Campaign) -> None:
        campaign.append("start")
        with held_by_another_process(campaign.folder):
            assert campaigns.state(campaign) == "running"
        assert campaigns.state(campaign) == "interrupted"

    def test_awaiting_annotation_only_while_nothing_came_after(self, campaign: Campaign) -> None:
        campaign.append("awaiting", round=0, waits_for="files")
        assert campaigns.state(campaign) == "awaiting annotation"
        with held_by_another_process(campaign.folder):
            assert campaigns.state(campaign) == "running"
        campaign.append("annotation", round=0)
        assert campaigns.state(campaign) == "interrupted"

    def test_all_is_back_until_a_run_goes_on(self, campaign: Campaign) -> None:
        campaign.append("start", structures=[{"name": "liver", "label": 1}])
        annotate(campaign, None, "z")  # of the start set, which nobody waited for
        for number, case_ids in enumerate((["a", "b"], ["c"])):
            campaign.append("selection", round=number, selected=case_ids)
            assert campaigns.state(campaign) == "interrupted"
            campaign.append("awaiting", round=number, waits_for="files")
            assert campaigns.state(campaign) == "awaiting annotation"
            for case_id in case_ids[1:]:
                campaign.append("skip", round=number, case_id=case_id, reason="motion")
                assert campaigns.state(campaign) == "interrupted"
            annotate(campaign, number, case_ids[0])
            assert campaigns.state(campaign) == "all is back"
            with held_by_another_process(campaign.folder):
                assert campaigns.state(campaign) == "running"
            campaign.append("trial", round=number)
            assert campaigns.state(campaign) == "interrupted"

    def test_a_failure_counts_only_after_all_is_back(
        self, campaign: Campaign, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        times = iter("123456789")
        monkeypatch.setattr(campaigns, "now", lambda: next(times))
        campaign.append("start", structures=[{"name": "liver", "label": 1}])
        campaign.append("selection", round=0, selected=["a"])
        campaign.append("awaiting", round=0, waits_for="files")
        campaigns.record_failure(campaign.folder, AnnotationError("a was refused"))
        annotate(campaign, 0, "a")
        assert campaigns.state(campaign) == "all is back"
        campaigns.record_failure(campaign.folder, OSError("No space left on device"))
        assert campaigns.state(campaign) == "failed"

    def test_finished(self, campaign: Campaign) -> None:
        campaign.append("finished", why="all rounds are done")
        assert campaigns.state(campaign) == "finished"


class TestOrphans:
    def test_nothing_left_behind(self, campaign: Campaign) -> None:
        assert campaigns.end_orphans(campaign.folder) is None

    def test_the_server_of_a_killed_run_is_ended(self, campaign: Campaign) -> None:
        with sleeping("--factory", SERVER) as server:
            campaigns.record_process(campaign.folder, "run-1")
            recorded = json.loads((campaign.folder / "process.json").read_text())
            assert server.pid in recorded["servers"]
            assert recorded["pid"] == os.getpid()
            (campaign.folder / "process.json").write_text(json.dumps({**recorded, "servers": [server.pid]}))

            assert campaigns.end_orphans(campaign.folder) == "run-1"
            assert server.wait(timeout=30) == -15
        assert campaigns.end_orphans(campaign.folder) is None

    def test_a_process_that_is_no_server_is_spared(self, campaign: Campaign) -> None:
        """Process ids are used again: whoever has it now need not be ours."""
        with sleeping("somebody else") as other:
            left = {"pid": 1, "servers": [other.pid], "flow_run_id": "run-2"}
            (campaign.folder / "process.json").write_text(json.dumps(left))
            assert campaigns.end_orphans(campaign.folder) == "run-2"
            assert other.poll() is None

    def test_a_server_that_is_gone(self, campaign: Campaign) -> None:
        with sleeping(SERVER) as server:
            pass
        left = {"pid": 1, "servers": [server.pid], "flow_run_id": "run-3"}
        (campaign.folder / "process.json").write_text(json.dumps(left))
        assert campaigns.end_orphans(campaign.folder) == "run-3"

    def test_only_own_children_are_recorded(self, campaign: Campaign) -> None:
        with sleeping("somebody else") as other:
            campaigns.record_process(campaign.folder, "run-4")
            assert other.pid not in json.loads((campaign.folder / "process.json").read_text())["servers"]

    def test_a_run_that_ended_by_itself_leaves_nothing(self, campaign: Campaign) -> None:
        campaigns.record_process(campaign.folder, "run-5")
        campaigns.forget_process(campaign.folder)
        campaigns.forget_process(campaign.folder)
        assert campaigns.end_orphans(campaign.folder) is None
