"""The memory of a campaign: append-only JSON lines, each chained to the one before it by a hash."""

import hashlib
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cohort.errors import CampaignError

_FIRST = "0" * 64
_FIELDS = ("seq", "event", "at", "previous")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the ledger.

    Args:
        seq: number of the line, from 0.
        event: what happened.
        at: when, as the caller wrote it.
        payload: everything else, as JSON values (a tuple comes back as a list).
        previous: sha256 of the line before, without its line end; zeros for the first.
    """

    seq: int
    event: str
    at: str
    payload: Mapping[str, Any] = field(hash=False)
    previous: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    """What has been read: whole lines only.

    Args:
        entries: of the whole lines.
        last: hash of the last whole line.
        size: bytes of the whole lines.
        stamp: size and time of change of the file when it was read or written.
    """

    entries: tuple[Entry, ...] = ()
    last: str = _FIRST
    size: int = 0
    stamp: tuple[int, int] = (0, 0)

    @property
    def torn(self) -> bool:
        """Whether the file ends in a line that was never finished."""
        return self.stamp[0] > self.size


class Ledger:
    """Append-only JSON lines: what is in it happened, what is not in it did not.

    A line is written with one system call and flushed to disk before `append` returns. A process that is
    killed while it writes leaves a line without its end: reading ignores it, and the next append cuts it
    off. Any other damage, and any edit of an earlier line, is found by the chain of hashes. (What is
    done to the very last line has no later hash to contradict it.)

    Threads of one process may share a ledger; two processes must not append to one file at the same time,
    which is for whoever owns the campaign folder to prevent.

    Args:
        path: of the file; its folder is made with the first line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._state: _State | None = None

    @property
    def path(self) -> Path:
        """Path of the file."""
        return self._path

    def entries(self) -> tuple[Entry, ...]:
        """All whole lines, in order; none where the file does not exist yet.

        Raises:
            CampaignError: naming the first line that is broken or does not follow from the one before.
        """
        with self._lock:
            return self._read().entries

    def append(self, event: str, *, at: str, **payload: object) -> Entry:
        """Write one line and wait until it is on the disk.

        Args:
            event: what happened.
            at: when; the ledger keeps no clock of its own.
            payload: JSON values. Not-a-number is kept as Python's JSON writes it.

        Returns:
            The entry as it will be read back.

        Raises:
            CampaignError: if the payload is no JSON, the file is broken or the line cannot be written.
        """
        with self._lock:
            state = self._read()
            line = self._line(event, at, payload, state)
            stamp = self._write(line, state)
            entry = _entry(json.loads(line))
            self._state = _State(
                entries=(*state.entries, entry),
                last=_sha256(line[:-1]),
                size=state.size + len(line),
                stamp=stamp,
            )
            return entry

    def _line(self, event: str, at: str, payload: Mapping[str, object], state: _State) -> bytes:
        reserved = sorted(payload.keys() & set(_FIELDS))
        if reserved:
            raise CampaignError(
                f"Event {event!r} has a field {reserved[0]!r}, which the ledger writes itself"
            )
        seq = len(state.entries)
        record = {"seq": seq, "event": event, "at": at, **payload, "previous": state.last}
        try:
            return json.dumps(record, ensure_ascii=False).encode() + b"\n"
        except (TypeError, ValueError) as error:
            raise CampaignError(
                f"Event {event!r} cannot be written to {self._path} as JSON: {error}"
            ) from error

    def _write(self, line: bytes, state: _State) -> tuple[int, int]:
        try:
            new = not self._path.exists()
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                if state.torn:
                    os.ftruncate(descriptor, state.size)
                written = os.write(descriptor, line)
                if written != len(line):
                    os.ftruncate(descriptor, state.size)
                    raise OSError(f"only {written} of {len(line)} bytes could be written")
                os.fsync(descriptor)
                stamp = _stamp(os.fstat(descriptor))
            finally:
                os.close(descriptor)
            if new:
                _sync_folder(self._path.parent)
            return stamp
        except OSError as error:
            self._state = None
            raise CampaignError(f"The ledger {self._path} cannot be written: {error}") from error

    def _read(self) -> _State:
        try:
            if self._state is not None and self._state.stamp == _stamp(self._path.stat()):
                return self._state
            with self._path.open("rb") as file:
                stamp = _stamp(os.fstat(file.fileno()))
                data = file.read(stamp[0])
        except FileNotFoundError:
            self._state = None
            return _State()
        except OSError as error:
            raise CampaignError(f"The ledger {self._path} cannot be read: {error}") from error
        self._state = _parse(data, stamp, self._path)
        return self._state


def _parse(data: bytes, stamp: tuple[int, int], path: Path) -> _State:
    whole = data[: data.rfind(b"\n") + 1]
    entries: list[Entry] = []
    last = _FIRST
    for number, line in enumerate(whole.split(b"\n")[:-1], start=1):
        entry = _entry_of_line(line, number, path)
        if entry.previous != last or entry.seq != number - 1:
            raise CampaignError(
                f"Line {number} of the ledger {path} does not follow from the line before it: an earlier "
                "line was changed, added or removed; restore the file from a backup"
            )
        entries.append(entry)
        last = _sha256(line)
    return _State(entries=tuple(entries), last=last, size=len(whole), stamp=stamp)


def _entry_of_line(line: bytes, number: int, path: Path) -> Entry:
    try:
        return _entry(json.loads(line))
    except (ValueError, TypeError, KeyError) as error:
        raise CampaignError(
            f"Line {number} of the ledger {path} is broken ({error!r}); restore the file from a backup"
        ) from error


def _entry(record: dict[str, Any]) -> Entry:
    if not isinstance(record, dict):
        raise TypeError("expected a JSON object")
    return Entry(
        seq=int(record["seq"]),
        event=str(record["event"]),
        at=str(record["at"]),
        payload={key: value for key, value in record.items() if key not in _FIELDS},
        previous=str(record["previous"]),
    )


def _sha256(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def _stamp(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def _sync_folder(folder: Path) -> None:
    """Flush the folder, so that a new file's name survives a power cut too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
