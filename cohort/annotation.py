"""What goes out to an annotator, and what is let back in (the intake gate)."""

import hashlib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np

from cohort.budget import Cost
from cohort.case import CaseView, Structure, check_case_id
from cohort.errors import AnnotationError, DataError, GeometryError
from cohort.slabs import Slab, cropped, within
from cohort.volume import Array, Grid, Volume, check_same_grid, read_label_map, undeclared_labels

Reader = Callable[[Path], Volume]
"""Path -> label map; raises `DataError`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What an annotator is asked for.

    Args:
        case_id: of the case.
        structures: names of the structures to contour, at least one.
        slabs: slices to contour them in; none: in the whole case.
    """

    case_id: str
    structures: tuple[str, ...]
    slabs: tuple[Slab, ...] = ()

    def __post_init__(self) -> None:
        check_case_id(self.case_id)
        if not self.structures:
            raise AnnotationError(
                f"The request for case {self.case_id} names no structure; ask for at least one"
            )
        if len(set(self.structures)) != len(self.structures):
            raise AnnotationError(f"The request for case {self.case_id} names a structure twice")


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """An annotation that was let in.

    Args:
        case_id: of the case.
        structures: name -> fraction of the structure in the field of view, for those that were contoured
            (1 for one that was looked for and is not there).
        path: of the label map.
        sha256: of that file.
        annotator: who made it.
        minutes: what it took; NaN where nobody kept the time.
        cost: what it cost, in every currency.
        slabs: slices that the label map answers for; none: the whole case. What lies in other slices of the
            label map says nothing.
    """

    case_id: str
    structures: Mapping[str, float] = field(hash=False)
    path: Path
    sha256: str
    annotator: str
    minutes: float = math.nan
    cost: Cost
    slabs: tuple[Slab, ...] = ()

    def __post_init__(self) -> None:
        check_case_id(self.case_id)
        if self.minutes < 0.0:
            raise AnnotationError(f"The annotation of case {self.case_id} took {self.minutes} minutes?")
        for name, fraction in self.structures.items():
            if not 0.0 <= fraction <= 1.0:
                raise AnnotationError(
                    f"The annotation of case {self.case_id} has {fraction} of {name!r}; expected 0 to 1"
                )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CheckedAnnotation:
    """A label map that passed the gate.

    Args:
        label_map: its voxels, on the image's grid.
        sha256: of the file.
        voxels: requested structure -> number of voxels, in the slabs that were asked for.
        turned: whether the file had flipped or swapped axes, which were put right.
    """

    label_map: Volume
    sha256: str
    voxels: Mapping[str, int]
    turned: bool = False

    @property
    def absent(self) -> tuple[str, ...]:
        """Requested structures without a voxel: looked for and not there."""
        return tuple(name for name, count in self.voxels.items() if count == 0)


def check_annotation(
    path: Path,
    case: CaseView,
    grid: Grid,
    request: Request,
    structures: Sequence[Structure],
    *,
    absent: Collection[str] | None = None,
    proposal: Path | None = None,
    read: Reader = read_label_map,
) -> CheckedAnnotation:
    """Let a returned label map in, or say what its annotator should correct.

    Voxels of declared structures that were not requested are let through, since annotators start from a
    full proposal; the annotation answers for the requested structures only. A file whose axes are flipped or
    swapped, but which covers the image's grid, is turned back. Where slabs were asked for, only what lies in
    them is checked.

    Args:
        path: of the returned file.
        case: that was sent out.
        grid: of the case's image.
        request: what was asked for.
        structures: declared in the data set.
        absent: requested structures that the annotator declares not to be there; None takes every structure
            without a voxel as looked for and not there. In a slab a structure may end, so there nothing has
            to be declared.
        proposal: label map that was sent out; an annotation that equals it in the requested structures (and
            slabs) is refused, unless all of these are declared absent, which somebody did by hand. None where
            that was confirmed, or nothing was sent.
        read: reads the file, for formats that hold no label map as it is.

    Returns:
        The voxels, the hash of the file that they come from, and what was found.

    Raises:
        AnnotationError: with a sentence for the annotator, if the file is missing, broken or still being
            written, lies on another grid, holds labels that are not declared, lacks a requested structure
            that is not declared absent, or is the proposal as it was sent.
    """
    _check_request(case, request, structures)
    stored, sha256 = _read(path, case, structures, read)
    label_map, turned = _turned_to(grid, stored)
    try:
        check_same_grid(grid, label_map, case.image, path)
    except GeometryError as error:
        raise AnnotationError(
            f"The annotation of case {case.case_id} does not fit its scan. {error}. Most programs keep the "
            "grid if you open the scan first and the segmentation on top of it"
        ) from error
    asked = cropped(label_map.array, request.slabs)
    counts = np.bincount(asked.ravel(), minlength=256)
    labels = {s.name: s.label for s in structures}
    voxels = {name: int(counts[labels[name]]) for name in request.structures}
    problems, settled = [], set(absent or ())
    if absent is not None:
        expected = () if request.slabs else [n for n, count in voxels.items() if count == 0]
        problems += _not_there(voxels, expected, absent)
        settled |= set(expected)
    if proposal is not None and not settled.issuperset(request.structures):
        wanted = [labels[name] for name in request.structures]
        problems += _not_corrected(label_map, proposal, wanted, request.slabs)
    if problems:
        raise AnnotationError(f"The annotation of case {case.case_id} {'. It '.join(problems)}")
    return CheckedAnnotation(label_map=label_map, sha256=sha256, voxels=voxels, turned=turned)


def merged(earlier: Array, new: Array, labels: Collection[int], slabs: Collection[Slab] = ()) -> Array:
    """A label map in which some structures were annotated again, or for the first time.

    Args:
        earlier: (D, H, W) whole numbers, what was annotated before.
        new: (D, H, W), in which the structures of `labels` count.
        labels: of the structures that `new` answers for.
        slabs: that `new` answers for; none: the whole volume.

    Returns:
        The earlier label map with these structures from the new one; where both have a voxel, the new one
        has it. Outside of the slabs the earlier label map stays as it is.

    Raises:
        DataError: for a slab that reaches beyond the volume.

    >>> merged(np.array([1, 2, 2, 0]), np.array([0, 1, 2, 2]), [1]).tolist()
    [0, 1, 2, 0]
    """
    answered = list(labels)
    kept = np.where(np.isin(earlier, answered), 0, earlier)
    found: Array = np.where(np.isin(new, answered), new, kept).astype(earlier.dtype)
    return within(found, earlier, slabs)


def _turned_to(grid: Grid, label_map: Volume) -> tuple[Volume, bool]:
    """The label map with its axes in the grid's order and direction, and whether they had to be turned."""
    stored = nib.orientations.io_orientation(label_map.affine)
    wanted = nib.orientations.io_orientation(grid.affine)
    if np.array_equal(stored, wanted):
        return label_map, False
    turn = nib.orientations.ornt_transform(stored, wanted)
    xyz = label_map.array.T
    array = nib.orientations.apply_orientation(xyz, turn)
    affine = label_map.affine @ nib.orientations.inv_ornt_aff(turn, xyz.shape)
    return Volume(array=np.ascontiguousarray(array.T), affine=affine), True


def _not_there(voxels: Mapping[str, int], empty: Sequence[str], absent: Collection[str]) -> list[str]:
    """What is wrong with structures that were asked for and have no voxel, or are declared absent."""
    problems = []
    missing = [name for name in empty if name not in absent]
    if missing:
        problems.append(
            f"has no voxel of {', '.join(missing)}, which was asked for; annotate it, or declare it absent "
            "in returns.csv"
        )
    there = [name for name in absent if voxels.get(name, 0) > 0]
    if there:
        problems.append(f"declares {', '.join(there)} absent, but has voxels of it; remove one or the other")
    return problems


def _not_corrected(
    label_map: Volume, proposal: Path, labels: Sequence[int], slabs: Sequence[Slab]
) -> list[str]:
    """What is wrong with a label map that is the proposal as it was sent."""
    proposed = read_label_map(proposal).array
    if proposed.shape != label_map.array.shape:
        return []
    before, now = cropped(proposed, slabs), cropped(label_map.array, slabs)
    if not all(np.array_equal(before == label, now == label) for label in labels):
        return []
    where = f" in {', '.join(slab.name for slab in slabs)}" if slabs else ""
    return [
        f"is{where} the proposal as it was sent; correct it, or say in returns.csv that it was looked at and "
        "is right (confirmed: yes)"
    ]


def _check_request(case: CaseView, request: Request, structures: Sequence[Structure]) -> None:
    if request.case_id != case.case_id:
        raise AnnotationError(f"Case {case.case_id} came back for a request of case {request.case_id}")
    unknown = sorted(set(request.structures) - {s.name for s in structures})
    if unknown:
        raise AnnotationError(
            f"The request for case {case.case_id} names {unknown[0]!r}, which the data set does not declare"
        )


def _read(path: Path, case: CaseView, structures: Sequence[Structure], read: Reader) -> tuple[Volume, str]:
    """Voxels and hash of the file, of one and the same content."""
    try:
        before = _sha256(path)
        label_map = read(path)
        after = _sha256(path)
    except DataError as error:
        raise AnnotationError(f"The annotation of case {case.case_id} cannot be used: {error}") from error
    if before != after:
        raise AnnotationError(
            f"{path} changed while it was read; wait until it is saved and hand it in again"
        )
    _check_declared(label_map, path, case, structures)
    return label_map, after


def _check_declared(label_map: Volume, path: Path, case: CaseView, structures: Sequence[Structure]) -> None:
    """Refuse labels that stand for no structure, and say which do."""
    unknown = undeclared_labels(label_map.array, [structure.label for structure in structures])
    if unknown:
        raise AnnotationError(
            f"The annotation of case {case.case_id} cannot be used: {path} holds the labels "
            f"{', '.join(map(str, unknown))}, which stand for no structure; correct the label map. "
            f"The labels are: {', '.join(f'{s.label} {s.name}' for s in structures)}"
        )


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); save the label map there") from error
