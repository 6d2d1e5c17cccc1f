"""How good a filter was, where the true DSC of the masks is known."""

import math
from collections.abc import Mapping, Sequence

from cohort.filtering.base import ABSENT, Verdict
from cohort.records import EMPTY_MASK, UNTRAINED

EMPTY_REASONS = (EMPTY_MASK, UNTRAINED, ABSENT)
"""Reasons of verdicts on masks without voxels."""

Dscs = Mapping[tuple[str, str], float]
"""(case id, structure) -> measured DSC."""


def outcome(verdicts: Sequence[Verdict], dscs: Dscs, *, good_dsc: float) -> dict[str, float | None]:
    """What a filter kept, and how good that is.

    Args:
        verdicts: on all masks.
        dscs: of those that have a reference, in [0, 1]; may be empty.
        good_dsc: DSC above which a mask counts as good.

    Returns:
        "masks" that have voxels, "kept" of them and "kept_fraction"; "kept_empty"; "weight", the sum of the
        weights of all that is kept. Of masks with voxels and a known DSC: "measured" and "measured_kept";
        "dsc" and "dsc_kept", their means; "good" and "precision", the share above `good_dsc` of all and of
        the kept ones; "recall", the share of the good ones that is kept. None where there is nothing to
        take a mean of.

    >>> liver = Verdict(case_id="a", structure="liver", weight=1.0, score=0.9, reason="")
    >>> outcome([liver], {("a", "liver"): 0.85}, good_dsc=0.8)["precision"]
    1.0
    """
    filled = [v for v in verdicts if not is_empty(v)]
    kept = [v for v in filled if v.kept]
    known = [(dscs[_key(v)], v.kept) for v in filled if not math.isnan(dscs.get(_key(v), math.nan))]
    of_kept = [dsc for dsc, is_kept in known if is_kept]
    good = [is_kept for dsc, is_kept in known if dsc > good_dsc]
    return {
        "masks": float(len(filled)),
        "kept": float(len(kept)),
        "kept_fraction": _mean([float(v.kept) for v in filled]),
        "kept_empty": float(sum(v.kept for v in verdicts if is_empty(v))),
        "weight": math.fsum(v.weight for v in verdicts),
        "measured": float(len(known)),
        "measured_kept": float(len(of_kept)),
        "dsc": _mean([dsc for dsc, _ in known]),
        "dsc_kept": _mean(of_kept),
        "good": _mean([float(dsc > good_dsc) for dsc, _ in known]),
        "precision": _mean([float(dsc > good_dsc) for dsc in of_kept]),
        "recall": _mean([float(is_kept) for is_kept in good]),
    }


def outcomes(
    verdicts: Sequence[Verdict], dscs: Dscs, structures: Sequence[str], *, good_dsc: float
) -> dict[str, dict[str, float | None]]:
    """`outcome` of each structure, by name."""
    return {
        name: outcome([v for v in verdicts if v.structure == name], dscs, good_dsc=good_dsc)
        for name in structures
    }


def is_empty(verdict: Verdict) -> bool:
    """Whether a verdict is on a mask without voxels: nobody can look at it."""
    return verdict.reason in EMPTY_REASONS


def _key(verdict: Verdict) -> tuple[str, str]:
    return verdict.case_id, verdict.structure


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
