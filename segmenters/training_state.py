"""The state of a training on disk, so that one that was killed goes on where it was.

Two hidden files: the state itself, named after its step, and a note that comes last and says which state is
whole and what it belongs to. So there is a whole state at every moment.
"""

import hashlib
import json
import logging
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cohort.case import Structure
from cohort.errors import DataError, ModelError
from cohort.records import TrainingCase
from cohort.slabs import bounds
from cohort.volume import whole_file, write_bytes
from segmenters.checkpoints import checkpoint_path
from segmenters.config import SegmenterConfig
from segmenters.descriptions import load_checkpoint

_HIDDEN = ".training_state"
_FORMAT = 1
_DAMAGED = (
    ModelError,
    OSError,
    ValueError,
    KeyError,
    TypeError,
    RuntimeError,
    EOFError,
    pickle.UnpicklingError,
)
_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class TrainingState:
    """All that the next steps of a training depend on, at the end of a step.

    Random numbers need none: each patch and each step's dropout has a seed of its own.

    Args:
        step: that was taken last.
        network: its weights.
        optimiser: its state.
        average: the moving average of the weights, and how often it was updated.
        stopping: what early stopping remembers, empty without.
        kept: steps whose checkpoints are written.
        told: what was reported so far, step by step.
        recent: losses of the steps since then.
    """

    step: int
    network: Mapping[str, Tensor]
    optimiser: dict[str, Any]
    average: dict[str, Any]
    stopping: dict[str, Any] = field(default_factory=dict)
    kept: list[int] = field(default_factory=list)
    told: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    recent: list[dict[str, float]] = field(default_factory=list)


def training_inputs(
    config: SegmenterConfig,
    cases: Sequence[TrainingCase],
    structures: Sequence[Structure],
    *,
    seed: int,
    steps: int,
    checkpoint_steps: frozenset[int],
    initial_sha256: str,
) -> str:
    """Hash of everything that the weights of a training depend on.

    Args:
        config: of the segmenter; its resources do not count.
        cases: to learn from, by what is in their files.
        structures: of the cohort.
        seed: of everything random.
        steps: to take.
        checkpoint_steps: that are kept.
        initial_sha256: of the weights that it starts from, "" without any.

    Raises:
        DataError: if a file is missing.
    """
    settings = asdict(config)
    del settings["resources"]
    values = {
        "format": _FORMAT,
        "config": settings,
        "cases": [
            {
                "case": case.case_id,
                "patient": case.patient_id,
                "image": _content_sha256(case.image),
                "labels": _content_sha256(case.label_map),
                "annotated": sorted(case.annotated),
                **({"pseudo": True, "weights": sorted(case.weights.items())} if case.pseudo else {}),
                **({"slabs": bounds(case.slabs)} if case.slabs else {}),
            }
            for case in cases
        ],
        "structures": [asdict(structure) for structure in structures],
        "seed": seed,
        "steps": steps,
        "checkpoint_steps": sorted(checkpoint_steps),
        "initial": initial_sha256,
    }
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


class StateFile:
    """Where the state of a training lies.

    Args:
        folder: of its checkpoints.
        inputs: see `training_inputs`.
        every: steps between two states, 0 is never.
    """

    def __init__(self, folder: Path, inputs: str, every: int) -> None:
        self._folder, self._inputs, self._every = folder, inputs, every

    def is_due(self, step: int) -> bool:
        """Whether to save after a step."""
        return bool(self._every) and step % self._every == 0

    def save(self, state: TrainingState) -> None:
        """Write the state, then the note that names it, then remove older states."""
        path = self._folder / f"{_HIDDEN}_{state.step:06d}.pt"
        with whole_file(path) as file:
            torch.save({name: getattr(state, name) for name in TrainingState.__slots__}, file)
        note = {"inputs": self._inputs, "state": path.name, "sha256": _file_sha256(path)}
        write_bytes(self._note, json.dumps(note).encode())
        for older in self._folder.glob(f"{_HIDDEN}_*.pt"):
            if older != path:
                older.unlink()

    def load(self) -> TrainingState | None:
        """The state that is there; None with a warning if it is damaged or of another training."""
        if not self._note.exists():
            return None
        try:
            note = json.loads(self._note.read_bytes())
            if note["inputs"] == self._inputs:
                return self._read(self._folder / note["state"], note["sha256"])
            _log.warning("%s is of a training on other inputs; training begins anew", self._note)
        except _DAMAGED as error:
            _log.warning("%s or what it names is damaged (%r); training begins anew", self._note, error)
        return None

    def remove(self) -> None:
        """Remove the state, for the training has ended."""
        self._note.unlink(missing_ok=True)
        for pattern in (f"{_HIDDEN}_*.pt", f".{_HIDDEN}*.tmp"):
            for path in self._folder.glob(pattern):
                path.unlink()

    @property
    def _note(self) -> Path:
        return self._folder / f"{_HIDDEN}.json"

    def _read(self, path: Path, sha256: str) -> TrainingState:
        found = _file_sha256(path)
        if found != sha256:
            raise ModelError(f"{path} has sha256 {found[:12]}..., expected {sha256[:12]}...")
        state = TrainingState(**torch.load(path, map_location="cpu", weights_only=True))
        for step in state.kept:
            load_checkpoint(checkpoint_path(self._folder, step))
        return state


def _content_sha256(path: Path) -> str:
    try:
        return _file_sha256(path)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; expected a NIfTI file there") from error


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
