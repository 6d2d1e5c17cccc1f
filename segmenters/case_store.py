"""Prepared cases: as many in memory as are allowed, the others on disk and read box by box.

On disk a case is three uncompressed NumPy files that are mapped into memory, and a JSON file that comes last.
Their names are hidden, so that nothing takes them for results, and they are gone when a training ends.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cohort.records import TrainingCase
from cohort.volume import Array, whole_file, write_bytes
from segmenters.preprocessing import IGNORED, Places, PreparedCase

_GIB = 2**30
_HIDDEN = ".prepared_"

Prepare = Callable[[TrainingCase], PreparedCase]


class MappedVolume:
    """A (D, H, W) volume in an uncompressed NumPy file; only the boxes that are asked for are read.

    Args:
        path: of the .npy file.
    """

    def __init__(self, path: Path) -> None:
        self._voxels: Array = np.load(path, mmap_mode="r")

    @property
    def shape(self) -> torch.Size:
        """(D, H, W)."""
        return torch.Size(self._voxels.shape)

    def __getitem__(self, box: tuple[slice, ...], /) -> Tensor:
        """A copy of the voxels of a box."""
        return torch.from_numpy(np.array(self._voxels[box]))


@contextmanager
def prepared_cases(
    cases: Sequence[TrainingCase], prepare: Prepare, folder: Path, *, cache_gib: float, threads: int
) -> Iterator[tuple[PreparedCase, ...]]:
    """Prepare cases for the length of a block.

    Args:
        cases: to prepare.
        prepare: reads and prepares one; called from threads.
        folder: for those that do not fit into memory.
        cache_gib: gibibytes of prepared cases in memory.
        threads: that prepare at the same time, 0 and 1 are none beside this one; so many cases, and what
            preparing them takes, are in memory beyond the cache.

    Returns:
        The prepared cases in their order. The same voxels come from memory and from disk.
    """
    _remove(folder)
    cache = _Cache(prepare, folder, cache_gib * _GIB)
    try:
        if threads > 1:
            with ThreadPoolExecutor(threads) as pool:
                found = tuple(pool.map(cache, range(len(cases)), cases))
        else:
            found = tuple(cache(index, case) for index, case in enumerate(cases))
        yield found
    finally:
        _remove(folder)


def open_stored(folder: Path, count: int) -> tuple[PreparedCase, ...]:
    """The cases that another process stored with a cache of 0 GiB.

    Args:
        folder: that it stored them in.
        count: of the cases.
    """
    return tuple(_open(folder, index) for index in range(count))


class _Cache:
    """Prepares cases and puts those that no longer fit into memory on disk."""

    def __init__(self, prepare: Prepare, folder: Path, limit_bytes: float) -> None:
        self._prepare, self._folder = prepare, folder
        self._free, self._lock = limit_bytes, Lock()

    def __call__(self, index: int, case: TrainingCase) -> PreparedCase:
        prepared = self._prepare(case)
        size = _size_bytes(prepared)
        with self._lock:
            fits = size <= self._free
            self._free -= size if fits else 0
        if fits:
            return prepared
        _store(prepared, self._folder, index)
        return _open(self._folder, index)


def _size_bytes(case: PreparedCase) -> int:
    places = sum(12 * len(voxels) for voxels in _all_places(case))
    return 5 * case.image.shape.numel() + places


def _store(case: PreparedCase, folder: Path, index: int) -> None:
    whole = (slice(None),) * 3
    voxels = [np.asarray(each, dtype=np.int32) for each in _all_places(case)]
    places = np.concatenate(voxels) if voxels else np.zeros((0, 3), dtype=np.int32)
    _save(_path(folder, index, "image.npy"), case.image[whole].numpy())
    _save(_path(folder, index, "channels.npy"), case.channels[whole].numpy())
    _save(_path(folder, index, "places.npy"), places)
    values = {
        "case_id": case.case_id,
        "known": case.known.tolist(),
        "places": {channel: len(case.places[channel]) for channel in case.places},
        "annotated": None if case.annotated is None else len(case.annotated),
        "pseudo": case.pseudo,
        "weight": None if case.weight is None else case.weight.tolist(),
    }
    write_bytes(_path(folder, index, "case.json"), json.dumps(values).encode())


def _open(folder: Path, index: int) -> PreparedCase:
    values = json.loads(_path(folder, index, "case.json").read_bytes())
    partly = {} if values["annotated"] is None else {str(IGNORED): values["annotated"]}
    places = _split(_path(folder, index, "places.npy"), {**values["places"], **partly})
    annotated = places.pop(IGNORED, None)
    return PreparedCase(
        case_id=values["case_id"],
        image=MappedVolume(_path(folder, index, "image.npy")),
        channels=MappedVolume(_path(folder, index, "channels.npy")),
        known=torch.tensor(values["known"]),
        places=places,
        pseudo=values["pseudo"],
        weight=None if values["weight"] is None else torch.tensor(values["weight"]),
        annotated=annotated,
    )


def _all_places(case: PreparedCase) -> list[Places]:
    return [*case.places.values(), *([] if case.annotated is None else [case.annotated])]


def _split(path: Path, counts: Mapping[str, int]) -> dict[int, Places]:
    voxels: NDArray[np.int32] = np.load(path, mmap_mode="r" if any(counts.values()) else None)
    places: dict[int, Places] = {}
    first = 0
    for channel, count in counts.items():
        places[int(channel)] = voxels[first : first + count]
        first += count
    return places


def _save(path: Path, array: Array) -> None:
    with whole_file(path) as file:
        np.save(file, array)


def _path(folder: Path, index: int, name: str) -> Path:
    return folder / f"{_HIDDEN}{index:05d}_{name}"


def _remove(folder: Path) -> None:
    for pattern in (f"{_HIDDEN}*", f".{_HIDDEN}*.tmp"):
        for path in folder.glob(pattern):
            path.unlink()
