import numpy as np
import pytest

from cohort.annotator_noise import AnnotatorNoise, annotate_with_noise
from cohort.case import Structure
from cohort.errors import ConfigError
from cohort.metrics import dsc

SPACING_MM = (3.0, 1.0, 0.5)
STRUCTURES = (Structure(name="liver", label=1), Structure(name="spleen", label=2))


@pytest.fixture
def reference() -> np.ndarray:
    labels = np.zeros((12, 40, 60), np.uint8)
    labels[3:9, 8:30, 10:30] = 1
    labels[3:9, 8:30, 34:54] = 2
    return labels


def drawn(reference: np.ndarray, seed: int = 0, **noise: float) -> np.ndarray:
    return annotate_with_noise(
        reference, STRUCTURES, SPACING_MM, AnnotatorNoise(**noise), np.random.default_rng(seed)
    )


def test_without_noise_is_the_reference(reference: np.ndarray) -> None:
    assert AnnotatorNoise().exact
    np.testing.assert_array_equal(drawn(reference), reference)


def test_larger_errors_cost_more_dsc(reference: np.ndarray) -> None:
    found = [
        np.mean([dsc(drawn(reference, seed, boundary_mm=mm) == 1, reference == 1) for seed in range(5)])
        for mm in (0.0, 0.25, 0.5, 1.0)
    ]
    assert found == sorted(found, reverse=True)
    assert found[0] == 1.0
    assert 0.5 < found[-1] < 0.97


def test_the_same_seed_errs_alike(reference: np.ndarray) -> None:
    np.testing.assert_array_equal(drawn(reference, 4, boundary_mm=1.0), drawn(reference, 4, boundary_mm=1.0))
    assert (drawn(reference, 4, boundary_mm=1.0) != drawn(reference, 5, boundary_mm=1.0)).any()


def test_slices_are_left_out_whole(reference: np.ndarray) -> None:
    found = drawn(reference, 1, missed_slices=0.5)
    there = (found == 1).any(axis=(1, 2))
    assert 0 < there.sum() < 6
    np.testing.assert_array_equal(found[there] == 1, reference[there] == 1)


def test_structures_are_overlooked(reference: np.ndarray) -> None:
    assert not drawn(reference, missed_structures=1.0).any()


def test_what_is_not_there_is_not_invented(reference: np.ndarray) -> None:
    without = np.where(reference == 2, 0, reference).astype(np.uint8)
    assert not (drawn(without, boundary_mm=3.0) == 2).any()


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        ({"boundary_mm": -1.0}, "boundary_mm is -1.0"),
        ({"smoothness_mm": 0.0}, "smoothness_mm 0.0"),
        ({"missed_slices": 1.5}, "missed_slices is 1.5; expected a probability"),
    ],
)
def test_refuses_what_makes_no_sense(noise: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AnnotatorNoise(**noise)
