"""From tissue to a scan: point spread, noise of the dose, streaks, whole HU."""

import numpy as np
from scipy import ndimage

from cohort.case import Spacing
from cohort.phantom.fields import Field
from cohort.phantom.patient import Patient

_LOWEST_HU, _HIGHEST_HU = -1024.0, 3071.0


def scan(tissue: Field, patient: Patient, spacing_mm: Spacing) -> Field:
    """What the scanner would store of a painted patient.

    Args:
        tissue: (D, H, W) HU, changed in place.
        patient: gives dose, blur and girth.
        spacing_mm: in (D, H, W).

    Returns:
        (D, H, W) float32 with whole HU from -1024 to 3071.
    """
    _, row_mm, column_mm = spacing_mm
    sigma = (0.4, patient.blur_mm / row_mm, patient.blur_mm / column_mm)
    ndimage.gaussian_filter(tissue, sigma, output=tissue, truncate=2.5)
    tissue += _noise(tissue, patient)
    np.clip(np.rint(tissue, out=tissue), _LOWEST_HU, _HIGHEST_HU, out=tissue)
    return tissue


def _noise(tissue: Field, patient: Patient) -> Field:
    """Grainy noise, stronger deep inside a wide patient, and streaks along the widest axis at a low dose."""
    rng = patient.rng("noise")
    grain = rng.standard_normal(tissue.shape, dtype=np.float32)
    ndimage.gaussian_filter1d(grain, 0.6, axis=1, output=grain, truncate=2.0)
    ndimage.gaussian_filter1d(grain, 0.6, axis=2, output=grain, truncate=2.0)
    streaks = rng.standard_normal((*tissue.shape[:2], max(tissue.shape[2] // 12, 1)), dtype=np.float32)
    streaks = np.repeat(streaks, -(-tissue.shape[2] // streaks.shape[2]), axis=2)[:, :, : tissue.shape[2]]
    ndimage.gaussian_filter1d(streaks, 4.0, axis=2, output=streaks, truncate=2.0)
    girth = patient.half_width + patient.fat_side
    dose = patient.noise_hu * girth / 125.0
    inside = ndimage.gaussian_filter((tissue > -500.0).astype(np.float32), (0.0, 7.0, 7.0), truncate=2.0)
    noise: Field = (0.35 + 0.65 * inside) * dose * (grain / np.float32(grain.std()))
    noise += inside * np.float32(0.5 * dose * patient.difficulty) * streaks
    return noise
