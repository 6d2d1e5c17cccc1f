"""Cases and the structures in them: ids, paths and numbers, never voxels."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from cohort.errors import DataError

Shape = tuple[int, int, int]
Spacing = tuple[float, float, float]

MIN_EVALUATED_FRACTION = 0.5
"""Metrics count a truncated structure only where at least this fraction of it is in the field of view."""

_CASE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_RESERVED = frozenset({"stage", "curves"})


def check_case_id(case_id: str) -> None:
    """Refuse an id that could not be a file name everywhere.

    Raises:
        DataError: for an empty id, path separators, spaces or a leading dot.

    >>> check_case_id("hippocampus_001")
    >>> check_case_id("../etc")
    Traceback (most recent call last):
    ...
    cohort.errors.DataError: Case id '../etc' cannot be used as a file name: ...
    """
    if not _CASE_ID.fullmatch(case_id):
        raise DataError(
            f"Case id {case_id!r} cannot be used as a file name: expected letters, digits, '.', '_', '+' and "
            "'-', starting with a letter or digit; rename the case"
        )
    if case_id in _RESERVED:
        raise DataError(f"Case id {case_id!r} is the name of a file that stages write; rename the case")


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """An anatomical structure and its integer in the label maps of the cohort (background is 0)."""

    name: str
    label: int

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise DataError(f"The structure with label {self.label} has no name; give it one in the data set")
        if not 1 <= self.label <= 255:
            raise DataError(
                f"Structure {self.name!r} has label {self.label}, expected a whole number from 1 to 255"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One scan of the cohort.

    Args:
        case_id: unique in the cohort, usable as a file name.
        patient_id: splits go by it; equal to `case_id` where patients are not known.
        image: path of the image (NIfTI).
        reference: path of the reference label map, None for a case without one.
        annotated: structure name -> fraction of the structure that lies in the field of view (1 is
            complete). A structure that is not named was not contoured: it may be anywhere in the image.
        shape: voxels in (D, H, W), as stored.
        spacing_mm: in (D, H, W), as stored.
    """

    case_id: str
    patient_id: str
    image: Path
    reference: Path | None = None
    annotated: Mapping[str, float] = field(default_factory=dict, hash=False)
    shape: Shape = (0, 0, 0)
    spacing_mm: Spacing = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        check_case_id(self.case_id)
        for name, fraction in self.annotated.items():
            if not 0.0 <= fraction <= 1.0:
                raise DataError(
                    f"Case {self.case_id}: structure {name!r} has fraction {fraction}, expected 0 to 1"
                )
        if self.annotated and self.reference is None:
            raise DataError(f"Case {self.case_id} names annotated structures but has no reference label map")

    @property
    def evaluated(self) -> frozenset[str]:
        """Names of the structures that metrics may count: at least half of each is in the field of view."""
        return frozenset(name for name, f in self.annotated.items() if f >= MIN_EVALUATED_FRACTION)

    def view(self) -> "CaseView":
        """What a segmenter, estimator or strategy may know of an unlabelled case."""
        return CaseView(
            case_id=self.case_id,
            patient_id=self.patient_id,
            image=self.image,
            shape=self.shape,
            spacing_mm=self.spacing_mm,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseView:
    """A case without its reference and without what was annotated in it, so that nothing can leak."""

    case_id: str
    patient_id: str
    image: Path
    shape: Shape = (0, 0, 0)
    spacing_mm: Spacing = (1.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A cohort as it lies on disk: its structures and its cases in a fixed order.

    Args:
        name: of the data set.
        structures: in ascending order of label.
        cases: in ascending order of case_id.
        held_out: ids that the data set itself holds out, in its order; may be empty.
        modality: "CT", "MR" or "" where the data set does not say.
        patients_known: whether patient ids were given (otherwise splits can only go by case).
    """

    name: str
    structures: tuple[Structure, ...]
    cases: tuple[Case, ...]
    held_out: tuple[str, ...] = ()
    modality: str = ""
    patients_known: bool = False

    def __post_init__(self) -> None:
        _refuse_duplicates("case id", [case.case_id for case in self.cases], self.name)
        _refuse_duplicates("structure name", [s.name for s in self.structures], self.name)
        _refuse_duplicates("structure label", [str(s.label) for s in self.structures], self.name)

    @property
    def by_id(self) -> Mapping[str, Case]:
        """Case id -> case."""
        return MappingProxyType({case.case_id: case for case in self.cases})


def _refuse_duplicates(what: str, values: list[str], where: str) -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise DataError(f"Data set {where!r} has {what} {value!r} twice; every {what} must be unique")
        seen.add(value)
