"""What a filter sees, what it answers, and how that becomes a verdict on every mask."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from cohort.errors import SelectionError
from cohort.filtering.strata import Sizes, by_size
from cohort.records import EMPTY_MASK, UNTRAINED, QualityScore
from cohort.seeds import generator

Weights = NDArray[np.float64]
Needs = Literal["nothing", "raw", "predicted_dsc", "lower"]
"""The number of a quality score that a filter reads."""

MISSING: Mapping[str, str] = {
    "raw": "no score",
    "predicted_dsc": "no predicted DSC",
    "lower": "no lower bound of the DSC",
}
"""Why a mask without that number cannot be kept."""

ABSENT = "kept as absent"
"""The reason of an empty mask that is kept."""


class Filter(Protocol):
    """Gives every mask a weight. 0 is not kept, 1 is trusted like a human's."""

    @property
    def needs(self) -> Needs:
        """The number of a quality score that it reads; masks without it are not shown to it."""

    @property
    def rule(self) -> str:
        """What it keeps, in a few words for tables."""

    def weights(self, scores: Sequence[QualityScore], rng: np.random.Generator) -> Weights:
        """One weight in [0, 1] a mask, in their order; the same masks and draws give the same.

        Args:
            scores: of masks that have voxels and the number that the filter needs, each case and structure
                once.
            rng: of the filter's draws.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a filter decided about the mask of one structure of one case.

    Args:
        case_id: of the case.
        structure: name.
        weight: in the loss, in (0, 1]; 0 for a mask that is not kept.
        score: the number that the filter read; NaN where it read none.
        reason: why it is kept, or why not.
    """

    case_id: str
    structure: str
    weight: float
    score: float
    reason: str

    @property
    def kept(self) -> bool:
        """Whether the mask becomes a pseudo-label."""
        return self.weight > 0.0


def score_value(score: QualityScore, needs: Needs) -> float:
    """The number of a score that a filter reads; NaN for a filter that reads none."""
    return math.nan if needs == "nothing" else float(getattr(score, needs))


def filter_masks(
    rule: Filter,
    scores: Sequence[QualityScore],
    *,
    round: int,
    seed: int,
    keep_absent: bool = False,
    strata: int = 1,
    sizes: Sizes | None = None,
) -> tuple[Verdict, ...]:
    """Decide about every mask; the order of the scores does not matter.

    An empty mask says that a structure is not there, and nothing that an estimator sees tells whether it was
    missed. So it is kept only when asked for, and never counts among the masks that a fraction is taken of.

    Args:
        rule: gives the weights.
        scores: one per case and structure.
        round: or generation, from 0; together with `seed` it fixes every draw.
        seed: of the campaign.
        keep_absent: whether an empty mask is kept as "looked for and not there".
        strata: the rule decides about the masks of each of so many groups of alike size on its own.
        sizes: of the masks, where there is more than one group.

    Returns:
        One verdict per score, by case and structure.

    Raises:
        SelectionError: if a mask comes twice, its size is needed and not known, or a weight is not in [0, 1].
    """
    ordered = sorted(scores, key=lambda score: (score.case_id, score.structure))
    _check_once(ordered)
    judged = [score for score in ordered if _why_not(score, rule.needs) == ""]
    rng = generator(seed, "filter", round)
    by_mask: dict[tuple[str, str], float] = {}
    for group in by_size(judged, sizes or {}, strata) if strata > 1 else (judged,):
        weights = rule.weights(group, rng)
        _check_weights(weights, group)
        by_mask |= zip(((s.case_id, s.structure) for s in group), weights.tolist(), strict=True)
    return tuple(_verdict(score, rule, by_mask, keep_absent) for score in ordered)


def _verdict(
    score: QualityScore, rule: Filter, weights: Mapping[tuple[str, str], float], keep_absent: bool
) -> Verdict:
    why_not = _why_not(score, rule.needs)
    if why_not:
        absent = keep_absent and why_not == EMPTY_MASK
        weight, reason = (1.0, ABSENT) if absent else (0.0, why_not)
    else:
        weight = weights[score.case_id, score.structure]
        reason = f"{'in' if weight > 0.0 else 'not in'} {rule.rule}"
    return Verdict(
        case_id=score.case_id,
        structure=score.structure,
        weight=weight,
        score=score_value(score, rule.needs),
        reason=reason,
    )


def _why_not(score: QualityScore, needs: Needs) -> str:
    """Why a mask cannot be shown to a filter; "" where it can."""
    if score.reason in (EMPTY_MASK, UNTRAINED):
        return score.reason
    if needs != "nothing" and math.isnan(score_value(score, needs)):
        return score.reason or MISSING[needs]
    return ""


def _check_once(scores: Sequence[QualityScore]) -> None:
    counts = Counter((score.case_id, score.structure) for score in scores)
    twice = [key for key, count in counts.items() if count > 1]
    if twice:
        case_id, structure = twice[0]
        raise SelectionError(
            f"The mask of {structure!r} of case {case_id} comes twice; a filter needs every mask once"
        )


def _check_weights(weights: Weights, judged: Sequence[QualityScore]) -> None:
    if weights.shape != (len(judged),):
        raise SelectionError(
            f"A filter gave weights of shape {weights.shape} for {len(judged)} masks; expected one each"
        )
    for score, weight in zip(judged, weights.tolist(), strict=True):
        if not 0.0 <= weight <= 1.0:
            raise SelectionError(
                f"A filter gave {score.structure!r} of case {score.case_id} the weight {weight}; expected 0 "
                "to 1: look at the scores of that case"
            )
