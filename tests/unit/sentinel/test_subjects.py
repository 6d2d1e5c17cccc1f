import numpy as np
import pytest

from cohort.errors import DataError
from sentinel.subjects import make_subject, region_around, signed_distance_mm

SPACING_MM = (3.0, 1.0, 0.5)


def test_region_has_room_of_the_size_of_the_mask() -> None:
    mask = np.zeros((40, 60, 80), dtype=bool)
    mask[20:22, 30:40, 5:35] = True
    assert region_around(mask) == (slice(14, 28), slice(20, 50), slice(0, 65))


def test_signed_distance_by_hand() -> None:
    mask = np.zeros((1, 1, 5), dtype=bool)
    mask[..., 1:3] = True
    assert signed_distance_mm(mask, SPACING_MM).ravel().tolist() == [-0.5, 0.5, 0.5, -0.5, -1.0]
    assert np.isneginf(signed_distance_mm(np.zeros((2, 2, 2), dtype=bool), SPACING_MM)).all()


def test_extent_and_coordinates_are_in_millimetres() -> None:
    mask = np.zeros((8, 12, 16), dtype=bool)
    mask[2:4, 3:6, 1:11] = True
    subject = make_subject("liver", mask, {}, SPACING_MM)
    assert subject.extent_mm.tolist() == [6.0, 3.0, 5.0]
    assert subject.coordinates_mm[2, 3, 4].tolist() == [6.0, 3.0, 2.0]


def test_empty_mask_cannot_be_corrupted() -> None:
    with pytest.raises(DataError, match="mask of 'liver' is empty"):
        make_subject("liver", np.zeros((2, 3, 4), dtype=bool), {}, SPACING_MM)
