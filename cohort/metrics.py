"""DSC of masks and label maps in NumPy, with the rules for empty masks.

NSD and HD95 are MONAI's and live with the segmenters.
"""

import math
from collections.abc import Sequence

import numpy as np

from cohort.case import Structure
from cohort.errors import GeometryError
from cohort.volume import Array


def dsc(prediction: Array, reference: Array) -> float:
    """Dice similarity coefficient of two masks: twice the overlap over the sum of both sizes.

    Args:
        prediction: mask of any shape; what is not zero is foreground.
        reference: mask of the same shape.

    Returns:
        In [0, 1], higher is better. NaN where the reference is empty (a structure that is not there has no
        DSC, whatever was predicted); 0.0 where only the prediction is empty.

    Raises:
        GeometryError: if the shapes differ.

    Source: Dice, "Measures of the amount of ecologic association between species", Ecology 26 (1945).

    >>> dsc(np.array([1, 1, 0, 0]), np.array([0, 1, 1, 0]))
    0.5
    >>> dsc(np.array([1, 0]), np.array([0, 0]))
    nan
    """
    _check_shapes(prediction, reference)
    predicted, true = prediction.astype(bool), reference.astype(bool)
    overlap = int(np.count_nonzero(predicted & true))
    return _dsc(overlap, int(np.count_nonzero(predicted)), int(np.count_nonzero(true)))


def dsc_per_structure(
    prediction_labels: Array, reference_labels: Array, structures: Sequence[Structure]
) -> dict[str, float]:
    """DSC of every structure of two label maps, in three passes however many structures there are.

    Args:
        prediction_labels: (D, H, W) whole numbers from 0 to 255.
        reference_labels: (D, H, W), the same.
        structures: those to measure; leave out what was not annotated.

    Returns:
        Structure name -> DSC in [0, 1]; NaN where the reference does not hold the structure, 0.0 where only
        the prediction does not.

    Raises:
        GeometryError: if the shapes differ.
    """
    _check_shapes(prediction_labels, reference_labels)
    predicted, true = prediction_labels.ravel(), reference_labels.ravel()
    overlap = np.bincount(true[predicted == true], minlength=256)
    predicted_sizes = np.bincount(predicted, minlength=256)
    true_sizes = np.bincount(true, minlength=256)
    return {
        s.name: _dsc(int(overlap[s.label]), int(predicted_sizes[s.label]), int(true_sizes[s.label]))
        for s in structures
    }


def _dsc(overlap: int, predicted_size: int, true_size: int) -> float:
    if true_size == 0:
        return math.nan
    return 2.0 * overlap / (predicted_size + true_size)


def _check_shapes(prediction: Array, reference: Array) -> None:
    if prediction.shape != reference.shape:
        raise GeometryError(
            f"Expected a prediction and a reference of one shape, but got {prediction.shape} and "
            f"{reference.shape}; put the prediction back on the image's grid first"
        )
