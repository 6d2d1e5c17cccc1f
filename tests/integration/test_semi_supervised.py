"""Semi-supervised trainings and hybrid campaigns through real Prefect and MLflow, on tiny scans."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient

from cohort.errors import CampaignError, ConfigError, ModelError, SelectionError
from cohort.records import QualityScore
from cohort.volume import write_volume
from flows import campaign as campaigns
from flows import cli, data
from flows.campaign import Campaign
from flows.comparison_config import load_comparison
from flows.config import load_config
from flows.launch import (
    campaign_config,
    launch,
    launch_comparison,
    launch_semi_supervised,
    report_comparison,
)
from flows.progress import Display
from flows.pruning import prune
from flows.semi_supervised_config import load_semi_supervised
from flows.status import status
from flows.tracking.store import tracking_uri
from flows.trial import Trial
from sentinel import Sentinel, SentinelConfig
from sentinel.text import embed_names

pytestmark = pytest.mark.slow

Make = Callable[[int], np.ndarray]
WriteYaml = Callable[..., Path]
CASES = 9


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory, affine: np.ndarray, make_label_map: Make) -> Path:
    """Nine cases in which a network can see something."""
    root = tmp_path_factory.mktemp("scans")
    training = []
    for number in range(CASES):
        labels, name = make_label_map(number), f"case_{number:02d}.nii.gz"
        noise = np.random.default_rng(number).normal(0.0, 20.0, labels.shape)
        write_volume(root / "imagesTr" / name, (100.0 * labels + noise).astype(np.float32), affine)
        write_volume(root / "labelsTr" / name, labels, affine)
        training.append({"image": f"imagesTr/{name}", "label": f"labelsTr/{name}"})
    document = {"labels": {"0": "background", "1": "liver", "2": "spleen"}, "training": training}
    (root / "dataset.json").write_text(json.dumps({"name": "Tiny", **document}))
    return root


@pytest.fixture(scope="module")
def write_training(scans: Path, write_campaign_yaml: WriteYaml) -> WriteYaml:
    """Write the YAML of a tiny semi-supervised training; see `write_campaign_yaml`."""

    def write(path: Path, changes: Mapping[str, object] | None = None) -> Path:
        gone = dict.fromkeys(("rounds", "budget", "strategy"))
        settings = {"segmenter.steps": 20, "rivals": ["entropy"], "cost_cases": 0, "generations": 1}
        return write_campaign_yaml(path, scans, {**gone, **settings, **(changes or {})})

    return write


def start(path: Path, *overrides: str) -> Campaign:
    return launch_semi_supervised(load_semi_supervised(path, overrides), Display(quiet=True))


def payloads(campaign: Campaign, kind: str) -> list[Mapping[str, Any]]:
    return [entry.payload for entry in campaign.events(kind)]


def computed(campaign: Campaign) -> dict[str, object]:
    """What a training computed, whoever was killed on the way."""
    measured = ("round", "dsc", "nsd", "checkpoint_sha256", "pseudo_labels", "budget")
    return {
        "promotions": payloads(campaign, "promotion"),
        "revocations": payloads(campaign, "revocation"),
        "results": [{key: result[key] for key in measured} for result in payloads(campaign, "result")],
        "trials": payloads(campaign, "trial"),
    }


def charted(campaign: Campaign, name: str) -> list[tuple[int, float]]:
    """A metric over generations, as MLflow's store has it of the parent run."""
    connection = sqlite3.connect(campaign.folder.parent / "mlflow.db")
    try:
        return connection.execute(
            f"select metrics.step, metrics.value from metrics join tags using (run_uuid) where "
            f"metrics.key = '{name}' and tags.key = 'mlflow.runName' and tags.value = '{campaign.name}' "
            "order by metrics.step"
        ).fetchall()
    finally:
        connection.close()


@pytest.fixture(scope="module")
def arms(tmp_path_factory: pytest.TempPathFactory, write_training: WriteYaml) -> Callable[..., Campaign]:
    """A training that nobody disturbed, by its overrides; all of them lie beside each other."""
    path = write_training(tmp_path_factory.mktemp("arms") / "arm.yaml", {"name": None})
    done: dict[tuple[str, ...], Campaign] = {}

    def run(*overrides: str) -> Campaign:
        if overrides not in done:
            done[overrides] = start(path, *overrides)
        return done[overrides]

    return run


TWO_GENERATIONS = ("generations=2", "filter.estimator=sentinel", "name=two")


class TestTraining:
    def test_every_generation_is_in_the_ledger(self, arms: Callable[..., Campaign]) -> None:
        campaign = arms(*TWO_GENERATIONS)
        events = [entry.event for entry in campaign.ledger.entries() if entry.event != "revocation"]
        generation = ["result", "promotion", "trial"]
        assert events == ["start", *["annotation"] * 3, *generation * 2, "result", "finished"]
        results = payloads(campaign, "result")
        assert [result["pseudo_labels"]["masks"] for result in results] == [0, 4, 4]
        assert len({result["checkpoint_sha256"] for result in results}) == 3
        assert {result["budget"]["cases"] for result in results} == {3.0}
        assert {result["labelled_cases"] for result in results} == {3}

    def test_pseudo_labels_are_made_anew_and_never_held_out(self, arms: Callable[..., Campaign]) -> None:
        campaign = arms(*TWO_GENERATIONS)
        (begun,) = payloads(campaign, "start")
        first, second = payloads(campaign, "promotion")
        for number, promotion in enumerate((first, second)):
            assert promotion["files"].keys() <= set(begun["pool"])
            assert not promotion["files"].keys() & {*begun["held_out"], *begun["start"]}
            assert all(f"rounds/{number:03d}/" in about["path"] for about in promotion["files"].values())
        kept = [{(m["case_id"], m["structure"]) for m in p["masks"]} for p in (first, second)]
        revoked = {
            (m["case_id"], m["structure"]) for r in payloads(campaign, "revocation") for m in r["masks"]
        }
        assert revoked == kept[0] - kept[1]

    def test_mlflow_shows_what_the_ledger_says(self, arms: Callable[..., Campaign]) -> None:
        campaign = arms(*TWO_GENERATIONS)
        trials = payloads(campaign, "trial")
        assert charted(campaign, "dsc") == [(r["round"], r["dsc"]) for r in payloads(campaign, "result")]
        assert charted(campaign, "new_annotations") == [(0, 0.0), (1, 0.0), (2, 0.0)]
        assert charted(campaign, "filter/dsc_kept") == [
            (n, t["filter"]["dsc_kept"]) for n, t in enumerate(trials)
        ]
        assert charted(campaign, "rival_precision/oracle") == [
            (n, t["rivals"]["oracle"]["filter"]["precision"]) for n, t in enumerate(trials)
        ]

    def test_the_trial_knows_all_masks_and_the_oracle_is_the_best(
        self, arms: Callable[..., Campaign]
    ) -> None:
        for trial in payloads(arms(*TWO_GENERATIONS), "trial"):
            assert trial["filter"]["masks"] == trial["filter"]["measured"] == 8.0
            assert trial["rivals"].keys() == {"sentinel", "entropy", "random", "oracle"}
            best = max(own["filter"]["dsc_kept"] for own in trial["rivals"].values())
            assert trial["rivals"]["oracle"]["filter"]["dsc_kept"] == best
            assert trial["rivals"]["sentinel"]["filter"] == trial["filter"]

    def test_the_same_command_again_changes_nothing(self, arms: Callable[..., Campaign]) -> None:
        campaign = arms(*TWO_GENERATIONS)
        before = campaign.ledger.entries()
        stamps = {path: path.stat().st_mtime_ns for path in campaign.folder.glob("rounds/*/*-*/*")}
        assert len(stamps) > 10
        assert start(campaign.folder / "config.yaml").ledger.entries() == before
        assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


class TestArms:
    def test_arms_of_a_seed_share_the_teacher(self, arms: Callable[..., Campaign]) -> None:
        sentinel = arms(*TWO_GENERATIONS)
        others = [arms(f"filter.kind={kind}") for kind in ("random", "unfiltered")]
        teacher = next(sentinel.round_folder(0).glob("train-*")) / "stage.json"
        for other in others:
            assert payloads(other, "start")[0]["pool"] == payloads(sentinel, "start")[0]["pool"]
            own = next(other.round_folder(0).glob("train-*")) / "stage.json"
            assert own.samefile(teacher)
            assert not list(other.round_folder(0).glob("fold*"))
            results = [payloads(campaign, "result") for campaign in (sentinel, other)]
            assert results[0][0]["dsc"] == results[1][0]["dsc"]
            assert results[0][1]["checkpoint_sha256"] != results[1][1]["checkpoint_sha256"]
        assert [other.name for other in others] == ["arm-random-seed0", "arm-unfiltered-seed0"]
        assert payloads(others[1], "promotion")[0]["judged"] == 8

    def test_an_arm_that_shares_comes_to_the_same_result(self, arms: Callable[..., Campaign]) -> None:
        shared, alone = arms("filter.kind=random"), arms("filter.kind=random", "share=false", "name=alone")
        assert computed(shared) == computed(alone)

    def test_an_oracle_is_marked_everywhere(self, arms: Callable[..., Campaign]) -> None:
        campaign = arms("filter.estimator=oracle")
        (promotion,) = payloads(campaign, "promotion")
        assert promotion["reads_references"] is True
        (trial,) = payloads(campaign, "trial")
        assert trial["filter"] == trial["rivals"]["oracle"]["filter"]
        assert campaign.name == "arm-oracle-seed0"

    def test_rivals_choose_among_the_masks_that_the_filter_may_keep(
        self, scans: Path, write_training: WriteYaml, tmp_path: Path
    ) -> None:
        """Three of the unlabelled cases have no contour of the spleen; the folder beside is broken."""
        broken = tmp_path / "campaigns" / "zzz"
        broken.mkdir(parents=True)
        (broken / "config.yaml").write_text("a: [")
        root = tmp_path / "partly"
        shutil.copytree(scans, root)
        document = json.loads((root / "dataset.json").read_text())
        both = {"liver": "complete", "spleen": "complete"}
        listed = {f"case_{n:02d}": dict(both) for n in range(CASES)}
        path = write_training(tmp_path / "partly.yaml")
        more = (f"data.root={root}", "contoured_only=true", "filter.estimator=entropy", "filter.keep=0.4")
        document["annotated_structures"] = listed
        (root / "dataset.json").write_text(json.dumps(document))
        pool = data.load_cohort(load_semi_supervised(path, more).campaign).pool
        for case_id in pool[:3]:
            del listed[case_id]["spleen"]
        (root / "dataset.json").write_text(json.dumps(document))
        (trial,) = payloads(start(path, *more), "trial")
        assert trial["filter_per_structure"]["spleen"]["masks"] <= len(pool) - 3
        assert trial["rivals"]["entropy"]["filter"] == trial["filter"]
        assert {both["filter"]["masks"] for both in trial["rivals"].values()} == {trial["filter"]["masks"]}

    def test_another_filter_in_the_same_folder_is_refused(self, arms: Callable[..., Campaign]) -> None:
        arms(*TWO_GENERATIONS)
        with pytest.raises(CampaignError, match=r"filter\.keep: 0\.5 -> 0\.25"):
            arms(*TWO_GENERATIONS, "filter.keep=0.25")

    def test_masks_of_each_size_are_kept(self, arms: Callable[..., Campaign]) -> None:
        campaign = arms("filter.size_strata=2", "name=sizes", "filter.estimator=entropy")
        (promotion,) = payloads(campaign, "promotion")
        kept = {(mask["case_id"], mask["structure"]) for mask in promotion["masks"]}
        for structure in ("liver", "spleen"):
            masks = [
                json.loads(p.read_text()) for p in campaign.round_folder(0).glob("segment-pool-*/case*.json")
            ]
            sizes = sorted((mask["voxels"][structure], mask["case_id"]) for mask in masks)
            smaller = {case_id for _, case_id in sizes[: -(-len(sizes) // 2)]}
            found = [case_id in smaller for case_id, name in kept if name == structure]
            assert any(found)
            assert not all(found)

    def test_weights_reach_the_student(self, arms: Callable[..., Campaign]) -> None:
        plain = payloads(arms(*TWO_GENERATIONS), "result")[1]
        weighted = payloads(arms("filter.weights=predicted_dsc", "name=weighted"), "result")[1]
        assert 0.0 < weighted["pseudo_labels"]["weight"] < plain["pseudo_labels"]["weight"]
        assert weighted["checkpoint_sha256"] != plain["checkpoint_sha256"]


class TestBadInput:
    @pytest.fixture
    def path(self, tmp_path: Path, write_training: WriteYaml) -> Path:
        return write_training(tmp_path / "tiny.yaml")

    def test_a_filter_that_keeps_nothing(self, path: Path) -> None:
        with pytest.raises(
            SelectionError, match=r"keeps none of 8 masks \(8 not in the masks with a predicted"
        ):
            start(path, "filter.kind=threshold", "filter.minimum=1.0")
        (verdicts,) = path.parent.glob("**/rounds/000/verdicts.csv")
        assert len(pd.read_csv(verdicts)) == 8, "why each was left out can be read"
        found = status(campaigns.open_campaign(verdicts.parents[2]))
        assert found["state"] == "failed"
        assert found["failure"].startswith("Generation 0: the filter keeps none of 8 masks")

    def test_no_unlabelled_case(self, path: Path) -> None:
        with pytest.raises(ConfigError, match="There is no unlabelled case in 'Tiny': all 9 are"):
            start(path, "start.cases=7")

    def test_more_unlabelled_cases_than_there_are(self, path: Path) -> None:
        with pytest.raises(ConfigError, match="unlabelled is 5, but only 4 cases of 'Tiny'"):
            start(path, "unlabelled=5")


class TestComparison:
    def test_arms_share_their_teacher_and_are_reported(
        self, tmp_path: Path, write_training: WriteYaml
    ) -> None:
        write_training(tmp_path / "base.yaml", {"name": None, "rivals": []})
        values = {
            "semi_supervised": "base.yaml",
            "root": str(tmp_path / "comparisons"),
            "seeds": [0],
            "primary": {"arm": "quality", "against": "random"},
            "keep": "light",
            "arms": {"random": {"set": {"filter.kind": "random"}}, "quality": {}},
        }
        (tmp_path / "students.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
        comparison = load_comparison(tmp_path / "students.yaml")
        assert launch_comparison(comparison, comparison.units, Display(quiet=True)) == {}

        trained = [campaigns.open_campaign(unit.folder) for unit in comparison.units]
        teachers, students = zip(*(payloads(each, "result") for each in trained), strict=True)
        assert len({teacher["checkpoint_sha256"] for teacher in teachers}) == 1
        assert len({student["checkpoint_sha256"] for student in students}) == 2
        assert all(each.events("pruned") for each in trained)

        page = report_comparison(comparison).page
        found = pd.read_parquet(page.parent / "tables" / "contrasts.parquet").set_index(
            ["declared", "arm", "measure"]
        )
        assert found.loc[("primary", "quality", "final"), "difference"] == pytest.approx(
            students[1]["dsc"] - students[0]["dsc"]
        )
        assert found.loc[("gain", "random", "final_nsd"), "difference"] == pytest.approx(
            students[0]["nsd"] - teachers[0]["nsd"]
        )
        assert "What the pseudo-labels added" in page.read_text()


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory: pytest.TempPathFactory, scans: Path, write_campaign_yaml: WriteYaml) -> Campaign:
    """A campaign with pseudo-labels that nobody disturbed."""
    changes = {
        "name": "hybrid",
        "budget.per_round": 1,
        "segmenter.steps": 20,
        "strategy": "entropy",
        "pseudo_labels": {"filter": {"estimator": "sentinel", "keep": 0.5}},
    }
    path = write_campaign_yaml(tmp_path_factory.mktemp("hybrid") / "hybrid.yaml", scans, changes)
    return launch(load_config(path), Display(quiet=True))


class TestHybrid:
    """A campaign that spends its budget on the worst masks and learns from the best."""

    def test_the_worst_are_annotated_and_the_best_promoted(self, hybrid: Campaign) -> None:
        assert status(hybrid)["state"] == "finished"
        selections, promotions = payloads(hybrid, "selection"), payloads(hybrid, "promotion")
        assert [p["round"] for p in promotions] == [0, 1]
        for selection, promotion in zip(selections, promotions, strict=True):
            assert not set(selection["selected"]) & promotion["files"].keys()
            assert promotion["estimator"] == "sentinel"
        assert [r["pseudo_labels"]["masks"] for r in payloads(hybrid, "result")] == [
            0,
            *(len(p["masks"]) for p in promotions),
        ]
        assert [r["labelled_cases"] for r in payloads(hybrid, "result")] == [3, 4, 5]

    def test_a_promoted_case_that_is_annotated_later_is_revoked(self, hybrid: Campaign) -> None:
        first, second = payloads(hybrid, "promotion")
        later = set(payloads(hybrid, "selection")[1]["selected"])
        kept = {(m["case_id"], m["structure"]) for m in second["masks"]}
        expected = {(m["case_id"], m["structure"]) for m in first["masks"]} - kept
        masks = [m for r in payloads(hybrid, "revocation") for m in r["masks"]]
        assert {(m["case_id"], m["structure"]) for m in masks} == expected
        for mask in masks:
            annotated = mask["reason"] == "annotated by a human, or about to be"
            assert annotated == (mask["case_id"] in later)

    def test_the_sentinel_never_learns_from_pseudo_labels(self, hybrid: Campaign) -> None:
        (begun,) = payloads(hybrid, "start")
        annotated = {a["case_id"] for a in payloads(hybrid, "annotation") if a["round"] in (None, 0)}
        for stage in hybrid.round_folder(1).glob("fold*-step*/stage.json"):
            assert set(json.loads(stage.read_text())["inputs"]["cases"]) <= annotated
        assert begun["held_out"]

    @pytest.mark.parametrize(("strategy", "right"), [("quality", True), ("random", False)])
    def test_a_threshold_reads_what_annotation_put_right(
        self,
        tmp_path: Path,
        scans: Path,
        write_campaign_yaml: WriteYaml,
        monkeypatch: pytest.MonkeyPatch,
        strategy: str,
        right: bool,
    ) -> None:
        """Where the strategy's own estimator filters; of another one annotation has shown nothing."""

        def put_right(trial: Trial, scores: Sequence[QualityScore]) -> tuple[QualityScore, ...]:
            return tuple(replace(score, predicted_dsc=0.75) for score in scores)

        monkeypatch.setattr(Trial, "recalibrated", put_right)
        changes = {
            "rounds": 2,
            "budget.per_round": 1,
            "strategy": strategy,
            "pseudo_labels": {"filter": {"kind": "threshold", "minimum": 0.0}},
        }
        path = write_campaign_yaml(tmp_path / "right.yaml", scans, changes)
        found = launch(load_config(path), Display(quiet=True))
        (promotion,) = payloads(found, "promotion")
        assert promotion["masks"]
        assert all((mask["score"] == 0.75) == right for mask in promotion["masks"])

    def test_a_sentinel_that_is_not_there_is_told_before_any_training(
        self, tmp_path: Path, scans: Path, write_campaign_yaml: WriteYaml
    ) -> None:
        changes = {"pseudo_labels": {"filter": {"sentinel": str(tmp_path / "no.safetensors")}}}
        config = load_config(write_campaign_yaml(tmp_path / "missing.yaml", scans, changes))
        with pytest.raises(ModelError, match=r"The weights .*no\.safetensors do not exist"):
            launch(config, Display(quiet=True))
        assert not (config.folder / "ledger.jsonl").exists()
        names = ("pancreas", "Spleen")
        weights = tmp_path / "other.safetensors"
        Sentinel(config=SentinelConfig(image_size=32), structures=names, embeddings=embed_names(names)).save(
            weights
        )
        changes = {"pseudo_labels": {"filter": {"sentinel": str(weights)}}}
        config = load_config(write_campaign_yaml(tmp_path / "other.yaml", scans, changes))
        with pytest.raises(ModelError, match="not trained for structure 'liver'; it knows pancreas, Spleen"):
            launch(config, Display(quiet=True))
        assert not (config.folder / "ledger.jsonl").exists()

    def test_mlflow_says_whose_masks_teach(self, hybrid: Campaign) -> None:
        client = MlflowClient(tracking_uri(hybrid.folder.parent))
        experiments = [e.experiment_id for e in client.search_experiments()]
        runs = client.search_runs(experiments, "tags.pseudo_labels = 'sentinel'")
        (run,) = [run for run in runs if run.info.run_name == "hybrid"]
        assert (
            "the filter `sentinel` keeps teach beside the annotations" in run.data.tags["mlflow.note.content"]
        )
        (child,) = [r for r in client.search_runs(experiments) if r.info.run_name == "hybrid round 0"]
        files = {file.path for file in client.list_artifacts(child.info.run_id)}
        assert {"scores.csv", "sentinel"} <= files, "of the strategy, and of the filter"

    def test_a_pruned_campaign_can_be_opened_again(self, hybrid: Campaign) -> None:
        entries = len(hybrid.ledger.entries())
        prune(hybrid)
        promoted = [hybrid.folder / f["path"] for f in payloads(hybrid, "promotion")[1]["files"].values()]
        assert promoted
        assert not any(path.exists() for path in promoted)
        launch(campaign_config(hybrid), Display(quiet=True))
        assert len(hybrid.ledger.entries()) == entries + 1, "what was removed, and nothing else"


KILL = """
import os, signal
from flows import cli, data
from flows.campaign import Campaign

append = Campaign.append

def killed(self, kind, **payload):
    if kind == "promotion":
        os.kill(os.getpid(), signal.SIGKILL)
    return append(self, kind, **payload)

Campaign.append = killed
cli.main()
"""
"""Dies when everything of a promotion is there, but not its line."""


class TestKills:
    @pytest.fixture
    def environment(self, tmp_path: Path) -> dict[str, str]:
        own = {name: v for name, v in os.environ.items() if not name.startswith(("PREFECT", "MLFLOW"))}
        return {**own, "HOME": str(tmp_path), "PYTHONPATH": str(Path(cli.__file__).parents[1])}

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Iterator[Path]:
        folder = tmp_path / "campaigns" / "tiny"
        yield folder
        campaigns.end_orphans(folder)

    def test_a_killed_training_comes_to_the_same_result(
        self,
        folder: Path,
        write_training: WriteYaml,
        environment: dict[str, str],
        tmp_path: Path,
    ) -> None:
        path = write_training(tmp_path / "tiny.yaml")
        arguments = ["semi-supervised", "--quiet", "--config", str(path)]
        plain = [sys.executable, "-c", "from flows import cli; cli.main()", *arguments]
        with subprocess.Popen(plain, env=environment) as process:
            wait_for(folder, "rounds/000/.fold1-*.partial", process)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        campaign = campaigns.open_campaign(folder)
        assert campaigns.state(campaign) == "interrupted"

        dying = subprocess.run([sys.executable, "-c", KILL, *arguments], env=environment, check=False)
        assert dying.returncode == -signal.SIGKILL
        assert campaign.event("promotion") is None
        assert (campaign.round_folder(0) / "verdicts.csv").is_file()

        campaign = start(path)
        assert status(campaign)["state"] == "finished"
        other = write_training(tmp_path / "undisturbed.yaml", {"name": "undisturbed", "share": False})
        assert computed(campaign) == computed(start(other))
        assert list(folder.glob("rounds/*/.*.partial")) == []

    def test_a_pseudo_label_that_was_damaged_before_it_was_used_is_made_again(
        self, write_training: WriteYaml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = write_training(tmp_path / "tiny.yaml")
        append = Campaign.append

        def stop(self: Campaign, kind: str, **payload: object) -> object:
            if kind == "trial":
                raise KeyboardInterrupt
            return append(self, kind, **payload)

        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(Campaign, "append", stop)
            start(path)
        campaign = campaigns.open_campaign(tmp_path / "campaigns" / "tiny")
        (promotion,) = payloads(campaign, "promotion")
        first = campaign.folder / next(iter(promotion["files"].values()))["path"]
        first.write_bytes(b"broken")
        second = start(path)  # the stage that made it runs again, and gives the same bytes
        assert status(second)["state"] == "finished"
        assert payloads(second, "promotion") == [promotion]


def wait_for(folder: Path, pattern: str, process: "subprocess.Popen[bytes]") -> None:
    while not list(folder.glob(pattern)):
        assert process.poll() is None, f"the training ended before {pattern} was there"
        time.sleep(0.01)
