"""The DSC of a mask from everything that is known about it: sentinel, uncertainty, committee and shape.

A handful of features, a linear model whose weights may only point in the direction that each feature is sure
to have, learned from cross-fitted masks of the labelled cases.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from cohort.errors import ModelError

Values = NDArray[np.float64]

SIGNS: Mapping[str, float] = MappingProxyType(
    {
        "sentinel": 1.0,
        "sentinel_worst": 1.0,
        "entropy": -1.0,
        "inconsistency": -1.0,
        "mc_dropout": -1.0,
        "committee": -1.0,
        "volume_deviation": -1.0,
        "stray_share": -1.0,
    }
)
"""Feature -> whether a higher value means a better mask (1) or a worse one (-1)."""

ALPHAS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
_COMMON = 1.0
_FOLDS = 5
_MIN_ROWS, _MIN_PATIENTS = 6, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class FusionRow:
    """A cross-fitted mask to learn from.

    Args:
        patient_id: whose; cross-validation keeps patients together.
        structure: name.
        source: the kind of model that made the mask; only differences between masks of one source teach.
        features: of `SIGNS`, by name; NaN, or not there, where unknown.
        dsc: measured, in [0, 1].
    """

    patient_id: str
    structure: str
    source: str
    features: Mapping[str, float]
    dsc: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fusion:
    """A fitted model.

    Args:
        names: of the features that it uses.
        means: structure -> mean of each feature.
        scales: standard deviation of each feature within sources and structures.
        weights: of each feature in its scale; the sign is that of `SIGNS`, or 0.
        intercepts: structure -> DSC at the means.
        alpha: of the penalty on unequal weights that cross-validation chose.
    """

    names: tuple[str, ...]
    means: Mapping[str, tuple[float, ...]]
    scales: tuple[float, ...]
    weights: tuple[float, ...]
    intercepts: Mapping[str, float]
    alpha: float

    def as_dict(self) -> dict[str, object]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Fusion":
        """From what `as_dict` gave.

        Raises:
            ModelError: for anything else.
        """
        try:
            return cls(
                names=tuple(values["names"]),
                means={name: tuple(found) for name, found in values["means"].items()},
                scales=tuple(values["scales"]),
                weights=tuple(values["weights"]),
                intercepts=dict(values["intercepts"]),
                alpha=float(values["alpha"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"A fusion cannot be read ({error}); fit it again") from error

    def predict(self, structure: str, features: Mapping[str, float]) -> float:
        """DSC of a mask, not clamped.

        A feature that is missing counts as average. A structure that no row was of, since no cross-fitted
        segmenter found it, counts as an average structure.
        """
        value = self.intercepts.get(structure, math.fsum(self.intercepts.values()) / len(self.intercepts))
        means = self.means.get(structure) or tuple(np.mean(list(self.means.values()), axis=0).tolist())
        for name, mean, scale, weight in zip(self.names, means, self.scales, self.weights, strict=True):
            found = features.get(name, math.nan)
            if not math.isnan(found):
                value += weight * (found - mean) / scale
        return value


def fit_fusion(rows: Sequence[FusionRow]) -> Fusion:
    """Fit a fusion.

    Features and DSC are centred within each source and structure, so that the weights say what tells
    masks of one model apart, not what tells a trained model from an untrained one. Weights are drawn towards
    each other, not towards zero: with the masks of a dozen cases nobody can tell well which feature is best,
    and an even mixture of all is a good guess. How strongly is what has the smallest error on patients left
    out.

    Args:
        rows: in any order.

    Raises:
        ModelError: for fewer than 6 rows, or fewer than 3 patients.
    """
    ordered = sorted(rows, key=lambda row: (row.patient_id, row.structure, row.source))
    patients = sorted({row.patient_id for row in ordered})
    if len(ordered) < _MIN_ROWS or len(patients) < _MIN_PATIENTS:
        raise ModelError(
            f"The fused estimator learns from {len(ordered)} cross-fitted masks of {len(patients)} patients; "
            f"expected at least {_MIN_ROWS} masks of {_MIN_PATIENTS} patients: label more cases, or rank by "
            "the sentinel"
        )
    table = np.array([[row.features.get(name, math.nan) for name in SIGNS] for row in ordered], dtype=float)
    dsc = np.array([row.dsc for row in ordered])
    group = _codes([f"{row.source}\n{row.structure}" for row in ordered])
    centred = _centred(table, group)
    scales = np.sqrt(_nanmean(centred**2))
    used = [i for i in range(len(SIGNS)) if scales[i] > 1e-9]  # NaN, for a feature that no row has, is not
    names = tuple(np.array(list(SIGNS))[used].tolist())
    signs = np.array([SIGNS[name] for name in names])
    ready = np.nan_to_num(centred[:, used] / scales[used]) * signs
    target = _centred(dsc[:, None], group)[:, 0]
    fold = _codes([row.patient_id for row in ordered]) % min(_FOLDS, len(patients))
    alpha = _best_alpha(ready, target, fold)
    weights = _ridge(ready, target, alpha) * signs
    structure = np.array([row.structure for row in ordered])
    found = sorted(set(structure.tolist()))
    means = {name: np.nan_to_num(_nanmean(table[structure == name][:, used])) for name in found}
    return Fusion(
        names=names,
        means={name: tuple(values.tolist()) for name, values in means.items()},
        scales=tuple(scales[used].tolist()),
        weights=tuple(weights.tolist()),
        intercepts={name: float(dsc[structure == name].mean()) for name in found},
        alpha=alpha,
    )


def cross_validated(rows: Sequence[FusionRow]) -> list[float]:
    """What a fusion that did not learn from a row's patient says of the row: what calibration may learn from.

    Args:
        rows: in any order.

    Returns:
        One value per row, in order; NaN where too little is left to fit one, or the rest has no mask of the
        structure.
    """
    patients = sorted({row.patient_id for row in rows})
    fold = {patient: number % min(_FOLDS, len(patients)) for number, patient in enumerate(patients)}
    fits = {k: _fit_without(rows, fold, k) for k in sorted(set(fold.values()))}
    values = []
    for row in rows:
        fit = fits[fold[row.patient_id]]
        known = fit is not None and row.structure in fit.intercepts
        values.append(fit.predict(row.structure, row.features) if fit is not None and known else math.nan)
    return values


def _fit_without(rows: Sequence[FusionRow], fold: Mapping[str, int], left_out: int) -> Fusion | None:
    """A fusion without a fold, None where too little is left."""
    kept = [row for row in rows if fold[row.patient_id] != left_out]
    if len(kept) < _MIN_ROWS or len({row.patient_id for row in kept}) < _MIN_PATIENTS:
        return None
    return fit_fusion(kept)


def _ridge(features: Values, target: Values, alpha: float) -> Values:
    """Weights, none negative, with penalties on their size and, times alpha, on how much they differ."""
    if features.shape[1] == 0:
        return np.zeros(0)
    count = features.shape[1]
    unequal = math.sqrt(alpha) * (np.eye(count) - 1.0 / count)
    model = Ridge(alpha=_COMMON, fit_intercept=False, positive=True, tol=1e-8)
    model.fit(np.vstack([features, unequal]), np.concatenate([target, np.zeros(count)]))
    return np.asarray(model.coef_, dtype=float)


def _best_alpha(features: Values, target: Values, fold: NDArray[np.intp]) -> float:
    errors = []
    for alpha in ALPHAS:
        squares = [
            (
                (features[fold == k] @ _ridge(features[fold != k], target[fold != k], alpha))
                - target[fold == k]
            )
            ** 2
            for k in np.unique(fold)
        ]
        errors.append(float(np.concatenate(squares).mean()))
    return ALPHAS[int(np.argmin(errors))]


def _centred(values: Values, group: NDArray[np.intp]) -> Values:
    out = values.copy()
    for number in np.unique(group):
        out[group == number] -= _nanmean(values[group == number])
    return out


def _nanmean(values: Values) -> Values:
    known = ~np.isnan(values)
    count = known.sum(axis=0)
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _codes(values: Sequence[str]) -> NDArray[np.intp]:
    return np.unique(values, return_inverse=True)[1]
