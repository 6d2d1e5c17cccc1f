"""From raw scores to DSC with bounds: a monotone map per structure, and conformal quantiles of its errors."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cohort.errors import ConfigError, ModelError
from cohort.seeds import generator
from sentinel.monotone import Knots, Values, along, fit_curve, fit_line

NOT_CALIBRATED = "not calibrated for this structure"
BEYOND = "scored far beyond the masks that calibrated it: DSC and bounds are drawn on from there"
LEVEL = 0.9
FOLDS = 5
MIN_PATIENTS_FOR_LINE = 4
_REACH = 0.25
_SCALE_FLOOR = 0.05

Fit = Callable[[Values, Values, Values], Knots | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """A mask whose score and true DSC are both known.

    Args:
        patient_id: masks of one patient are not independent.
        structure: name.
        raw: the estimator's value.
        dsc: measured, in [0, 1].
    """

    patient_id: str
    structure: str
    raw: float
    dsc: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """A score turned into DSC.

    Args:
        predicted_dsc: in [0, 1]; NaN where the structure is not calibrated.
        lower: bound in [0, 1]; NaN where there are too few patients for bounds.
        upper: bound in [0, 1]; NaN likewise.
        reason: `NOT_CALIBRATED` where one is missing, `BEYOND` where the score is none like those that were
            learned from, else "".
    """

    predicted_dsc: float = math.nan
    lower: float = math.nan
    upper: float = math.nan
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StructureCalibration:
    """What calibration learned of one structure.

    Args:
        knots: of the monotone map from raw score to DSC, a line or a curve; see `sentinel.monotone`.
        quantile: of the errors of that map divided by `error_scale`, at the calibration's level; None where
            there were too few patients for it.
        patients: that it was learned from.
        masks: that it was learned from.
        span: lowest and highest raw score of these; None where that was not written down.
    """

    knots: Knots
    quantile: float | None
    patients: int
    masks: int
    span: tuple[float, float] | None = None

    def is_beyond(self, raw: float) -> bool:
        """Whether a score lies outside of the span by more than a quarter of it."""
        if self.span is None:
            return False
        low, high = self.span
        return not low - _REACH * (high - low) <= raw <= high + _REACH * (high - low)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Maps and quantiles by structure.

    Args:
        level: share of masks whose true DSC should lie within the bounds.
        structures: name -> what was learned.
    """

    level: float = LEVEL
    structures: Mapping[str, StructureCalibration] = field(default_factory=dict)

    def apply(self, structure: str, raw: float) -> Calibrated:
        """DSC and bounds of a raw score.

        Args:
            structure: name.
            raw: the estimator's value, NaN where there is none.

        >>> line = StructureCalibration(knots=((0.0, 0.0), (1.0, 1.0)), quantile=None, patients=5, masks=9)
        >>> Calibration(structures={"liver": line}).apply("liver", 1.2).predicted_dsc
        1.0
        """
        known = self.structures.get(structure)
        if known is None or math.isnan(raw):
            return Calibrated(reason=NOT_CALIBRATED if known is None else "")
        value = float(along(known.knots, np.array([raw]))[0])
        if known.quantile is None:
            return Calibrated(predicted_dsc=value, reason=NOT_CALIBRATED)
        reach = known.quantile * float(error_scale(np.array([value]))[0])
        return Calibrated(
            predicted_dsc=value,
            lower=max(0.0, value - reach),
            upper=min(1.0, value + reach),
            reason=BEYOND if known.is_beyond(raw) else "",
        )

    def as_dict(self) -> dict[str, object]:
        """As JSON values."""
        return {
            "level": self.level,
            "structures": {name: asdict(found) for name, found in self.structures.items()},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "Calibration":
        """From what `as_dict` gave.

        Raises:
            ModelError: for anything else.
        """
        try:
            structures = values["structures"]
            if not isinstance(structures, Mapping):
                raise TypeError("'structures' is no mapping")
            return cls(
                level=float(values["level"]),  # type: ignore[arg-type]
                structures={name: _structure(found) for name, found in structures.items()},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"A calibration cannot be read ({error}); expected what Calibration.as_dict wrote"
            ) from error


def _structure(values: Mapping[str, Any]) -> StructureCalibration:
    knots = tuple((float(raw), float(dsc)) for raw, dsc in values["knots"])
    span = values.get("span")  # came later than the rest
    return StructureCalibration(
        **{**values, "knots": knots, "span": None if span is None else (float(span[0]), float(span[1]))}
    )


def error_scale(predicted_dsc: Values) -> Values:
    """How large errors are expected to be, up to a factor: largest at 0.5, smallest at 0 and 1.

    Fixed beforehand, so that dividing errors by it costs the bounds none of their validity.

    Args:
        predicted_dsc: (N,) in [0, 1].

    >>> error_scale(np.array([0.0, 0.5])).round(2).tolist()
    [0.05, 0.55]
    """
    scale: Values = _SCALE_FLOOR + np.sqrt(np.clip(predicted_dsc * (1.0 - predicted_dsc), 0.0, None))
    return scale


def min_patients(level: float) -> int:
    """The fewest patients that allow bounds at a level.

    >>> min_patients(0.9)
    9
    """
    return math.ceil(round(level / (1.0 - level), 9))


def fit_calibration(
    observations: Sequence[Observation], *, level: float = LEVEL, seed: int = 0
) -> Calibration:
    """Learn lines and bounds from masks that neither the segmenter nor the estimator learned from.

    Per structure: a line by least squares, or the means of bins where these are closer to patients left out;
    every patient weighs the same. Errors for the bounds come from maps that were fitted without the patient
    concerned (5 folds of patients); their
    quantile, with every patient weighing the same, is taken at level (1 + 1 / n), where n is the number of
    masks that would tell as much if they were independent.

    Args:
        observations: in any order; those with a NaN are left out.
        level: share of masks that the bounds should hold, in (0, 1).
        seed: of the folds.

    Returns:
        Maps for structures with 4 patients or more, bounds for those with `min_patients(level)` or more.

    Raises:
        ConfigError: for a level outside (0, 1).

    Source: Vovk, "Cross-conformal predictors", 2015; weights over patients as in Dunn, Wasserman and
    Ramdas, "Distribution-free prediction sets for two-layer hierarchical models", 2023.
    """
    if not 0.0 < level < 1.0:
        raise ConfigError(f"The level of the bounds is {level}, expected more than 0 and less than 1")
    by_structure: dict[str, list[Observation]] = {}
    for seen in observations:
        if math.isfinite(seen.raw) and math.isfinite(seen.dsc):
            by_structure.setdefault(seen.structure, []).append(seen)
    fitted = {
        name: _fit(sorted(found, key=_order), level, generator(seed, "calibration", name))
        for name, found in sorted(by_structure.items())
    }
    return Calibration(level=level, structures={name: found for name, found in fitted.items() if found})


def effective_number(errors: Values, patient: NDArray[np.intp]) -> float:
    """How many independent masks would tell as much as these, of which a patient's resemble each other.

    Args:
        errors: (N,).
        patient: (N,) index of each one's patient, from 0, every index in use.

    Returns:
        Between the number of patients and N.

    Source: variance of a mean in which every patient weighs the same, relative to that of one mask, with the
        intraclass correlation of a one-way analysis of variance.

    >>> patient = np.array([0, 0, 1, 1, 2, 2])
    >>> effective_number(np.array([1.0, 1.0, 2.0, 2.0, 4.0, 4.0]), patient)
    3.0
    >>> effective_number(np.array([1.0, 4.0, 2.0, 3.0, 4.0, 1.0]), patient)
    6.0
    """
    count = np.bincount(patient)
    masks, patients = len(errors), len(count)
    if masks == patients or patients < 2:
        return float(masks)
    mean = np.bincount(patient, weights=errors) / count
    between = float(count @ (mean - errors.mean()) ** 2) / (patients - 1)
    within = float(((errors - mean[patient]) ** 2).sum()) / (masks - patients)
    size = (masks - float(count @ count) / masks) / (patients - 1)
    total = between + (size - 1.0) * within
    alike = min(1.0, max(0.0, (between - within) / total)) if total > 0.0 else 1.0
    return patients / float(np.mean(alike + (1.0 - alike) / count))


def _order(seen: Observation) -> tuple[str, float, float]:
    return (seen.patient_id, seen.raw, seen.dsc)


def _fit(
    observations: Sequence[Observation], level: float, rng: np.random.Generator
) -> StructureCalibration | None:
    patients, patient = np.unique([seen.patient_id for seen in observations], return_inverse=True)
    if len(patients) < MIN_PATIENTS_FOR_LINE:
        return None
    raw = np.array([seen.raw for seen in observations])
    dsc = np.array([seen.dsc for seen in observations])
    weight = 1.0 / np.bincount(patient)[patient]
    fold = rng.permutation(len(patients))[patient] % min(FOLDS, len(patients))
    fit, errors = _best_map(raw, dsc, weight, fold)
    quantile = None
    if len(patients) >= min_patients(level):
        share = level * (1.0 + 1.0 / effective_number(errors, patient))
        quantile = _quantile(errors, weight, min(1.0, share))
    knots = fit(raw, dsc, weight) or fit_line(raw, dsc, weight)
    return StructureCalibration(
        knots=knots,
        quantile=quantile,
        patients=len(patients),
        masks=len(raw),
        span=(float(raw.min()), float(raw.max())),
    )


def _best_map(raw: Values, dsc: Values, weight: Values, fold: NDArray[np.intp]) -> tuple[Fit, Values]:
    """The curve where it is closer to patients left out than the line, and its scaled errors there."""
    found: list[tuple[float, Fit, Values]] = []
    for fit in (fit_line, fit_curve):
        values = np.empty_like(raw)
        for number in np.unique(fold):
            out = fold == number
            knots = fit(raw[~out], dsc[~out], weight[~out])
            if knots is None:
                break
            values[out] = along(knots, raw[out])
        else:
            distance = float(weight @ (values - dsc) ** 2)
            found.append((distance, fit, np.abs(values - dsc) / error_scale(values)))
    _, best, errors = min(found, key=lambda each: each[0])
    return best, errors


def _quantile(values: Values, weight: Values, level: float) -> float:
    """The smallest value that at least a share `level` of the weight does not exceed."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weight[order]) / weight.sum()
    return float(values[order][min(len(values) - 1, int(np.searchsorted(reached, level - 1e-12)))])
