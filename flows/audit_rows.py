"""Scores of the masks of some cases, from files to rows; what cannot be scored is a row with a reason."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cohort.errors import SentinelLoopError
from cohort.layouts.masks import MaskCase, MaskFile
from cohort.read_ahead import read_ahead
from cohort.volume import Volume, check_same_grid, read_image, read_label_map
from segmenters.base import Report
from sentinel.planning import CaseMasks, check_image
from sentinel.scoring import MaskScore, Sentinel
from sentinel.slices import Mask

FILES_AHEAD = 4
READERS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """One row of an audit.

    Args:
        case_id: of the case.
        structure: as the data set spells it.
        predicted_dsc: calibrated where the sentinel is, else its raw score; NaN where there is no score.
        lower: bound of the DSC, NaN where not calibrated.
        upper: bound of the DSC, NaN where not calibrated.
        n_slices: that were scored.
        reason: why something is missing, else "".
        raw: the sentinel's own value, not clamped.
        worst_slice: index of the slice with the lowest score in the sentinel's orientation, -1 for none.
    """

    case_id: str
    structure: str
    predicted_dsc: float = math.nan
    lower: float = math.nan
    upper: float = math.nan
    n_slices: int = 0
    reason: str = ""
    raw: float = math.nan
    worst_slice: int = -1


def score_cases(cases: Sequence[MaskCase], sentinel: Sentinel, report: Report | None = None) -> list[Audited]:
    """Score every mask of some cases; what cannot be scored is a row with a reason.

    Files are read ahead of the network by threads, a few at a time, so memory does not grow with the
    number of cases or masks.

    Args:
        cases: of a data set.
        sentinel: to score with.
        report: told of the masks done.

    Returns:
        One row per mask, in the order of cases and their masks.
    """
    rows: list[Audited] = []
    asked: list[int] = []

    def scenes() -> Iterator[CaseMasks]:
        for item in _scenes(cases, sentinel):
            if isinstance(item, Audited):
                rows.append(item)
                continue
            case_id, structure, volume, mask = item
            rows.append(Audited(case_id=case_id, structure=structure))
            asked.append(len(rows) - 1)
            yield volume, {structure: mask}

    total = sum(len(case.masks) for case in cases)
    for done, scores in enumerate(sentinel.score_stream(scenes())):
        place = asked[done]
        rows[place] = _scored(rows[place].case_id, scores[0])
        if report is not None:
            report(place + 1, total, {})
    if report is not None:
        report(total, total, {})
    return rows


def voxels_of(labels: Volume, mask: MaskFile) -> Mask:
    """The voxels of one mask in the file that holds it.

    Args:
        labels: what the file holds.
        mask: which labels of it, or any above 0.
    """
    voxels: Mask = np.isin(labels.array, mask.labels) if mask.labels else labels.array > 0
    return voxels


Scene = tuple[str, str, Volume, Mask]
Found = Volume | SentinelLoopError


def _scenes(cases: Sequence[MaskCase], sentinel: Sentinel) -> Iterator[Scene | Audited]:
    """Masks that can be scored, and rows for those that cannot, in order."""
    files = [(case, path) for case in cases for path in _files(case)]
    volume: Found | None = None
    for (case, path), found in read_ahead(files, _read, workers=READERS, depth=FILES_AHEAD):
        if path is None:
            volume = _checked_image(found, sentinel)
            if isinstance(volume, SentinelLoopError):
                for mask in case.masks:
                    yield Audited(case_id=case.case_id, structure=mask.structure, reason=str(volume))
            continue
        if isinstance(volume, Volume):
            for mask in case.masks:
                if mask.path == path:
                    yield _scene(case, mask, volume, found, sentinel)


def _files(case: MaskCase) -> list[Path | None]:
    """None for the image, then each file of masks once."""
    return [None, *dict.fromkeys(mask.path for mask in case.masks)]


def _read(job: tuple[MaskCase, Path | None]) -> Found:
    case, path = job
    try:
        return read_image(case.image) if path is None else read_label_map(path)
    except SentinelLoopError as error:
        return error


def _checked_image(found: Found, sentinel: Sentinel) -> Found:
    if isinstance(found, Volume):
        try:
            check_image(found, sentinel.config.intensity)
        except SentinelLoopError as error:
            return error
    return found


def _scene(
    case: MaskCase,
    mask: MaskFile,
    volume: Volume,
    found: Found,
    sentinel: Sentinel,
) -> Scene | Audited:
    try:
        if isinstance(found, SentinelLoopError):
            raise found
        check_same_grid(volume, found, case.image, mask.path)
        sentinel.check_knows([mask.structure])
    except SentinelLoopError as error:
        return Audited(case_id=case.case_id, structure=mask.structure, reason=str(error))
    return case.case_id, mask.structure, volume, voxels_of(found, mask)


def _scored(case_id: str, score: MaskScore) -> Audited:
    worst = -1
    if score.slice_scores:
        worst = score.slice_indices[int(np.argmin(score.slice_scores))]
    return Audited(
        case_id=case_id,
        structure=score.structure,
        predicted_dsc=score.predicted_dsc,
        lower=score.lower,
        upper=score.upper,
        n_slices=len(score.slice_indices),
        reason=score.reason,
        raw=score.raw,
        worst_slice=worst,
    )
