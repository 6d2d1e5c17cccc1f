"""How much several models disagree with a mask: the committee's uncertainty."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from cohort.case import Structure
from cohort.errors import DataError
from cohort.records import Prediction
from cohort.volume import Array, check_same_grid, read_label_map

COMMITTEE = "committee"


def with_committee(
    predictions: Sequence[Prediction],
    members: Mapping[str, Sequence[Prediction]],
    structures: Sequence[Structure],
) -> tuple[Prediction, ...]:
    """Predictions with the disagreement of other models among their uncertainty, as kind "committee".

    Args:
        predictions: whose masks are judged.
        members: case id -> predictions of the same case by other models; at least one.
        structures: of the label maps.

    Returns:
        The predictions, in order; per structure 1 - mean DSC with the members' masks, in [0, 1], NaN where
        the mask is empty.

    Raises:
        DataError: for a case without a member, or a file that is missing or broken.
        GeometryError: for a member on another grid.
    """
    found = []
    for prediction in predictions:
        others = members.get(prediction.case_id, ())
        if not others:
            raise DataError(
                f"No other model predicted case {prediction.case_id}; expected at least one to compare with"
            )
        own = read_label_map(prediction.mask)
        maps = [read_label_map(other.mask) for other in others]
        for other, labels in zip(others, maps, strict=True):
            check_same_grid(own, labels, prediction.mask, other.mask)
        values = {s.name: _disagreement(own.array, [m.array for m in maps], s.label) for s in structures}
        found.append(replace(prediction, uncertainty={**prediction.uncertainty, COMMITTEE: values}))
    return tuple(found)


def _disagreement(own: Array, others: Sequence[Array], label: int) -> float:
    mask = own == label
    size = int(np.count_nonzero(mask))
    if size == 0:
        return math.nan
    agreed = [
        2.0 * int(np.count_nonzero(mask & (other == label))) / (size + int(np.count_nonzero(other == label)))
        for other in others
    ]
    return 1.0 - math.fsum(agreed) / len(agreed)
