"""A comparison as the parent of its campaigns' runs."""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

from flows.campaign import Campaign
from flows.tracking.campaigns import Tracker
from flows.tracking.metrics import log_metrics, metric_name
from flows.tracking.store import KIND, NOTE, PARENT, UNREACHABLE, experiment_id, tracking_uri

_log = logging.getLogger(__name__)


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
        for key, value in {**{metric_name(key): value for key, value in about.items()}, NOTE: note}.items():
            client.set_tag(run_id, key, value)
        client.log_dict(run_id, dict(settings), "comparison.json")
        at = int(time.time() * 1000)
        log_metrics(
            client, run_id, [Metric(metric_name(key), value, at, 0) for key, value in metrics.items()]
        )
        for path in sorted([*folder.glob("*.html"), *folder.glob("tables/*")]):
            client.log_artifact(run_id, str(path), None if path.parent == folder else path.parent.name)
        client.set_terminated(run_id, status="FINISHED")
    except UNREACHABLE as error:
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
            client.set_tag(run_id, PARENT, parent)
            found[campaign.name] = run_id
    return found


def _comparison_note(name: str, experiment: str, children: Mapping[str, str]) -> str:
    links = "\n".join(
        f"- [{campaign}](#/experiments/{experiment}/runs/{run_id})" for campaign, run_id in children.items()
    )
    return f"**Comparison {name}**: `report.html` and `tables/` are among the artifacts.\n\n{links}\n"
