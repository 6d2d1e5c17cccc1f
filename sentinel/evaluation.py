"""How well an estimator agrees with the true DSC: correlations, error, coverage, finding of bad masks.

Intervals resample patients, not masks: the masks of one patient resemble each other.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import roc_auc_score

from cohort.seeds import generator

ALL = "all"
BAD_BELOW = 0.7
RESAMPLES = 1000
INTERVAL = (0.025, 0.975)
_MIN_FOR_RANKS = 5

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredMask:
    """A mask with an estimator's answer and its true DSC.

    Args:
        case_id: of the case.
        patient_id: intervals resample patients.
        structure: name.
        source: what made the mask; the masks of one source and structure are those of one trained model.
        raw: the estimator's own value, higher is better; NaN for an empty mask.
        predicted_dsc: in [0, 1]; NaN where the estimator is not calibrated for the structure.
        lower: bound of the DSC, NaN where not calibrated.
        upper: bound of the DSC, NaN where not calibrated.
        dsc: measured, in [0, 1].
        slice_scores: of the slices that were scored, not clamped.
        slice_dsc: measured, of the same slices.
        group: name of where the masks come from, such as the architecture.
    """

    case_id: str
    patient_id: str
    structure: str
    source: str
    raw: float
    predicted_dsc: float
    lower: float
    upper: float
    dsc: float
    slice_scores: tuple[float, ...] = ()
    slice_dsc: tuple[float, ...] = ()
    group: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Agreement over some masks; NaN where it is not defined.

    Args:
        masks: with a value.
        patients: that they come from.
        without_value: masks that the estimator gave no value.
        pearson: of predicted with true DSC.
        pearson_low: of its 95 % interval.
        pearson_high: of its 95 % interval.
        spearman: over all these masks.
        spearman_within: mean over sources and structures of the correlation among the masks of one model,
            which is what a round of active learning ranks.
        mae: mean absolute error of the predicted DSC.
        mae_low: of its 95 % interval.
        mae_high: of its 95 % interval.
        bias: predicted minus true DSC, mean.
        coverage: share of masks whose true DSC lies within the bounds.
        coverage_low: of its 95 % interval.
        coverage_high: of its 95 % interval.
        width: mean width of the bounds.
        auc: area under the ROC curve of finding the masks below `bad_below`.
        bad: masks below it.
    """

    masks: int
    patients: int
    without_value: int
    pearson: float = math.nan
    pearson_low: float = math.nan
    pearson_high: float = math.nan
    spearman: float = math.nan
    spearman_within: float = math.nan
    mae: float = math.nan
    mae_low: float = math.nan
    mae_high: float = math.nan
    bias: float = math.nan
    coverage: float = math.nan
    coverage_low: float = math.nan
    coverage_high: float = math.nan
    width: float = math.nan
    auc: float = math.nan
    bad: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceFigures:
    """Agreement of the scores of single slices with their DSC; NaN where it is not defined.

    Args:
        slices: in number.
        pearson: correlation.
        spearman: correlation of ranks.
        mae: mean absolute error of the scores, clamped to [0, 1].
    """

    slices: int
    pearson: float = math.nan
    spearman: float = math.nan
    mae: float = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Figures over all masks, and for each structure.

    Args:
        per_mask: "all" and each structure -> figures.
        per_slice: "all" and each structure -> figures; empty for an estimator that knows no slices.
    """

    per_mask: Mapping[str, Figures]
    per_slice: Mapping[str, SliceFigures] = field(default_factory=dict)


def evaluate_scores(
    masks: Sequence[ScoredMask], *, bad_below: float = BAD_BELOW, seed: int = 0, resamples: int = RESAMPLES
) -> Evaluation:
    """Evaluate an estimator.

    Args:
        masks: with true DSC, of patients that taught the estimator nothing.
        bad_below: DSC below which a mask is bad.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Returns:
        Figures over the masks that have a predicted DSC; the others are counted.
    """
    names = sorted({mask.structure for mask in masks})
    parts = {ALL: list(masks)} | {name: [m for m in masks if m.structure == name] for name in names}
    per_slice = {name: _slice_figures(part) for name, part in parts.items()}
    return Evaluation(
        per_mask={
            name: _figures(part, bad_below, generator(seed, "evaluation", name), resamples)
            for name, part in parts.items()
        },
        per_slice={name: found for name, found in per_slice.items() if found.slices},
    )


def as_rows(evaluation: Evaluation) -> list[dict[str, object]]:
    """One row per structure, "all" first; figures of slices have "slice_" in front, NaN becomes None."""
    rows = []
    for name, found in evaluation.per_mask.items():
        row: dict[str, object] = {"structure": name, **asdict(found)}
        of_slices = evaluation.per_slice.get(name)
        if of_slices is not None:
            row |= {"slices": of_slices.slices}
            row |= {f"slice_{k}": v for k, v in asdict(of_slices).items() if k != "slices"}
        rows.append({key: _known(value) for key, value in row.items()})
    return rows


def flat_metrics(evaluation: Evaluation, prefix: str) -> dict[str, float]:
    """Every figure that is defined, by "prefix/structure/figure"."""
    return {
        f"{prefix}/{row['structure']}/{name}": float(value)
        for row in as_rows(evaluation)
        for name, value in row.items()
        if isinstance(value, int | float)
    }


def within_one_model(masks: Iterable[ScoredMask]) -> float:
    """Mean Spearman correlation among the masks of one source and structure, each weighing by its masks.

    Args:
        masks: of any number of sources and structures; groups of fewer than 5, or without spread in
            their DSC, are left out. A group in which all values are equal counts 0.
    """
    groups: dict[tuple[str, str], list[ScoredMask]] = {}
    for mask in masks:
        groups.setdefault((mask.source, mask.structure), []).append(mask)
    total, weight = 0.0, 0
    for group in groups.values():
        dsc = np.array([mask.dsc for mask in group])
        if len(group) < _MIN_FOR_RANKS or float(np.ptp(dsc)) == 0.0:
            continue
        value = _spearman(np.array([_value(mask) for mask in group]), dsc)
        total += len(group) * (0.0 if math.isnan(value) else value)
        weight += len(group)
    return total / weight if weight else math.nan


def _figures(
    masks: Sequence[ScoredMask], bad_below: float, rng: np.random.Generator, resamples: int
) -> Figures:
    known = [mask for mask in masks if not math.isnan(mask.predicted_dsc)]
    patients, patient = np.unique([mask.patient_id for mask in known], return_inverse=True)
    without = len(masks) - len(known)
    if not known:
        return Figures(masks=0, patients=0, without_value=without)
    predicted = np.array([mask.predicted_dsc for mask in known])
    dsc = np.array([mask.dsc for mask in known])
    lower, upper = np.array([m.lower for m in known]), np.array([m.upper for m in known])
    covered = np.where(np.isnan(lower), np.nan, (lower <= dsc) & (dsc <= upper))
    weights = _resampled(len(patients), resamples, rng)[:, patient]
    error = np.abs(predicted - dsc)
    bad = dsc < bad_below
    pearson_low, pearson_high = _interval(_weighted_pearson(predicted, dsc, weights))
    mae_low, mae_high = _interval(_weighted_mean(error, weights))
    coverage_low, coverage_high = _interval(_weighted_mean(covered, weights))
    return Figures(
        masks=len(known),
        patients=len(patients),
        without_value=without,
        pearson=float(_weighted_pearson(predicted, dsc, np.ones((1, len(known))))[0]),
        pearson_low=pearson_low,
        pearson_high=pearson_high,
        spearman=_spearman(predicted, dsc),
        spearman_within=within_one_model(known),
        mae=float(error.mean()),
        mae_low=mae_low,
        mae_high=mae_high,
        bias=float((predicted - dsc).mean()),
        coverage=float(_weighted_mean(covered, np.ones((1, len(known))))[0]),
        coverage_low=coverage_low,
        coverage_high=coverage_high,
        width=float(_weighted_mean(upper - lower, np.ones((1, len(known))))[0]),
        auc=float(roc_auc_score(bad, -predicted)) if 0 < bad.sum() < len(bad) else math.nan,
        bad=int(bad.sum()),
    )


def _slice_figures(masks: Sequence[ScoredMask]) -> SliceFigures:
    rows = [pair for mask in masks for pair in zip(mask.slice_scores, mask.slice_dsc, strict=True)]
    pairs = np.array([pair for pair in rows if not math.isnan(pair[1])]).reshape(-1, 2)
    if not len(pairs):
        return SliceFigures(slices=0)
    scores, dsc = pairs[:, 0], pairs[:, 1]
    return SliceFigures(
        slices=len(pairs),
        pearson=float(_weighted_pearson(scores, dsc, np.ones((1, len(pairs))))[0]),
        spearman=_spearman(scores, dsc),
        mae=float(np.abs(np.clip(scores, 0.0, 1.0) - dsc).mean()),
    )


def _value(mask: ScoredMask) -> float:
    """What ranks masks of one structure: the raw value, since calibration may clamp to ties."""
    return mask.predicted_dsc if math.isnan(mask.raw) else mask.raw


def _spearman(values: Values, dsc: Values) -> float:
    if len(values) < 3 or float(np.ptp(values)) == 0.0 or float(np.ptp(dsc)) == 0.0:
        return math.nan
    return float(stats.spearmanr(values, dsc).statistic)


def _resampled(patients: int, resamples: int, rng: np.random.Generator) -> Values:
    """(resamples, patients): how often each patient was drawn."""
    return rng.multinomial(patients, np.full(patients, 1.0 / patients), size=resamples).astype(float)


def _weighted_mean(values: Values, weights: Values) -> Values:
    """(R,) means of the values that are known, for (R, N) weights; NaN without any."""
    known = ~np.isnan(values)
    total = weights[:, known].sum(axis=1)
    summed = weights[:, known] @ values[known]
    return np.where(total > 0.0, summed / np.where(total > 0.0, total, 1.0), np.nan)


def _weighted_pearson(values: Values, dsc: Values, weights: Values) -> Values:
    """(R,) correlations for (R, N) weights; NaN without spread."""
    share = weights / weights.sum(axis=1, keepdims=True)
    centred = values - (share @ values)[:, None]
    true = dsc - (share @ dsc)[:, None]
    covariance = (share * centred * true).sum(axis=1)
    spread = np.sqrt((share * centred**2).sum(axis=1) * (share * true**2).sum(axis=1))
    return np.where(spread > 1e-12, covariance / np.where(spread > 1e-12, spread, 1.0), np.nan)


def _interval(values: Values) -> tuple[float, float]:
    known = values[~np.isnan(values)]
    if not len(known):
        return math.nan, math.nan
    low, high = np.quantile(known, INTERVAL)
    return float(low), float(high)


def _known(value: object) -> object:
    return None if isinstance(value, float) and math.isnan(value) else value
