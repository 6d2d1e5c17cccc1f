"""Masks of a model that later trainings take for annotations: which, since when, and how they change."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cohort.filtering.base import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class PseudoLabel:
    """The kept masks of one case.

    Args:
        case_id: of the case.
        path: of the predicted label map, which may hold structures that are not kept.
        sha256: of that file.
        structures: name -> weight in the loss, in (0, 1], of those that are kept; none for a case whose image
            alone is used.
    """

    case_id: str
    path: Path
    sha256: str
    structures: Mapping[str, float] = field(hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """A pseudo-label that is no longer trusted.

    Args:
        case_id: of the case, which is back in the pool of what may be annotated.
        structure: name.
        score: what the filter reads of it now; NaN where it was not asked.
        reason: why it is not kept any more.
    """

    case_id: str
    structure: str
    score: float
    reason: str


def kept_structures(verdicts: Iterable[Verdict]) -> dict[str, dict[str, float]]:
    """Case id -> structure -> weight of the masks that are kept; cases without any are left out."""
    found: dict[str, dict[str, float]] = {}
    for verdict in verdicts:
        if verdict.kept:
            found.setdefault(verdict.case_id, {})[verdict.structure] = verdict.weight
    return found


def revocations(
    before: Iterable[tuple[str, str]], verdicts: Sequence[Verdict], why_not_asked: Mapping[str, str]
) -> tuple[Revocation, ...]:
    """Masks that were pseudo-labels and are not any more.

    Args:
        before: (case id, structure) of the pseudo-labels until now.
        verdicts: of this round.
        why_not_asked: case id -> why its masks were not judged this time, such as "annotated by a human".

    Returns:
        By case and structure.
    """
    now = {(verdict.case_id, verdict.structure): verdict for verdict in verdicts}
    found = []
    for case_id, structure in sorted(set(before)):
        verdict = now.get((case_id, structure))
        if verdict is None:
            reason = why_not_asked.get(case_id, "no longer in the pool")
            found.append(Revocation(case_id=case_id, structure=structure, score=float("nan"), reason=reason))
        elif not verdict.kept:
            found.append(
                Revocation(case_id=case_id, structure=structure, score=verdict.score, reason=verdict.reason)
            )
    return tuple(found)
