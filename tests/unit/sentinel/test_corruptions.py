import numpy as np
import pytest

from cohort.errors import DataError
from cohort.metrics import dsc
from sentinel import corruptions
from sentinel.corruptions import CORRUPTIONS, Corrupter, corrupt
from sentinel.subjects import Subject, make_subject

SPACING_MM = (3.0, 1.0, 0.5)


def subject_of(name: str = "kidney_left", others: dict[str, np.ndarray] | None = None) -> Subject:
    mask = np.zeros((10, 24, 40), dtype=bool)
    mask[3:7, 6:16, 6:20] = True
    return make_subject(name, mask, others or {}, SPACING_MM)


def neighbour() -> np.ndarray:
    mask = np.zeros((10, 24, 40), dtype=bool)
    mask[3:7, 6:16, 20:30] = True
    return mask


@pytest.mark.parametrize("name", sorted(CORRUPTIONS))
def test_every_corruption_is_seeded_and_leaves_its_subject_alone(name: str) -> None:
    subject = subject_of(others={"spleen": neighbour()})
    before = subject.mask.copy()
    for severity in (0.0, 0.3, 1.0):
        first = CORRUPTIONS[name](subject, severity, np.random.default_rng(5))
        second = CORRUPTIONS[name](subject, severity, np.random.default_rng(5))
        assert first.shape == subject.mask.shape
        assert first.dtype == np.bool_
        np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(subject.mask, before)


@pytest.mark.parametrize("name", ["erode", "lose_part", "lose_slices", "punch_holes"])
def test_what_takes_away_adds_nothing(name: str) -> None:
    subject = subject_of()
    corrupted = CORRUPTIONS[name](subject, 0.5, np.random.default_rng(0))
    assert not (corrupted & ~subject.mask).any()
    assert 0 < corrupted.sum() < subject.mask.sum()


@pytest.mark.parametrize("name", ["dilate", "leak", "add_islands"])
def test_what_adds_takes_nothing_away(name: str) -> None:
    subject = subject_of(others={"spleen": neighbour()})
    corrupted = CORRUPTIONS[name](subject, 0.5, np.random.default_rng(0))
    assert not (subject.mask & ~corrupted).any()
    assert corrupted.sum() > subject.mask.sum()


@pytest.mark.parametrize("name", ["erode", "dilate", "jitter_boundary", "lose_slices", "shift"])
def test_more_severe_is_worse(name: str) -> None:
    subject = subject_of()

    def mean_dsc(severity: float) -> float:
        found = [CORRUPTIONS[name](subject, severity, np.random.default_rng(seed)) for seed in range(8)]
        return float(np.mean([dsc(mask, subject.mask) for mask in found]))

    assert mean_dsc(0.15) > mean_dsc(0.8)


def test_dilation_is_in_millimetres() -> None:
    subject = subject_of()
    grown = CORRUPTIONS["dilate"](subject, 0.5, np.random.default_rng(0))
    grown_by = [
        np.ptp(np.flatnonzero(grown.any(axis=axes))) - np.ptp(np.flatnonzero(subject.mask.any(axis=axes)))
        for axes in ((1, 2), (0, 2), (0, 1))
    ]
    assert subject.depth_mm == pytest.approx(3.5)
    # 0.75 of the depth is 2.625 mm: no slice of 3 mm, 2 rows of 1 mm and 5 columns of 0.5 mm on each side
    assert grown_by == [0, 4, 10]


def test_a_miss_has_no_overlap() -> None:
    subject = subject_of()
    for seed in range(10):
        missed = CORRUPTIONS["miss"](subject, 0.5, np.random.default_rng(seed))
        assert missed.any()
        assert not (missed & subject.mask).any()


def test_a_miss_where_there_is_no_room() -> None:
    mask = np.ones((8, 12, 16), dtype=bool)
    mask[0] = False
    subject = make_subject("liver", mask, {}, SPACING_MM)
    missed = CORRUPTIONS["miss"](subject, 0.5, np.random.default_rng(0))
    assert not (missed & mask).any()


def test_other_side_is_taken_where_there_is_one() -> None:
    other = neighbour()
    subject = subject_of("kidney_left", {"spleen": ~other, "right kidney": other})
    swapped = CORRUPTIONS["swap_sides"](subject, 0.5, np.random.default_rng(0))
    np.testing.assert_array_equal(swapped, subject.others["right kidney"])


def test_without_another_side_the_mask_is_mirrored() -> None:
    subject = subject_of()
    swapped = CORRUPTIONS["swap_sides"](subject, 0.5, np.random.default_rng(0))
    np.testing.assert_array_equal(swapped, subject.mask[:, :, ::-1])


def test_wrong_structure_is_another_one() -> None:
    subject = subject_of(others={"spleen": neighbour()})
    wrong = CORRUPTIONS["wrong_structure"](subject, 0.5, np.random.default_rng(0))
    np.testing.assert_array_equal(wrong, subject.others["spleen"])


def test_lost_component() -> None:
    mask = np.zeros((8, 12, 16), dtype=bool)
    mask[1:3, 2:4, 2:4], mask[5:7, 8:11, 9:14] = True, True
    subject = make_subject("lesion", mask, {}, SPACING_MM)
    sizes = {int(CORRUPTIONS["lose_part"](subject, 0.0, np.random.default_rng(s)).sum()) for s in range(12)}
    assert {8, 30} <= sizes


def labels_of(scale: int) -> np.ndarray:
    labels = np.zeros((10 * scale, 24 * scale, 40 * scale), dtype=np.uint8)
    labels[3 * scale : 7 * scale, 6 * scale : 16 * scale, 6 * scale : 20 * scale] = 1
    labels[3 * scale : 7 * scale, 6 * scale : 16 * scale, 20 * scale : 30 * scale] = 2
    return labels


@pytest.mark.parametrize("limit", [1e9, 4000])
def test_corrupter_draws_within_its_region_at_full_resolution(
    monkeypatch: pytest.MonkeyPatch, limit: float
) -> None:
    monkeypatch.setattr(corruptions, "MAX_VOXELS", limit)
    labels = labels_of(2)
    corrupter = Corrupter.of("liver", labels, {"liver": 1, "spleen": 2}, SPACING_MM)
    assert corrupter.stride == (1 if limit == 1e9 else 3)
    np.testing.assert_array_equal(corrupter.mask, (labels == 1)[corrupter.region])
    grades = []
    for seed in range(20):
        drawn = corrupter.draw(np.random.default_rng(seed))
        assert drawn.shape == corrupter.mask.shape
        assert drawn.dtype == np.bool_
        grades.append(dsc(drawn, corrupter.mask))
    assert min(grades) < 0.3 < 0.8 < max(grades)


def test_what_a_coarse_corruption_leaves_alone_stays_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corruptions, "MAX_VOXELS", 4000)
    corrupter = Corrupter.of("liver", labels_of(2), {"liver": 1, "spleen": 2}, SPACING_MM)
    monkeypatch.setattr(corruptions, "corrupt", lambda subject, severity, rng: subject.mask.copy())
    np.testing.assert_array_equal(corrupter.draw(np.random.default_rng(0)), corrupter.mask)


def test_a_structure_that_falls_between_the_coarse_voxels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corruptions, "MAX_VOXELS", 20)
    labels = np.zeros((30, 30, 30), dtype=np.uint8)
    labels[10, 10, 10] = 1
    corrupter = Corrupter.of("lesion", labels, {"lesion": 1}, SPACING_MM)
    assert corrupter.subject.mask.sum() == 1


def test_absent_structure_has_no_corrupter() -> None:
    with pytest.raises(DataError, match="mask of 'liver' is empty"):
        Corrupter.of("liver", np.zeros((2, 3, 4), dtype=np.uint8), {"liver": 1}, SPACING_MM)


def test_random_corruptions_reach_all_grades() -> None:
    rng, subject = np.random.default_rng(3), subject_of(others={"spleen": neighbour()})
    found = [dsc(corrupt(subject, float(rng.random()), rng), subject.mask) for _ in range(150)]
    assert (np.histogram(found, bins=[0.0, 1e-6, 0.3, 0.5, 0.7, 0.9, 1.001])[0] > 0).all()
