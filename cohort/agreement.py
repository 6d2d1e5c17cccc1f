"""How well estimated quality agrees with measured DSC."""

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Values = NDArray[np.float64]


def agreement(raw: Values, predicted_dsc: Values, dsc: Values) -> dict[str, float | None]:
    """Pearson and Spearman correlation, and mean absolute error.

    Args:
        raw: (N,) the estimator's values, higher is better.
        predicted_dsc: (N,) in [0, 1], NaN where the estimator is not calibrated to DSC.
        dsc: (N,) in [0, 1], measured.

    Returns:
        "pearson" and "spearman" of `raw` with `dsc`, None with fewer than 3 values or without spread;
        "mae" and "bias" (predicted minus measured) over the calibrated values, None if there is none.

    >>> found = agreement(np.array([0.1, 0.2, 0.4]), np.array([0.5, 0.6, 0.9]), np.array([0.6, 0.7, 0.8]))
    >>> round(found["spearman"], 3), round(found["mae"], 3)
    (1.0, 0.1)
    """
    correlated = len(raw) >= 3 and float(np.ptp(raw)) > 0.0 and float(np.ptp(dsc)) > 0.0
    error = (predicted_dsc - dsc)[~np.isnan(predicted_dsc)]
    return {
        "pearson": float(stats.pearsonr(raw, dsc).statistic) if correlated else None,
        "spearman": float(stats.spearmanr(raw, dsc).statistic) if correlated else None,
        "mae": float(np.abs(error).mean()) if len(error) else None,
        "bias": float(error.mean()) if len(error) else None,
    }
