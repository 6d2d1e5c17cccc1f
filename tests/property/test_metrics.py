import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from cohort.case import Structure
from cohort.metrics import dsc, dsc_per_structure

SHAPES = npst.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6)
PAIRS_OF_MASKS = SHAPES.flatmap(lambda shape: st.tuples(npst.arrays(bool, shape), npst.arrays(bool, shape)))
LABELS = st.integers(0, 4)
PAIRS_OF_LABEL_MAPS = SHAPES.flatmap(
    lambda shape: st.tuples(*(npst.arrays(np.uint8, shape, elements=LABELS) for _ in range(2)))
)


@given(PAIRS_OF_MASKS)
def test_dsc_is_bounded_and_undefined_only_without_a_reference(masks: tuple[np.ndarray, np.ndarray]) -> None:
    prediction, reference = masks
    value = dsc(prediction, reference)
    assert math.isnan(value) == (not reference.any())
    assert math.isnan(value) or 0.0 <= value <= 1.0


@given(PAIRS_OF_MASKS)
def test_dsc_is_symmetric_where_both_sides_are_defined(masks: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = masks
    if a.any() and b.any():
        assert dsc(a, b) == dsc(b, a)


@given(PAIRS_OF_MASKS)
def test_dsc_does_not_depend_on_the_order_of_the_axes(masks: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = masks
    np.testing.assert_equal(dsc(a.T, b.T), dsc(a, b))


@given(PAIRS_OF_MASKS)
def test_dsc_is_1_exactly_for_the_same_mask(masks: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = masks
    if b.any():
        assert (dsc(a, b) == 1.0) == np.array_equal(a, b)


@given(PAIRS_OF_MASKS)
def test_a_prediction_that_gains_a_right_voxel_gains_dsc(masks: tuple[np.ndarray, np.ndarray]) -> None:
    prediction, reference = masks
    missed = np.argwhere(reference & ~prediction)
    if missed.size:
        better = prediction.copy()
        better[tuple(missed[0])] = True
        assert dsc(better, reference) > dsc(prediction, reference)


@given(PAIRS_OF_LABEL_MAPS)
def test_label_maps_are_measured_like_their_masks(label_maps: tuple[np.ndarray, np.ndarray]) -> None:
    prediction, reference = label_maps
    structures = [Structure(name=f"s{label}", label=label) for label in range(1, 6)]
    measured = dsc_per_structure(prediction, reference, structures)
    expected = {s.name: dsc(prediction == s.label, reference == s.label) for s in structures}
    np.testing.assert_equal(measured, expected)
