"""MLflow as a view of the ledger: a parent run per campaign, a child run per round. Only this imports it.

`Tracker.sync` may be called as often as one likes: metrics keep the ledger's times, so logging them again
changes nothing, and a store that was lost is filled again from the campaign's folder.
"""

import json
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock
from mlflow.entities import Metric, Param, Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from cohort.ledger import Entry
from flows import pseudo_label_metrics
from flows.campaign import Campaign
from flows.config_files import flatten
from flows.sentinel_config import SentinelTrainingConfig
from flows.stages import MANIFEST, read_json

CAMPAIGN_ID, KIND, COMPLETE = "sentinel_loop.campaign_id", "sentinel_loop.kind", "sentinel_loop.complete"
_NOTE = "mlflow.note.content"
_log = logging.getLogger(__name__)


def tracking_uri(campaigns_root: Path) -> str:
    """MLFLOW_TRACKING_URI where it is set, else the database beside the campaigns."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{campaigns_root.resolve() / 'mlflow.db'}"


def charts_link(address: str, experiment_id: str) -> str:
    """Link that opens the charts of the campaigns of an experiment, without the runs of single rounds."""
    query = f"tags.`{KIND}` = 'campaign'".replace(" ", "%20").replace("`", "%60").replace("'", "%27")
    return (
        f"{address}/#/experiments/{experiment_id}/runs?workflowType=machine_learning&compareRunsMode=CHART"
        f"&searchFilter={query.replace('=', '%3D')}"
    )


def experiment_id(root: Path, name: str) -> str:
    """Id of an experiment in the store beside a root, which is created if there is none."""
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".mlflow.lock"):
        client = MlflowClient(tracking_uri=tracking_uri(root))
        found = client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        artifacts = None
        if "MLFLOW_TRACKING_URI" not in os.environ:
            artifacts = (root.resolve() / "mlflow-artifacts" / name).as_uri()
        return str(client.create_experiment(name, artifact_location=artifacts))


def open_store(root: Path, experiment: str) -> bool:
    """Make store and experiment if need be, before several processes write into them.

    Returns:
        Whether the store can be reached; if not, that is a warning.
    """
    try:
        experiment_id(root, experiment)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        _log.warning("MLflow at %s cannot be written (%s)", tracking_uri(root), error)
        return False
    return True


def log_sentinel(
    config: SentinelTrainingConfig, about: Mapping[str, str], metrics: Mapping[str, float], note: str
) -> bool:
    """Log a trained sentinel with its tests; a store that cannot be reached is a warning, not an end.

    Args:
        config: of the training, whose folder holds the files to log.
        about: what made it.
        metrics: of its tests.
        note: Markdown to show with the run.

    Returns:
        Whether the store has all of it.
    """
    try:
        _log_sentinel(config, about, metrics, note)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        _log.warning(
            "MLflow at %s cannot be written (%s); %s holds everything: run the same command again later",
            tracking_uri(config.root),
            error,
            config.folder,
        )
        return False
    return True


def _log_sentinel(
    config: SentinelTrainingConfig, about: Mapping[str, str], metrics: Mapping[str, float], note: str
) -> None:
    experiment = experiment_id(config.root, config.experiment)
    client = MlflowClient(tracking_uri=tracking_uri(config.root))
    tags = {
        KIND: "sentinel",
        "sentinel_sha256": about["sentinel sha256"],
        "config_sha256": about["config sha256"],  # another test of the same sentinel is another run
        "dataset_sha256": about["data set sha256"],
    }
    query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    begun = client.search_runs([experiment], query, max_results=1)
    if begun and begun[0].data.tags.get(COMPLETE) == "yes":
        return
    more = {_metric_name(name): value for name, value in about.items()}
    run = begun[0] if begun else client.create_run(experiment, tags=tags, run_name=config.name)
    for name, value in {**more, "mlflow.note.content": note}.items():
        client.set_tag(run.info.run_id, name, value)
    run_id, at = str(run.info.run_id), int(time.time() * 1000)
    settings = sorted(flatten(config.model_dump(mode="json")).items())
    client.log_batch(run_id, params=[Param(_metric_name(key), str(value)[:500]) for key, value in settings])
    found = [Metric(_metric_name(name), value, at, 0) for name, value in metrics.items()]
    _log_metrics(client, run_id, [*found, *_curves(config.folder / "stages", at)])
    for path in sorted(config.folder.glob("*.*")):
        if path.suffix in {".md", ".csv", ".json", ".safetensors"} and not path.name.startswith("process"):
            client.log_artifact(run_id, str(path))
    for picture in sorted((config.folder / "figures").glob("*.png")):
        client.log_artifact(run_id, str(picture), "figures")
    client.set_tag(run_id, COMPLETE, "yes")
    client.set_terminated(run_id, status="FINISHED")


def log_comparison(
    folder: Path,
    campaigns: Sequence[Campaign],
    *,
    name: str,
    settings: Mapping[str, Any],
    about: Mapping[str, str],
    metrics: Mapping[str, float],
) -> bool:
    """Log a comparison as the parent of its campaigns' runs; the same run however often it is reported.

    Args:
        folder: of the comparison, which holds page and tables.
        campaigns: its finished campaigns, whose runs become children.
        name: of the comparison and of the experiment.
        settings: of the comparison.
        about: what made it.
        metrics: its summary.

    Returns:
        Whether the store has all of it; a store that cannot be reached is a warning, not an end.
    """
    if not campaigns:
        return True
    root = campaigns[0].folder.parent
    try:
        experiment = experiment_id(root, name)
        client = MlflowClient(tracking_uri=tracking_uri(root))
        run_id = _comparison_run(client, experiment, name)
        children = _adopt(client, experiment, run_id, campaigns)
        note = _comparison_note(name, experiment, children)
        for key, value in {**{_metric_name(key): value for key, value in about.items()}, _NOTE: note}.items():
            client.set_tag(run_id, key, value)
        client.log_dict(run_id, dict(settings), "comparison.json")
        at = int(time.time() * 1000)
        _log_metrics(
            client, run_id, [Metric(_metric_name(key), value, at, 0) for key, value in metrics.items()]
        )
        for path in sorted([*folder.glob("*.html"), *folder.glob("tables/*")]):
            client.log_artifact(run_id, str(path), None if path.parent == folder else path.parent.name)
        client.set_terminated(run_id, status="FINISHED")
    except (MlflowException, SQLAlchemyError, OSError) as error:
        _log.warning(
            "MLflow at %s cannot be written (%s); %s holds everything: report again with --report-only",
            tracking_uri(root),
            error,
            folder,
        )
        return False
    return True


def _comparison_run(client: MlflowClient, experiment: str, name: str) -> str:
    query = f"tags.`{KIND}` = 'comparison'"
    begun = client.search_runs([experiment], query, max_results=1)
    run = begun[0] if begun else client.create_run(experiment, tags={KIND: "comparison"}, run_name=name)
    return str(run.info.run_id)


def _adopt(
    client: MlflowClient, experiment: str, parent: str, campaigns: Sequence[Campaign]
) -> dict[str, str]:
    """Put campaigns' runs below a comparison's; campaign -> id of its run."""
    found = {}
    for campaign in campaigns:
        run_id = Tracker(campaign=campaign).run_id(client, experiment)
        if run_id is not None:
            client.set_tag(run_id, "mlflow.parentRunId", parent)
            found[campaign.name] = run_id
    return found


def _comparison_note(name: str, experiment: str, children: Mapping[str, str]) -> str:
    links = "\n".join(
        f"- [{campaign}](#/experiments/{experiment}/runs/{run_id})" for campaign, run_id in children.items()
    )
    return f"**Comparison {name}**: `report.html` and `tables/` are among the artifacts.\n\n{links}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracker:
    """Shows one campaign in MLflow.

    Args:
        campaign: whose ledger is the truth.
    """

    campaign: Campaign

    def sync(self) -> bool:
        """Log what the ledger holds; a store that cannot be reached is a warning, not an end.

        Returns:
            Whether the store has all of it.
        """
        try:
            self._sync()
        except (MlflowException, SQLAlchemyError, OSError) as error:
            _log.warning(
                "MLflow at %s cannot be written (%s); the ledger holds everything: "
                "run `sentinel-loop track %s` later",
                tracking_uri(self.campaign.folder.parent),
                error,
                self.campaign.folder,
            )
            return False
        return True

    def experiment_id(self) -> str:
        """Id of the campaign's experiment, which is created if there is none."""
        name = str(self.campaign.values["experiment"] or self.campaign.name)
        return experiment_id(self.campaign.folder.parent, name)

    def run_id(self, client: MlflowClient, experiment: str) -> str | None:
        """Id of the campaign's run, None where it was not logged."""
        found = self._find(client, experiment, {KIND: "campaign"})
        return str(found.info.run_id) if found is not None else None

    def _client(self) -> MlflowClient:
        return MlflowClient(tracking_uri=tracking_uri(self.campaign.folder.parent))

    def _sync(self) -> None:
        entries = self.campaign.ledger.entries()
        if not entries:
            return
        experiment, client = self.experiment_id(), self._client()
        parent = self._find(client, experiment, {KIND: "campaign"})
        if parent is None:
            parent = self._create_parent(client, experiment, entries[0])
        run_id = str(parent.info.run_id)
        settings = sorted(flatten(self.campaign.values).items())
        client.log_batch(
            run_id, params=[Param(_metric_name(key), str(value)[:500]) for key, value in settings]
        )
        _log_metrics(client, run_id, list(self._round_metrics()))
        for result in self.campaign.events("result"):
            self._log_round(client, experiment, run_id, result)
        self._log_charts(client, run_id)
        ended = self.campaign.event("finished")
        client.update_run(run_id, status="FINISHED" if ended else "RUNNING")
        if ended:
            client.set_terminated(run_id, status="FINISHED", end_time=_milliseconds(ended))

    def _find(self, client: MlflowClient, experiment: str, tags: Mapping[str, str]) -> Run | None:
        wanted = {CAMPAIGN_ID: self._id(), **tags}
        query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in wanted.items())
        found = client.search_runs([experiment], query, max_results=1)
        return found[0] if found else None

    def _id(self) -> str:
        first = self.campaign.ledger.entries()[0]
        return f"{self.campaign.name}-{first.at}"

    def _create_parent(self, client: MlflowClient, experiment: str, start: Entry) -> Run:
        values = self.campaign.values
        tags = {
            CAMPAIGN_ID: self._id(),
            KIND: "campaign",
            "strategy": pseudo_label_metrics.arm(values),
            "seed": str(values["seed"]),
            "dataset": str(start.payload["dataset"]),
            "dataset_sha256": str(start.payload["dataset_sha256"]),
            "config_sha256": str(start.payload["config_sha256"]),
            "code_version": str(start.payload["code_version"]),
            "mlflow.note.content": _note(self.campaign, start),
        }
        return client.create_run(
            experiment, start_time=_milliseconds(start), tags=tags, run_name=self.campaign.name
        )

    def _round_metrics(self) -> Iterator[Metric]:
        """Metrics over rounds. The charts sort sections by prefix: the means come first."""
        for result in self.campaign.events("result"):
            found = result.payload
            yield from _metrics(
                result,
                {
                    "dsc": found["dsc"],
                    "nsd": found["nsd"],
                    "labelled_cases": found["labelled_cases"],
                    "All/DSC": found["dsc"],
                    "All/NSD": found["nsd"],
                    **{f"DSC/{name}": value for name, value in found["dsc_per_structure"].items()},
                    **{f"NSD/{name}": value for name, value in found["nsd_per_structure"].items()},
                    **{f"used_budget/{name}": value for name, value in found["budget"].items()},
                },
            )
        for trial in self.campaign.events("trial"):
            yield from _metrics(
                trial, {f"estimator/{name}": value for name, value in trial.payload["estimator"].items()}
            )
        for entry, values in pseudo_label_metrics.metrics(self.campaign):
            yield from _metrics(entry, values)

    def _log_round(self, client: MlflowClient, experiment: str, parent: str, result: Entry) -> None:
        number = int(result.payload["round"])
        tags = {KIND: "round", "round": str(number)}
        child = self._find(client, experiment, tags)
        if child is not None and child.data.tags.get(COMPLETE) == "yes":
            return
        if child is None:
            more = {CAMPAIGN_ID: self._id(), "mlflow.parentRunId": parent, **tags}
            child = client.create_run(
                experiment,
                start_time=_milliseconds(result),
                tags=more,
                run_name=f"{self.campaign.name} round {number}",
            )
        run_id = str(child.info.run_id)
        folder = self.campaign.round_folder(number)
        _log_metrics(
            client, run_id, [*_metrics(result, _scalars(result)), *_curves(folder, _milliseconds(result))]
        )
        complete = self.campaign.event("trial", number) or self.campaign.event("finished")
        if complete:
            self._log_files(client, run_id, parent, folder, number)
            client.set_tag(run_id, COMPLETE, "yes")
            client.set_terminated(run_id, status="FINISHED", end_time=_milliseconds(complete))

    def _log_files(self, client: MlflowClient, run_id: str, parent: str, folder: Path, number: int) -> None:
        ranked = folder / "ranked.csv"
        if ranked.is_file():
            client.log_table(run_id, pd.read_csv(ranked, dtype={"case_id": str}), "ranked.json")
        selection = self.campaign.event("selection", number)
        if selection is not None:
            client.log_dict(run_id, dict(selection.payload), "selection.json")
        for table in sorted(folder.glob("evaluate-*/results.csv")) + sorted(
            folder.glob("score-*/scores.csv")
        ):
            client.log_artifact(run_id, str(table))
        for name in ("verdicts.csv", "judged.csv"):
            if (folder / name).is_file():
                client.log_artifact(run_id, str(folder / name))
        for picture in sorted((folder / "figures").glob("*.png")):
            client.log_artifact(run_id, str(picture), "figures")
            client.log_artifact(parent, str(picture), f"figures/round_{number:03d}")

    def _log_charts(self, client: MlflowClient, run_id: str) -> None:
        for picture in sorted((self.campaign.folder / "figures").glob("*.png")):
            client.log_artifact(run_id, str(picture), "figures")
        if (self.campaign.folder / "report.md").is_file():
            client.log_artifact(run_id, str(self.campaign.folder / "report.md"))


def server_command(campaigns_root: Path, host: str, port: int) -> list[str]:
    """Arguments that start MLflow's own UI on the store of the campaigns."""
    return [
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        tracking_uri(campaigns_root),
        "--host",
        host,
        "--port",
        str(port),
        "--workers",
        "1",
        "--default-artifact-root",
        (campaigns_root.resolve() / "mlflow-artifacts").as_uri(),
    ]


def _note(campaign: Campaign, start: Entry) -> str:
    values = campaign.values
    if pseudo_label_metrics.is_training(values):
        return pseudo_label_metrics.note(campaign, start)
    held_out, pool = len(start.payload["held_out"]), len(start.payload["pool"])
    budget = values["budget"]
    return (
        f"**{values['strategy']}** on {start.payload['dataset']}, seed {values['seed']}: starts with "
        f"{len(start.payload['start'])} labelled cases, spends {budget['per_round']:g} {budget['currency']} "
        f"a round for {values['rounds']} rounds, chooses among {pool} cases and measures on {held_out} "
        f"held-out cases. `step` is the round; `used_budget/*` is what the annotations until then cost.\n\n"
        f"Folder: `{campaign.name}`, code {start.payload['code_version']}, data "
        f"`{start.payload['dataset_sha256'][:12]}`, config `{start.payload['config_sha256'][:12]}`."
    )


def _scalars(result: Entry) -> dict[str, float | None]:
    return {"held_out/dsc": result.payload["dsc"], "held_out/nsd": result.payload["nsd"]}


def _metrics(entry: Entry, values: Mapping[str, float | None]) -> Iterator[Metric]:
    for name, value in values.items():
        if value is not None:
            yield Metric(_metric_name(name), float(value), _milliseconds(entry), int(entry.payload["round"]))


def _curves(folder: Path, at: int) -> Iterator[Metric]:
    """Training curves of a round's finished stages."""
    for path in sorted(folder.glob("[!.]*/curves.json")):
        stage = read_json(path.parent / MANIFEST)["stage"]
        for point in json.loads(path.read_text()):
            for name, value in point.items():
                if name != "step":
                    yield Metric(_metric_name(f"{stage}/{name}"), float(value), at, int(point["step"]))


def _log_metrics(client: MlflowClient, run_id: str, metrics: list[Metric]) -> None:
    for start in range(0, len(metrics), 500):
        client.log_batch(run_id, metrics=metrics[start : start + 500])


def _metric_name(name: str) -> str:
    """MLflow allows letters, digits, `_ - . / ` and spaces.

    >>> _metric_name("DSC/Kidney (L)")
    'DSC/Kidney _L_'
    """
    return re.sub(r"[^\w\-./ ]", "_", name)


def _milliseconds(entry: Entry) -> int:
    return int(datetime.fromisoformat(entry.at).timestamp() * 1000)
