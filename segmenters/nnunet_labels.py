"""Between the cohort's label maps and nnU-Net's: consecutive labels, and one for voxels to ignore."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cohort.case import Structure
from cohort.errors import ModelError
from cohort.records import TrainingCase
from cohort.volume import check_same_grid, read_grid
from segmenters.preprocessing import trained_structures

IGNORE = "ignore"
"""nnU-Net's name of the label that no loss counts; its label is the highest."""

_RESERVED = frozenset({"background", IGNORE})
_MOST = 254


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledCase:
    """A training case as nnU-Net's data set has it.

    Args:
        identifier: case id and a hash of all that the case teaches; it names the files, so that a changed
            case is another one.
        case: of the fit.
        complete: whether it annotates every structure that any case of the fit annotates. Only then does an
            unlabelled voxel mean background.
    """

    identifier: str
    case: TrainingCase
    complete: bool


def nnunet_labels(structures: Sequence[Structure], *, ignore: bool) -> dict[str, int]:
    """The labels of nnU-Net's dataset.json: background 0, the structures from 1, and what to ignore last.

    Raises:
        ModelError: for a name that nnU-Net means otherwise, or more structures than a label map can hold.
    """
    taken = sorted(_RESERVED & {structure.name for structure in structures})
    if taken:
        raise ModelError(
            f"The cohort has a structure named {taken[0]!r}, which means something else to nnU-Net; rename it"
        )
    if len(structures) > _MOST:
        raise ModelError(
            f"The cohort has {len(structures)} structures, but nnU-Net's label maps hold at most {_MOST}"
        )
    labels = {"background": 0} | {structure.name: n for n, structure in enumerate(structures, start=1)}
    return labels | ({IGNORE: len(structures) + 1} if ignore else {})


def labelled_cases(
    cases: Sequence[TrainingCase], structures: Sequence[Structure]
) -> tuple[LabelledCase, ...]:
    """The cases of a fit, each with the name of its files.

    Raises:
        ModelError: without cases or annotated structures.
        DataError: if a file is missing.
    """
    trained = {structure.name for structure in trained_structures(cases, structures)}
    return tuple(_labelled(case, trained <= case.annotated) for case in cases)


def _labelled(case: TrainingCase, complete: bool) -> LabelledCase:
    check_same_grid(read_grid(case.image), read_grid(case.label_map), case.image, case.label_map)
    seen = hashlib.sha256(repr((sorted(case.annotated), complete)).encode())
    for path in (case.image, case.label_map):
        with path.open("rb") as file:
            seen.update(hashlib.file_digest(file, "sha256").digest())
    return LabelledCase(identifier=f"{case.case_id}_{seen.hexdigest()[:12]}", case=case, complete=complete)


def to_nnunet(
    labels: NDArray[np.uint8], labelled: LabelledCase, structures: Sequence[Structure]
) -> NDArray[np.uint8]:
    """A label map as nnU-Net learns from it.

    Args:
        labels: (D, H, W) with the cohort's labels.
        labelled: says which structures the label map answers for.
        structures: of the cohort.

    Returns:
        (D, H, W): 1 for a voxel of the first structure and so on. Any voxel without an annotated structure is
        background (0) in a complete case; in another it may hold what was not annotated, and is ignored.
    """
    rest = 0 if labelled.complete else len(structures) + 1
    table = np.full(256, rest, dtype=np.uint8)
    for number, structure in enumerate(structures, start=1):
        if structure.name in labelled.case.annotated:
            table[structure.label] = number
    return table[labels]


def to_cohort(found: NDArray[np.uint8], labels: Sequence[int]) -> NDArray[np.uint8]:
    """A label map of nnU-Net's with the cohort's labels.

    Args:
        found: (D, H, W) with numbers of channels.
        labels: of the channels, background first.
    """
    return np.array(labels, dtype=np.uint8)[found]


def teaching(
    labelled: Sequence[LabelledCase], voxels: Mapping[str, NDArray[np.int64]]
) -> tuple[LabelledCase, ...]:
    """The cases that nnU-Net can learn from: those with a voxel that it does not have to ignore.

    Args:
        labelled: the cases of a fit.
        voxels: identifier -> number of voxels of every label of nnU-Net's.

    Raises:
        ModelError: if no case shows what background looks like, or none has a structure.
    """
    if not any(voxels[item.identifier][0] for item in labelled if item.complete):
        union = sorted(frozenset[str]().union(*(item.case.annotated for item in labelled)))
        raise ModelError(
            f"None of the {len(labelled)} training cases annotates all of {union}: in each of them a voxel "
            "without a structure may hold one that was not annotated, so that nnU-Net has to ignore all "
            "background. Annotate every structure in at least one case, or take the family 'torch', whose "
            "loss learns from such cases too"
        )
    found = [item for item in labelled if item.complete or _structure_voxels(voxels[item.identifier])]
    if not any(_structure_voxels(voxels[item.identifier]) for item in found):
        raise ModelError(
            f"None of the {len(labelled)} training cases has a voxel of a structure; nothing can be learned "
            "from them: label a case that has one"
        )
    return tuple(found)


def _structure_voxels(voxels: NDArray[np.int64]) -> int:
    return int(voxels[1:-1].sum())
