from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from cohort.case import Structure
from cohort.errors import GeometryError, ModelError
from cohort.metrics import dsc
from cohort.records import GradedMask
from cohort.slabs import Slab
from cohort.volume import read_label_map, write_volume
from sentinel.config import SentinelConfig
from sentinel.pairs import make_pairs

CONFIG = SentinelConfig(image_size=32, margin=3.0, training_slices=240)
Graded = Callable[..., list[GradedMask]]
Structures = tuple[Structure, ...]


def test_pairs_hold_what_they_promise(graded: Graded, structures: Structures) -> None:
    pairs = make_pairs(graded(), structures, CONFIG, seed=1)
    assert pairs.slices.shape[1:] == (2, 32, 32)
    assert pairs.slices.dtype == np.uint8
    assert 0.6 * 240 <= len(pairs) <= 1.1 * 240
    assert len(pairs.patient_ids) == len(pairs)
    assert set(pairs.patient_ids) == {"patient_0", "patient_1", "patient_2"}
    for values in (pairs.slice_dsc, pairs.volume_dsc):
        assert values.min() >= 0.0
        assert values.max() <= 1.0
    assert set(pairs.structure.tolist()) == {0, 1}
    assert pairs.slices[:, 1].max(axis=(1, 2)).min() > 0


def test_natural_masks_carry_their_true_dsc(graded: Graded, structures: Structures) -> None:
    masks = graded(cases=1, sources=1)
    reference, predicted = read_label_map(masks[0].reference).array, read_label_map(masks[0].mask).array
    pairs = make_pairs(masks, structures, CONFIG, seed=1)
    for index, structure in enumerate(structures):
        own = pairs.natural & (pairs.structure == index)
        true = dsc(predicted == structure.label, reference == structure.label)
        np.testing.assert_allclose(pairs.volume_dsc[own], true, rtol=1e-6)
        # a box moved by one row: every slice has the DSC of the whole
        np.testing.assert_allclose(pairs.slice_dsc[own], true, rtol=1e-6)


def test_misses_and_all_other_grades_are_there(graded: Graded, structures: Structures) -> None:
    pairs = make_pairs(graded(), structures, replace(CONFIG, training_slices=900), seed=1)
    counts, _ = np.histogram(pairs.volume_dsc, bins=[0.0, 1e-6, 0.3, 0.5, 0.7, 0.9])
    assert counts.min() >= 40
    assert (pairs.slice_dsc == 0.0).sum() >= 40


def test_only_evaluated_structures_give_targets(graded: Graded, structures: Structures) -> None:
    pairs = make_pairs(graded(evaluated=frozenset({"spleen"})), structures, CONFIG, seed=1)
    assert set(pairs.structure.tolist()) == {1}


def test_target_blends_slice_and_volume(graded: Graded, structures: Structures) -> None:
    pairs = make_pairs(graded(), structures, CONFIG, seed=1)
    np.testing.assert_array_equal(pairs.target(0.0), pairs.slice_dsc)
    np.testing.assert_array_equal(pairs.target(1.0), pairs.volume_dsc)
    np.testing.assert_allclose(pairs.target(0.25), 0.75 * pairs.slice_dsc + 0.25 * pairs.volume_dsc)


def test_same_seed_same_pairs_whatever_the_order(graded: Graded, structures: Structures) -> None:
    masks = graded()
    first, second = (make_pairs(order, structures, CONFIG, seed=1) for order in (masks, masks[::-1]))
    np.testing.assert_array_equal(first.slices, second.slices)
    np.testing.assert_array_equal(first.slice_dsc, second.slice_dsc)
    other = make_pairs(masks, structures, CONFIG, seed=2)
    assert len(other) != len(first) or (other.slices != first.slices).any()


def test_count_can_be_asked_for_and_progress_is_told(graded: Graded, structures: Structures) -> None:
    told: list[tuple[int, int]] = []
    pairs = make_pairs(
        graded(),
        structures,
        CONFIG,
        seed=1,
        target_count=60,
        report=lambda done, of, _: told.append((done, of)),
    )
    assert len(pairs) <= 80
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_empty_predictions_still_give_corruptions(graded: Graded, structures: Structures) -> None:
    masks = graded(cases=1, sources=1)
    labels = read_label_map(masks[0].mask)
    write_volume(masks[0].mask, np.zeros_like(labels.array), labels.affine)
    pairs = make_pairs(masks, structures, CONFIG, seed=1)
    assert not pairs.natural.any()
    assert len(pairs) > 100


def test_nothing_to_learn_from(structures: Structures) -> None:
    with pytest.raises(ModelError, match=r"Not one training pair .* out of 0 graded masks"):
        make_pairs([], structures, CONFIG, seed=1)


def test_mask_on_another_grid(graded: Graded, structures: Structures) -> None:
    masks = graded(cases=1, sources=1)
    labels = read_label_map(masks[0].mask)
    write_volume(masks[0].mask, labels.array[:, :-1], labels.affine)
    with pytest.raises(GeometryError, match="both must lie on one grid"):
        make_pairs(masks, structures, CONFIG, seed=1)


@pytest.mark.parametrize("orientation", ["as_stored", "canonical"])
def test_only_annotated_slices_teach(graded: Graded, structures: Structures, orientation: str) -> None:
    slabs = (Slab(first=3, last=4), Slab(first=7, last=7))
    masks = [replace(mask, slabs=slabs) for mask in graded(cases=2, sources=1)]
    config = replace(CONFIG, orientation=orientation)
    before = make_pairs(masks, structures, config, seed=1)
    for mask in masks:
        for path in (mask.reference, mask.mask):
            volume = read_label_map(path)
            volume.array[[0, 1, 2, 5, 6]] = 3
            write_volume(path, volume.array, volume.affine)
    after = make_pairs(masks, structures, config, seed=1)
    for name in ("slices", "references", "slice_dsc", "volume_dsc", "sizes"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    predicted, true = (read_label_map(p).array[[3, 4, 7]] == 1 for p in (masks[0].mask, masks[0].reference))
    own = before.natural & (before.structure == 0)
    np.testing.assert_allclose(before.volume_dsc[own], dsc(predicted, true), rtol=1e-6)
