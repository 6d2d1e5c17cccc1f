"""The store: where it lies, its experiments, the tags that tell runs apart, and how it is served."""

import logging
import os
from pathlib import Path

from filelock import FileLock
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

CAMPAIGN_ID, KIND, COMPLETE = "sentinel_loop.campaign_id", "sentinel_loop.kind", "sentinel_loop.complete"
NOTE, PARENT = "mlflow.note.content", "mlflow.parentRunId"
UNREACHABLE = (MlflowException, SQLAlchemyError, OSError)
"""What a store that cannot be reached raises."""

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
    except UNREACHABLE as error:
        _log.warning("MLflow at %s cannot be written (%s)", tracking_uri(root), error)
        return False
    return True


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
