"""A trained sentinel as a run of MLflow."""

import logging
import time
from collections.abc import Mapping

from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient

from flows.config_files import flatten
from flows.sentinel_config import SentinelTrainingConfig
from flows.tracking.metrics import curves, log_metrics, metric_name
from flows.tracking.store import COMPLETE, KIND, NOTE, UNREACHABLE, experiment_id, tracking_uri

_log = logging.getLogger(__name__)


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
    except UNREACHABLE as error:
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
    more = {metric_name(name): value for name, value in about.items()}
    run = begun[0] if begun else client.create_run(experiment, tags=tags, run_name=config.name)
    for name, value in {**more, NOTE: note}.items():
        client.set_tag(run.info.run_id, name, value)
    run_id, at = str(run.info.run_id), int(time.time() * 1000)
    settings = sorted(flatten(config.model_dump(mode="json")).items())
    client.log_batch(run_id, params=[Param(metric_name(key), str(value)[:500]) for key, value in settings])
    found = [Metric(metric_name(name), value, at, 0) for name, value in metrics.items()]
    log_metrics(client, run_id, [*found, *curves(config.folder / "stages", at)])
    for path in sorted(config.folder.glob("*.*")):
        if path.suffix in {".md", ".csv", ".json", ".safetensors"} and not path.name.startswith("process"):
            client.log_artifact(run_id, str(path))
    for picture in sorted((config.folder / "figures").glob("*.png")):
        client.log_artifact(run_id, str(picture), "figures")
    client.set_tag(run_id, COMPLETE, "yes")
    client.set_terminated(run_id, status="FINISHED")
