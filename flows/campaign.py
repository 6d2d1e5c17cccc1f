"""A campaign's folder: its config, its ledger, its lock, and what can be read from them.

The ledger is the truth. Everything that is shown (status, MLflow, tables) is read from it.
"""

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from pydantic import ValidationError

from cohort.annotation import Annotation
from cohort.budget import Cost
from cohort.errors import BusyError, CampaignError
from cohort.ledger import Entry, Ledger
from cohort.slabs import from_bounds
from cohort.volume import write_bytes
from flows.config_files import as_dict, differences
from flows.requests import requested, unanswered
from flows.stages import read_json, write_json
from flows.strict_model import Configured

WORKSPACE = "segmenter"
"""Folder of a campaign where its segmenter keeps what later rounds use again."""

CONFIG, LEDGER, LOCK, PROCESS = "config.yaml", "ledger.jsonl", ".lock", "process.json"
FAILURE = "failure.json"


def now() -> str:
    """The time as the ledger writes it: UTC, ISO 8601, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """A campaign's folder, opened.

    Args:
        folder: of the campaign.
        values: the resolved configuration.
        ledger: of the campaign.
    """

    folder: Path
    values: Mapping[str, Any]
    ledger: Ledger

    @property
    def name(self) -> str:
        """Name of the campaign, which is that of its folder."""
        return self.folder.name

    def round_folder(self, number: int) -> Path:
        """Folder of a round."""
        return self.folder / "rounds" / f"{number:03d}"

    def events(self, kind: str, number: int | None = None) -> list[Entry]:
        """Entries of one kind, of one round or of all."""
        return [
            entry
            for entry in self.ledger.entries()
            if entry.event == kind and (number is None or entry.payload.get("round") == number)
        ]

    def event(self, kind: str, number: int | None = None) -> Entry | None:
        """The last entry of a kind, or None."""
        found = self.events(kind, number)
        return found[-1] if found else None

    def append(self, kind: str, **payload: Any) -> Entry:
        """Write an entry, with the time."""
        return self.ledger.append(kind, at=now(), **payload)

    def annotations(self, number: int | None = None) -> list[Annotation]:
        """The annotations that were let in, of one round or all, in the order of the ledger."""
        return [self._annotation(entry.payload) for entry in self.events("annotation", number)]

    def skipped(self, number: int | None = None) -> set[str]:
        """Ids of the cases that people gave back, of one round or all."""
        return {entry.payload["case_id"] for entry in self.events("skip", number)}

    def _annotation(self, payload: Mapping[str, Any]) -> Annotation:
        return Annotation(
            case_id=payload["case_id"],
            structures=payload["structures"],
            path=self.folder / payload["path"],
            sha256=payload["sha256"],
            annotator=payload["annotator"],
            minutes=payload["minutes"],
            cost=Cost(**payload["cost"]),
            slabs=from_bounds(payload.get("slabs", ())),
        )


def open_campaign(folder: Path) -> Campaign:
    """Open an existing campaign for reading.

    Raises:
        CampaignError: if there is none.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise CampaignError(
            f"There is no campaign at {folder} (no {CONFIG} in it); "
            f"campaigns beside it: {', '.join(known_campaigns(folder.parent)) or 'none'}"
        )
    return Campaign(folder=folder, values=_read_config(path), ledger=Ledger(folder / LEDGER))


def _read_config(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CampaignError(f"{path} is not valid YAML any more; restore it from a copy") from error
    if not isinstance(values, dict):
        raise CampaignError(f"{path} does not hold a configuration any more; restore it from a copy")
    return values


def known_campaigns(root: Path) -> list[str]:
    """Names of the campaigns below a folder."""
    return sorted(path.parent.name for path in root.glob(f"*/{CONFIG}"))


def check_config(config: Configured) -> None:
    """Refuse a folder that holds what another config made.

    Raises:
        CampaignError: with the keys that differ.
    """
    changed = changes(config)
    if changed:
        raise CampaignError(
            f"The folder {config.folder} was made with another config ({'; '.join(changed)}); "
            "start it with its own config, or give this one another name with --set name=..."
        )


def changes(config: Configured) -> list[str]:
    """What a config would compute differently from the one that its folder was made with, a line a key.

    A folder that was renamed, or copied, goes on under the name that it has now.

    Returns:
        Nothing where the folder was not made yet.
    """
    path = config.folder / CONFIG
    if not path.is_file():
        return []
    current = as_dict(config)
    kept = _completed(_read_config(path), type(config))
    return differences({**kept, "name": current["name"]}, current)


def _completed(values: dict[str, Any], model: type[Configured]) -> dict[str, Any]:
    """A kept config with the defaults of keys that came after it, so that an older campaign can go on."""
    try:
        return as_dict(model.model_validate(values))
    except ValidationError:  # it has keys that are no more: every difference is told
        return values


def create_or_open(config: Configured) -> Campaign:
    """Open the config's campaign and create its folder if there is none; hold the lock for this."""
    keep_config(config)
    return open_campaign(config.folder)


def keep_config(config: Configured) -> None:
    """Write the config into its folder unless it is there; hold the lock for this.

    Raises:
        CampaignError: if the folder holds another config.
    """
    check_config(config)
    path = config.folder / CONFIG
    if not path.is_file():
        text = yaml.safe_dump(as_dict(config), sort_keys=False, allow_unicode=True)
        write_bytes(path, text.encode())


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this process alone; the lock ends with the process, however that ends.

    Raises:
        BusyError: if another process holds it.
    """
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=1)  # `is_locked` of another process may hold it for a moment
    except Timeout as error:
        raise BusyError(f"Another process works in {folder}; wait for it, or stop it first") from error
    try:
        yield
    finally:
        lock.release()
        _remove_empty(created)


def is_locked(folder: Path) -> bool:
    """Whether a process is running the campaign."""
    if not (folder / LOCK).exists():
        return False
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def state(campaign: Campaign) -> str:
    """One of "finished", "running", "awaiting annotation", "all is back", "failed", "interrupted"."""
    if campaign.event("finished"):
        return "finished"
    if is_locked(campaign.folder):
        return "running"
    entries = campaign.ledger.entries()
    if entries and entries[-1].event == "awaiting":
        return "awaiting annotation"
    if _all_is_back(campaign) and not _failed_since(campaign.folder, entries[-1].at):
        return "all is back"
    return "interrupted" if failure(campaign.folder) is None else "failed"


def _all_is_back(campaign: Campaign) -> bool:
    """Whether people have answered all that the last round waited for, which no run has used yet."""
    start, awaiting = campaign.event("start"), campaign.event("awaiting")
    if start is None or awaiting is None:
        return False
    number = awaiting.payload["round"]
    selection = campaign.event("selection", number)
    if selection is None or campaign.event("trial", number) is not None:
        return False
    requests = requested(selection.payload, [each["name"] for each in start.payload["structures"]])
    unit = campaign.values.get("unit", "case")
    return not unanswered(requests, campaign.annotations(), campaign.skipped(number), unit)


def _failed_since(folder: Path, at: str) -> bool:
    """Whether a run ended with an error after a line of the ledger."""
    path = folder / FAILURE
    return path.is_file() and str(read_json(path)["at"]) >= at


def failure(folder: Path) -> str | None:
    """Why the last run of a campaign ended with an error, None where it did not."""
    path = folder / FAILURE
    return str(read_json(path)["why"]) if path.is_file() else None


def record_failure(folder: Path, error: Exception) -> None:
    """Write down why a run ends, for who asks later; no part of the ledger, since a rerun may mend it."""
    write_json(folder / FAILURE, {"at": now(), "why": f"{error}" or type(error).__name__})


def forget_failure(folder: Path) -> None:
    """A new run has begun."""
    (folder / FAILURE).unlink(missing_ok=True)


def end_orphans(folder: Path) -> str | None:
    """End the Prefect server that a killed run of this campaign left behind.

    Returns:
        The id of the flow run that was killed, None if there was none.
    """
    path = folder / PROCESS
    if not path.is_file():
        return None
    left = read_json(path)
    for pid in left["servers"]:
        if "prefect.server.api.server:create_app" in _command_line(pid):
            os.kill(pid, signal.SIGTERM)
    path.unlink()
    flow_run: str | None = left["flow_run_id"]
    return flow_run


def record_process(folder: Path, flow_run_id: str) -> None:
    """Write down what `end_orphans` needs if this process is killed."""
    servers = [pid for pid in _children() if "prefect.server.api.server:create_app" in _command_line(pid)]
    write_json(folder / PROCESS, {"pid": os.getpid(), "servers": servers, "flow_run_id": flow_run_id})


def forget_process(folder: Path) -> None:
    """The flow has ended by itself: nothing is left behind."""
    (folder / PROCESS).unlink(missing_ok=True)


def _children() -> Sequence[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == os.getpid():
            found.append(int(stat.parent.name))
    return found


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""


def _remove_empty(created: Sequence[Path]) -> None:
    """Leave no trace of a campaign that was refused before it began."""
    for folder in created:
        if any(path.name != LOCK for path in folder.iterdir()):
            return
        (folder / LOCK).unlink(missing_ok=True)
        folder.rmdir()
