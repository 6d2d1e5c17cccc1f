"""What is logged as metrics: names that MLflow allows, batches, curves of trainings."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

from flows.stages import MANIFEST, read_json


def curves(folder: Path, at: int) -> Iterator[Metric]:
    """Training curves of the finished stages in a folder, with a time in milliseconds."""
    for path in sorted(folder.glob("[!.]*/curves.json")):
        stage = read_json(path.parent / MANIFEST)["stage"]
        for point in json.loads(path.read_text()):
            for name, value in point.items():
                if name != "step":
                    yield Metric(metric_name(f"{stage}/{name}"), float(value), at, int(point["step"]))


def log_metrics(client: MlflowClient, run_id: str, metrics: list[Metric]) -> None:
    """Log any number of metrics, in batches that MLflow takes."""
    for start in range(0, len(metrics), 500):
        client.log_batch(run_id, metrics=metrics[start : start + 500])


def metric_name(name: str) -> str:
    """MLflow allows letters, digits, `_ - . / ` and spaces.

    >>> metric_name("DSC/Kidney (L)")
    'DSC/Kidney _L_'
    """
    return re.sub(r"[^\w\-./ ]", "_", name)
