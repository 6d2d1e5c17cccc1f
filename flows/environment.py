"""What the process needs around it: quiet, offline Prefect and MLflow, threads, and who made a result."""

import itertools
import os
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock, Timeout

_DEFAULTS = {
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "GIT_PYTHON_REFRESH": "quiet",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_CLI_PROMPT": "false",
}
_PREFECT_OF_THE_USER = ("PREFECT_API_URL", "PREFECT_HOME", "PREFECT_PROFILE")


def prepare(campaigns_root: Path) -> None:
    """Set what Prefect and MLflow read when they are imported; what the user has set stays.

    Prefect's own database goes beside the campaigns unless the user has a Prefect set up.
    """
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    profiles = Path.home() / ".prefect" / "profiles.toml"
    if not any(name in os.environ for name in _PREFECT_OF_THE_USER) and not profiles.exists():
        os.environ["PREFECT_HOME"] = str(campaigns_root.resolve() / ".prefect")
    _standard_library_first()


@contextmanager
def process_folder(beside: Path) -> Iterator[Path]:
    """A folder that no other process uses meanwhile: the first free one of `beside/0`, `beside/1` ...

    Prefect's temporary servers must not share a database.
    """
    for number in itertools.count():
        folder = beside / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        try:
            yield folder
        finally:
            lock.release()
        return


def _standard_library_first() -> None:
    """Let the server that Prefect starts find the standard library before the installed packages.

    Prefect puts the folder that it is installed in first on the server's path. Where nnU-Net is installed, an
    old argparse lies there, which would hide Python's own: the server would not start.
    """
    found = find_spec("prefect")
    if found is None or found.origin is None:
        return
    if (Path(found.origin).parents[1] / "argparse.py").is_file():
        import prefect

        prefect.__module_path__ = Path(sysconfig.get_path("stdlib")) / "prefect"


def use_threads(threads: int) -> int:
    """Let torch use this many threads, 0 for all cores, and return the number in use."""
    import torch

    torch.set_flush_denormal(True)  # before the first operation: worker threads inherit it when they start
    torch.set_num_threads(threads or os.cpu_count() or 1)
    return torch.get_num_threads()


def code_version() -> str:
    """Version of the package, with the git commit where the code runs from a checkout."""
    try:
        release = version("sentinel-loop")
    except PackageNotFoundError:
        release = "unknown"
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return release
    commit = found.stdout.strip()
    return f"{release}+{commit}" if found.returncode == 0 and commit else release
