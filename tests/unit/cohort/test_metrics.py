import math

import numpy as np
import pytest

from cohort.case import Structure
from cohort.errors import GeometryError
from cohort.metrics import dsc, dsc_per_structure

SHAPE = (8, 12, 16)


def box(z: slice, y: slice, x: slice) -> np.ndarray:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[z, y, x] = True
    return mask


def test_boxes_that_overlap_by_half() -> None:
    a, b = box(slice(0, 4), slice(0, 3), slice(0, 5)), box(slice(2, 6), slice(0, 3), slice(0, 5))
    assert dsc(a, b) == 2 * 30 / (60 + 60)


def test_boxes_of_different_size() -> None:
    assert dsc(box(slice(0, 1), slice(0, 2), slice(0, 3)), box(slice(0, 1), slice(0, 3), slice(0, 6))) == 0.5


def test_the_same_mask_and_masks_apart() -> None:
    a, b = box(slice(0, 2), slice(0, 2), slice(0, 2)), box(slice(4, 6), slice(0, 2), slice(0, 2))
    assert dsc(a, a) == 1.0
    assert dsc(a, b) == 0.0


def test_empty_masks() -> None:
    empty, full = np.zeros(SHAPE, dtype=bool), np.ones(SHAPE, dtype=bool)
    assert math.isnan(dsc(empty, empty))
    assert math.isnan(dsc(full, empty))
    assert dsc(empty, full) == 0.0


def test_large_masks_of_bytes_do_not_overflow() -> None:
    mask = np.full((64, 64, 64), 255, dtype=np.uint8)
    assert dsc(mask, mask) == 1.0


def test_masks_of_different_shapes_are_refused() -> None:
    with pytest.raises(GeometryError, match=r"\(8, 12, 16\) and \(16, 12, 8\)"):
        dsc(np.zeros(SHAPE, dtype=bool), np.zeros(SHAPE[::-1], dtype=bool))
    with pytest.raises(GeometryError, match="of one shape"):
        dsc_per_structure(np.zeros(SHAPE, dtype=np.uint8), np.zeros(SHAPE[::-1], dtype=np.uint8), ())


def test_every_structure_is_measured_like_its_mask() -> None:
    structures = [Structure(name=f"s{label}", label=label) for label in (1, 2, 5, 255)]
    rng = np.random.default_rng(0)
    prediction, reference = (rng.choice([0, 1, 2, 3, 255], SHAPE).astype(np.uint8) for _ in range(2))
    expected = {s.name: dsc(prediction == s.label, reference == s.label) for s in structures}
    measured = dsc_per_structure(prediction, reference, structures)
    assert measured == pytest.approx(expected, nan_ok=True)
    assert math.isnan(measured["s5"])
    assert 0.0 < measured["s255"] < 1.0


def test_only_the_structures_that_are_asked_for_are_measured() -> None:
    labels = np.ones(SHAPE, dtype=np.uint8)
    assert dsc_per_structure(labels, labels, [Structure(name="liver", label=1)]) == {"liver": 1.0}
