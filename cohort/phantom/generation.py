"""One generated case, from its index to its image and label map."""

import numpy as np

from cohort.case import Shape, Spacing
from cohort.errors import ConfigError
from cohort.phantom.acquisition import scan
from cohort.phantom.body import paint_body, paint_muscles
from cohort.phantom.bowel import paint_bowel, paint_gallbladder
from cohort.phantom.canvas import Canvas
from cohort.phantom.organs import paint_kidneys, paint_liver, paint_pancreas, paint_spleen, paint_stomach
from cohort.phantom.patient import draw_patient
from cohort.phantom.trunk import paint_vertebrae, paint_vessels
from cohort.volume import Affine, Volume

DEFAULT_SHAPE: Shape = (40, 96, 128)
DEFAULT_SPACING_MM: Spacing = (5.0, 3.2, 3.2)

_PAINTERS = (
    paint_body,
    paint_bowel,
    paint_stomach,
    paint_liver,
    paint_gallbladder,
    paint_spleen,
    paint_pancreas,
    paint_vessels,
    paint_muscles,
    paint_kidneys,
    paint_vertebrae,
)
"""From back to front: what is painted later covers what was there."""


def generate_case(
    index: int, *, seed: int, shape: Shape = DEFAULT_SHAPE, spacing_mm: Spacing = DEFAULT_SPACING_MM
) -> tuple[Volume, Volume]:
    """Generate the image and the reference label map of one case.

    The arrays are stored towards left, back and head (LPS): the first row is the patient's front, the first
    column the patient's right, so a slice shown as it is looks as in a radiology viewer.

    Args:
        index: of the case, 0 or more; the same case whatever the number of cases.
        seed: of the cohort.
        shape: (D, H, W) voxels.
        spacing_mm: (D, H, W); the grid is centred on the patient's abdomen and may cut it.

    Returns:
        The image (float32, whole HU from -1024 to 3071) and the label map (uint8) on one grid. A structure
        that the patient lacks, or that lies outside the grid, has no voxels.

    Raises:
        ConfigError: for a negative index, an empty shape or a spacing that is not positive and finite.

    >>> image, labels = generate_case(0, seed=7, shape=(8, 12, 16), spacing_mm=(25.0, 24.0, 24.0))
    >>> image.array.shape, image.spacing_mm, labels.array.dtype.name
    ((8, 12, 16), (25.0, 24.0, 24.0), 'uint8')
    """
    check_grid(shape, spacing_mm)
    if index < 0:
        raise ConfigError(f"Case index {index} is negative; the cases of the phantom are counted from 0")
    patient = draw_patient(index, seed=seed)
    canvas = Canvas(shape, spacing_mm, patient)
    for painter in _PAINTERS:
        painter(canvas, patient)
    affine = _affine(shape, spacing_mm, patient.rng("table"))
    image = scan(canvas.whole.image, patient, spacing_mm)
    return Volume(array=image, affine=affine), Volume(array=canvas.whole.labels, affine=affine)


def check_grid(shape: Shape, spacing_mm: Spacing) -> None:
    """Refuse a grid that nothing can be painted on.

    Raises:
        ConfigError: for an empty shape or a spacing that is not positive and finite.
    """
    if len(shape) != 3 or min(shape) < 1:
        raise ConfigError(f"The phantom's shape is {shape}; expected three positive voxel counts (D, H, W)")
    if len(spacing_mm) != 3 or not all(0.0 < size < np.inf for size in spacing_mm):
        raise ConfigError(
            f"The phantom's spacing is {spacing_mm}; expected three positive lengths in mm (D, H, W)"
        )


def _affine(shape: Shape, spacing_mm: Spacing, rng: np.random.Generator) -> Affine:
    """LPS grid with the scanner's origin somewhere near the middle, as tables are moved."""
    depth, height, width = (size * step for size, step in zip(shape, spacing_mm, strict=True))
    table = np.round(rng.normal(0.0, (15.0, 15.0, 120.0)), 1)
    affine = np.diag([-spacing_mm[2], -spacing_mm[1], spacing_mm[0], 1.0])
    corner = np.array([width / 2.0, height / 2.0, -depth / 2.0])
    affine[:3, 3] = np.round(corner + table, 1)
    return affine
