"""What an estimator says of a mask in some slabs of its case."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from cohort.records import QualityScore
from cohort.slabs import Slab


def score_within(score: QualityScore, slabs: Sequence[Slab]) -> QualityScore:
    """A score of a mask as one of its part in some slabs.

    Args:
        score: of the whole mask.
        slabs: that count, at least one.

    Returns:
        With the mean over the slices that were judged in the slabs; where none was, with the value of the
        judged slice that is nearest to them. Bounds are those of whole masks, so there are none. The score as
        it is where the mask is empty or the estimator does not judge slices.
    """
    if not score.slice_scores or score.missing:
        return score
    judged = list(zip(score.slice_indices, score.slice_scores, strict=True))
    distances = [min(_distance(index, slab) for slab in slabs) for index, _ in judged]
    nearest = min(distances)
    near = [value for (_, value), distance in zip(judged, distances, strict=True) if distance == nearest]
    own = near if nearest == 0 else near[:1]
    raw = math.fsum(own) / len(own)
    calibrated = not math.isnan(score.predicted_dsc)
    return replace(
        score,
        raw=raw,
        predicted_dsc=min(1.0, max(0.0, raw)) if calibrated else math.nan,
        lower=math.nan,
        upper=math.nan,
    )


def scores_within(
    scores: Sequence[QualityScore], slabs: Mapping[str, Sequence[Slab]]
) -> tuple[QualityScore, ...]:
    """Scores of masks, for the cases of which slabs are asked as those of the slabs.

    Args:
        scores: of whole masks.
        slabs: case id -> slabs that count; a case that is not named, or has none, counts in whole.
    """
    return tuple(
        score_within(score, slabs[score.case_id]) if slabs.get(score.case_id) else score for score in scores
    )


def _distance(index: int, slab: Slab) -> int:
    return max(slab.first - index, index - slab.last, 0)
