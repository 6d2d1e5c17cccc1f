"""The JSON file beside every checkpoint, whatever family it is of: says what the weights are."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cohort.errors import ModelError
from cohort.records import Checkpoint
from cohort.volume import write_bytes

FORMAT = 1


def describe(
    path: Path, *, family: str, step: int, structures: Sequence[str], details: Mapping[str, Any]
) -> Checkpoint:
    """Write the description of weights that are there; it comes last and says that both are whole.

    Args:
        path: of the weights, a file named after its step such as "step_0020.safetensors".
        family: of the segmenter that can use them.
        step: optimiser steps taken.
        structures: trained structures, in the order of the channels where there are channels.
        details: what else the family wants to know again, as JSON values.
    """
    sha256 = weights_sha256(path)
    description = {
        "format": FORMAT,
        "family": family,
        "weights": path.name,
        "sha256": sha256,
        "step": step,
        "structures": list(structures),
        **details,
    }
    write_bytes(path.with_suffix(".json"), json.dumps(description, indent=1).encode())
    return Checkpoint(path=path, sha256=sha256, step=step, structures=tuple(structures))


def read_description(path: Path, family: str | None = None) -> dict[str, Any]:
    """Read what lies beside weights.

    Args:
        path: of the weights.
        family: that they must be of, None for any.

    Raises:
        ModelError: if the description is missing, broken, or of another family.
    """
    beside = path.with_suffix(".json")
    try:
        values = json.loads(beside.read_bytes())
        if values["format"] != FORMAT:
            raise ModelError(f"{beside} has format {values['format']}, expected {FORMAT}; train again")
        found: dict[str, Any] = {
            **values,
            "family": str(values.get("family", "torch")),
            "sha256": str(values["sha256"]),
            "step": int(values["step"]),
            "structures": tuple(str(name) for name in values["structures"]),
        }
    except FileNotFoundError as error:
        raise ModelError(f"{beside} does not exist; expected it beside the weights {path.name}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise broken_description(path, error) from error
    if family is not None and found["family"] != family:
        raise ModelError(
            f"{path} is a checkpoint of the family {found['family']!r}, but this segmenter is of the family "
            f"{family!r}; predict with the segmenter that trained it"
        )
    return found


def broken_description(path: Path, error: Exception) -> ModelError:
    """What to tell about a description whose values do not fit."""
    return ModelError(
        f"{path.with_suffix('.json')} is no description of a checkpoint ({error!r}); copy or train it again"
    )


def load_checkpoint(path: Path) -> Checkpoint:
    """Read what a checkpoint is, and check that its weights are those that were written.

    Args:
        path: of the weights.

    Raises:
        ModelError: if weights or description are missing or broken, or do not belong together.
    """
    found = read_description(path)
    check_weights(path, found["sha256"])
    return Checkpoint(path=path, sha256=found["sha256"], step=found["step"], structures=found["structures"])


def find_checkpoints(folder: Path) -> tuple[Checkpoint, ...]:
    """Every checkpoint in a folder that a segmenter's `fit` wrote to, in the order of their steps.

    Raises:
        ModelError: as `load_checkpoint`.
    """
    found = []
    for beside in folder.glob("step_*.json"):
        name = read_description(beside).get("weights", beside.with_suffix(".safetensors").name)
        found.append(load_checkpoint(beside.with_name(str(name))))
    return tuple(sorted(found, key=lambda checkpoint: checkpoint.step))


def check_weights(path: Path, sha256: str) -> None:
    """Refuse weights that are not those of their description.

    Raises:
        ModelError: if the file is missing or has another hash.
    """
    found = weights_sha256(path)
    if found != sha256:
        raise ModelError(
            f"{path} has sha256 {found[:12]}..., expected {sha256[:12]}...: the weights were replaced or are "
            "truncated; copy or train them again"
        )


def weights_sha256(path: Path) -> str:
    """Hash of a file of weights.

    Raises:
        ModelError: if it is missing.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise ModelError(f"{path} does not exist; expected weights there: train again") from error
