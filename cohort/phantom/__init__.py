"""Synthetic multi-organ abdominal CT: the embedded default cohort, generated from a seed.

A case is a patient (build, contrast phase, disease, dose) painted organ by organ on a warped grid, and
scanned. The same patient can be painted on any grid.
"""

from cohort.phantom.generation import DEFAULT_SHAPE, DEFAULT_SPACING_MM, generate_case
from cohort.phantom.patient import PHASES, Enhancement, Patient, draw_patient
from cohort.phantom.structures import STRUCTURES
from cohort.phantom.writing import write_phantom

__all__ = [
    "DEFAULT_SHAPE",
    "DEFAULT_SPACING_MM",
    "PHASES",
    "STRUCTURES",
    "Enhancement",
    "Patient",
    "draw_patient",
    "generate_case",
    "write_phantom",
]
