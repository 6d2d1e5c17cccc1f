"""A campaign as a parent run of MLflow, each of its rounds as a child run.

`Tracker.sync` may be called as often as one likes: metrics keep the ledger's times, so logging them again
changes nothing, and a store that was lost is filled again from the campaign's folder.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd
from mlflow.entities import Metric, Param, Run
from mlflow.tracking import MlflowClient

from cohort.ledger import Entry
from flows import pseudo_label_metrics
from flows.campaign import Campaign, failure
from flows.config_files import flatten
from flows.tracking.metrics import curves, log_metrics, metric_name
from flows.tracking.store import (
    CAMPAIGN_ID,
    COMPLETE,
    KIND,
    NOTE,
    PARENT,
    UNREACHABLE,
    experiment_id,
    tracking_uri,
)

_log = logging.getLogger(__name__)


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
        except UNREACHABLE as error:
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
            run_id, params=[Param(metric_name(key), str(value)[:500]) for key, value in settings]
        )
        log_metrics(client, run_id, list(self._round_metrics()))
        for result in self.campaign.events("result"):
            self._log_round(client, experiment, run_id, result)
        self._log_charts(client, run_id)
        ended = self.campaign.event("finished")
        failed = failure(self.campaign.folder) is not None
        client.update_run(run_id, status="FINISHED" if ended else "FAILED" if failed else "RUNNING")
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
            **pseudo_label_metrics.tags(values),
            "seed": str(values["seed"]),
            "dataset": str(start.payload["dataset"]),
            "dataset_sha256": str(start.payload["dataset_sha256"]),
            "config_sha256": str(start.payload["config_sha256"]),
            "code_version": str(start.payload["code_version"]),
            NOTE: _note(self.campaign, start),
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
            more = {CAMPAIGN_ID: self._id(), PARENT: parent, **tags}
            child = client.create_run(
                experiment,
                start_time=_milliseconds(result),
                tags=more,
                run_name=f"{self.campaign.name} round {number}",
            )
        run_id = str(child.info.run_id)
        folder = self.campaign.round_folder(number)
        log_metrics(
            client, run_id, [*_metrics(result, _scalars(result)), *curves(folder, _milliseconds(result))]
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
        for table in sorted(folder.glob("evaluate-*/results.csv")):
            client.log_artifact(run_id, str(table))
        for table in sorted(folder.glob("score-*/scores.csv")):
            stage = table.parent.name.rpartition("-")[0]  # "score": the strategy's; else "score-<estimator>"
            client.log_artifact(run_id, str(table), stage.partition("-")[2] or None)
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
        f"held-out cases. {pseudo_label_metrics.beside(values)}`step` is the round; `used_budget/*` is what "
        f"the annotations until then cost.\n\n"
        f"Folder: `{campaign.name}`, code {start.payload['code_version']}, data "
        f"`{start.payload['dataset_sha256'][:12]}`, config `{start.payload['config_sha256'][:12]}`."
    )


def _scalars(result: Entry) -> dict[str, float | None]:
    return {"held_out/dsc": result.payload["dsc"], "held_out/nsd": result.payload["nsd"]}


def _metrics(entry: Entry, values: Mapping[str, float | None]) -> Iterator[Metric]:
    for name, value in values.items():
        if value is not None:
            yield Metric(metric_name(name), float(value), _milliseconds(entry), int(entry.payload["round"]))


def _milliseconds(entry: Entry) -> int:
    return int(datetime.fromisoformat(entry.at).timestamp() * 1000)
