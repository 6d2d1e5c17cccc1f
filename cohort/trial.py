"""The estimator on trial: what it said of a mask, beside the DSC that the annotation revealed."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from cohort.agreement import agreement
from cohort.errors import ConfigError
from cohort.records import QualityScore
from cohort.seeds import generator

Values = NDArray[np.float64]

MIN_CASES = 3
"""A round with fewer annotated cases than this says nothing of a rank."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RevealedMask:
    """A mask that was scored before its case was annotated.

    Args:
        case_id: of the case.
        patient_id: of its patient.
        structure: name.
        round: in which it was scored.
        raw: the estimator's value, higher is better; NaN where it gave none.
        predicted_dsc: in [0, 1], NaN where the estimator is not calibrated to DSC.
        lower: bound of the DSC, NaN where there is none.
        upper: bound of the DSC, NaN where there is none.
        dsc: of the mask against the annotation, in [0, 1].
    """

    case_id: str
    patient_id: str
    structure: str
    round: int
    raw: float
    predicted_dsc: float
    lower: float
    upper: float
    dsc: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RankEvidence:
    """Whether an estimator ranks masks as their true DSC does.

    Args:
        correlation: mean rank correlation within a round and structure; NaN where nothing can be said.
        p: of a correlation at least as high if scores had nothing to do with DSC.
        cases: annotated cases that the answer rests on.
        masks: likewise.
    """

    correlation: float
    p: float
    cases: int
    masks: int


def revealed_masks(
    scores: Sequence[QualityScore],
    revealed: Mapping[tuple[str, str], float],
    patients: Mapping[str, str],
    round: int,
) -> tuple[RevealedMask, ...]:
    """The scored masks whose DSC is known now, in the order of the scores.

    Args:
        scores: of a round's pool.
        revealed: (case id, structure) -> DSC.
        patients: case id -> patient id.
        round: of the scores.
    """
    return tuple(
        RevealedMask(
            case_id=score.case_id,
            patient_id=patients[score.case_id],
            structure=score.structure,
            round=round,
            raw=score.raw,
            predicted_dsc=score.predicted_dsc,
            lower=score.lower,
            upper=score.upper,
            dsc=revealed[score.case_id, score.structure],
        )
        for score in scores
        if (score.case_id, score.structure) in revealed
    )


def verdict(masks: Sequence[RevealedMask]) -> dict[str, float | int | None]:
    """How well an estimator's values agreed with the DSC that annotation revealed.

    Returns:
        "pearson" and "spearman" of the value that ranked, "mae" and "bias" where the estimator predicts a
        DSC, "coverage" of its bounds, "n" the number of masks and "missing" the number without a score; None
        where not defined. The annotated masks are those that the strategy chose, not a sample of the pool.
    """
    scored = [mask for mask in masks if not math.isnan(mask.raw)]
    bounded = [mask for mask in scored if not math.isnan(mask.lower)]
    found = agreement(
        np.array([mask.raw for mask in scored]),
        np.array([mask.predicted_dsc for mask in scored]),
        np.array([mask.dsc for mask in scored]),
    )
    inside = [mask.lower <= mask.dsc <= mask.upper for mask in bounded]
    return {
        **found,
        "coverage": float(np.mean(inside)) if inside else None,
        "n": len(scored),
        "missing": len(masks) - len(scored),
    }


def rank_evidence(masks: Sequence[RevealedMask], *, seed: int, permutations: int = 2000) -> RankEvidence:
    """Test whether an estimator's order of the annotated cases has to do with their DSC.

    Scores are compared within a round and structure, since they come from one segmenter and one estimator
    there; the correlations are averaged with a group's degrees of freedom as weights. The test permutes the
    cases of a round, all structures of a case together, so masks of one case do not count as independent; a
    structure that some cases lack is permuted among those that have it.

    Args:
        masks: of any rounds; those without a score are left out.
        seed: of the permutations.
        permutations: drawn for the p-value.

    Returns:
        NaN and p = 1 where no round and structure has three scored masks.

    Raises:
        ConfigError: for fewer than 100 permutations.

    Source: Phipson and Smyth, "Permutation p-values should never be zero", 2010.
    """
    if permutations < 100:
        raise ConfigError(f"permutations is {permutations}, expected 100 or more")
    ordered = sorted(masks, key=lambda mask: (mask.round, mask.case_id, mask.structure))
    by_round: dict[int, list[RevealedMask]] = defaultdict(list)
    for mask in ordered:
        if not math.isnan(mask.raw):
            by_round[mask.round].append(mask)
    tables = [table for found in by_round.values() if (table := _Table.of(found)) is not None]
    if not tables:
        return RankEvidence(correlation=math.nan, p=1.0, cases=0, masks=0)
    rng = generator(seed, "rank evidence")
    weight = sum(table.weight for table in tables)
    observed = sum(table.total() for table in tables) / weight
    drawn = [sum(table.total(rng) for table in tables) / weight for _ in range(permutations)]
    at_least = sum(value >= observed - 1e-12 for value in drawn)
    return RankEvidence(
        correlation=float(observed),
        p=(at_least + 1) / (permutations + 1),
        cases=sum(len(table.raw) for table in tables),
        masks=sum(int(table.known.sum()) for table in tables),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Table:
    """A round's scores and DSC, cases by structures; NaN where one is not known."""

    raw: Values
    dsc: Values
    known: NDArray[np.bool_]

    @classmethod
    def of(cls, masks: Sequence[RevealedMask]) -> "_Table | None":
        cases = sorted({mask.case_id for mask in masks})
        structures = sorted({mask.structure for mask in masks})
        raw = np.full((len(cases), len(structures)), np.nan)
        dsc = raw.copy()
        for mask in masks:
            place = cases.index(mask.case_id), structures.index(mask.structure)
            raw[place], dsc[place] = mask.raw, mask.dsc
        counted = (~np.isnan(raw)).sum(axis=0) >= MIN_CASES
        if not counted.any():
            return None
        raw, dsc = raw[:, counted], dsc[:, counted]
        return cls(raw=raw, dsc=dsc, known=~np.isnan(raw))

    @property
    def weight(self) -> float:
        """Degrees of freedom of all groups."""
        return float((self.known.sum(axis=0) - 1).sum())

    def total(self, rng: np.random.Generator | None = None) -> float:
        """Sum over structures of rank correlation times degrees of freedom, with the cases permuted."""
        place = np.arange(len(self.raw)) if rng is None else rng.permutation(len(self.raw))
        found = 0.0
        for column in range(self.raw.shape[1]):
            rows = np.flatnonzero(self.known[:, column])
            dsc = self.dsc[rows[np.argsort(place[rows])], column]  # as many pairs, however permuted
            found += (len(rows) - 1) * _spearman(self.raw[rows, column], dsc)
        return found


def _spearman(first: Values, second: Values) -> float:
    """Rank correlation; 0 where one of them has no spread."""
    ranks = [stats.rankdata(values) for values in (first, second)]
    centred = [values - values.mean() for values in ranks]
    scale = math.sqrt(float(centred[0] @ centred[0]) * float(centred[1] @ centred[1]))
    return float(centred[0] @ centred[1]) / scale if scale > 0.0 else 0.0
