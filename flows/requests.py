"""What is asked of the annotators in a round: which structures of which cases, and what is still open."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from cohort.annotation import Annotation, Request
from cohort.slabs import Slab, bounds, from_bounds

Unit = Literal["case", "structure", "slices"]
"""What is selected: whole cases, single structures of them, or slabs of consecutive slices."""


def askable(
    pool: Sequence[str],
    structures: Sequence[str],
    annotations: Sequence[Annotation],
    unit: Unit,
    answered: Mapping[str, frozenset[str]] | None,
) -> dict[str, tuple[str, ...]]:
    """Which structures of which cases may be selected.

    Args:
        pool: case ids, in the order of the answer.
        structures: names, of the campaign.
        annotations: that are back.
        unit: with "case" a case that was annotated is done; with "structure" its other structures are left,
            with "slices" its other slices.
        answered: case id -> structures that the annotator can give; None: all. An oracle has no more than
            its references hold. It does not count for the unit "case", where everything is asked for.

    Returns:
        Case id -> names in the order of `structures`, at least one.
    """
    done: dict[str, set[str]] = {}
    for annotation in annotations:
        done.setdefault(annotation.case_id, set()).update(annotation.structures)
    if unit == "case":
        return {case_id: tuple(structures) for case_id in pool if case_id not in done}
    if unit == "slices":
        known = annotated_slabs(annotations)
        done = {case_id: set(structures) for case_id, slabs in known.items() if not slabs}
    found = {
        case_id: tuple(
            name
            for name in structures
            if name not in done.get(case_id, ()) and (answered is None or name in answered[case_id])
        )
        for case_id in pool
    }
    return {case_id: names for case_id, names in found.items() if names}


def annotated_slabs(annotations: Sequence[Annotation]) -> dict[str, tuple[Slab, ...]]:
    """Case id -> slabs of it that are annotated by now; none for a case that is annotated in whole.

    Args:
        annotations: in the order in which they were let in.
    """
    return {annotation.case_id: annotation.slabs for annotation in annotations}


def requested(selection: Mapping[str, Any], structures: Sequence[str]) -> tuple[Request, ...]:
    """The requests of a selection in the ledger; all structures where it was written without them."""
    listed = selection.get("requests") or [[case_id, structures] for case_id in selection["selected"]]
    return tuple(_request(*each) for each in listed)


def as_listed(requests: Sequence[Request]) -> list[list[Any]]:
    """Requests as the ledger has them: case, structures, and first and last slices where slabs are asked."""
    return [
        [request.case_id, list(request.structures), *([bounds(request.slabs)] if request.slabs else [])]
        for request in requests
    ]


def unanswered(
    requests: Sequence[Request], annotations: Sequence[Annotation], skipped: Collection[object], unit: Unit
) -> tuple[Request, ...]:
    """Requests that neither an annotation nor a skip answers yet.

    Args:
        requests: of a round.
        annotations: that are back.
        skipped: ids of the cases that people gave back in that round.
        unit: of selection.
    """
    found = still_open(requests, annotations, unit)
    return tuple(request for request in found if request.case_id not in skipped)


def still_open(
    requests: Sequence[Request], annotations: Sequence[Annotation], unit: Unit
) -> tuple[Request, ...]:
    """Requests that no annotation answers yet.

    With the unit "case" any annotation of a case answers for it: its annotator gave what there was to give.
    With "slices" so does one of the slices that were asked for.
    """
    done: dict[str, set[str]] = {}
    for annotation in annotations:
        done.setdefault(annotation.case_id, set()).update(annotation.structures)
    if unit == "case":
        return tuple(request for request in requests if request.case_id not in done)
    if unit == "slices":
        known = annotated_slabs(annotations)
        return tuple(r for r in requests if not _covers(known.get(r.case_id), r.slabs))
    return tuple(r for r in requests if not set(r.structures) <= done.get(r.case_id, set()))


def _request(case_id: str, structures: Sequence[str], slabs: Sequence[Sequence[int]] = ()) -> Request:
    return Request(case_id=case_id, structures=tuple(structures), slabs=from_bounds(slabs))


def _covers(known: Sequence[Slab] | None, asked: Sequence[Slab]) -> bool:
    """Whether annotated slabs (None: nothing, none: the whole case) hold all that are asked for."""
    return known is not None and (not known or (bool(asked) and set(asked) <= set(known)))


def only_requested(
    revealed: Mapping[tuple[str, str], float], requests: Sequence[Request]
) -> dict[tuple[str, str], float]:
    """DSC of the masks that were asked for: a segmenter has learned from those of earlier rounds."""
    wanted = {(request.case_id, name) for request in requests for name in request.structures}
    return {key: value for key, value in revealed.items() if key in wanted}
