"""Scores put right by the annotations that came back."""

import math
from collections.abc import Sequence
from dataclasses import replace

from cohort.records import QualityScore
from cohort.trial import RevealedMask
from sentinel.calibration import LEVEL, Calibration, Observation, fit_calibration


def recalibration(masks: Sequence[RevealedMask], *, level: float = LEVEL, seed: int = 0) -> Calibration:
    """What revealed masks say about an estimator's values.

    The map is from an estimator's raw value, also where it predicts a DSC: the prediction of a later round
    went through the map of an earlier one. It is monotone, so the order within a structure stays. The masks
    are those that a strategy had annotated: where it takes the worst, bounds hold for masks such as those,
    and say less about good ones.

    Args:
        masks: of earlier rounds; those without a score are left out.
        level: share of masks that the bounds should hold.
        seed: of the folds.

    Returns:
        Maps for structures with four patients or more, bounds for those with enough for the level.
    """
    return fit_calibration(
        [
            Observation(
                patient_id=mask.patient_id,
                structure=mask.structure,
                raw=mask.raw,
                dsc=mask.dsc,
            )
            for mask in masks
            if not math.isnan(mask.raw)
        ],
        level=level,
        seed=seed,
    )


def recalibrated(scores: Sequence[QualityScore], calibration: Calibration) -> tuple[QualityScore, ...]:
    """Scores with predicted DSC and bounds from a calibration; `raw`, which ranks, stays as it is.

    A score of a structure that the calibration does not know, and one that is missing, stays altogether.
    Where the calibration gives no bounds, those that the score had are dropped: they belong to the old value.
    """
    return tuple(_recalibrated(score, calibration) for score in scores)


def _recalibrated(score: QualityScore, calibration: Calibration) -> QualityScore:
    if score.missing or score.structure not in calibration.structures:
        return score
    found = calibration.apply(score.structure, score.raw)
    return replace(score, predicted_dsc=found.predicted_dsc, lower=found.lower, upper=found.upper)
