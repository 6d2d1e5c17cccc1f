"""Images and masks that are refused, and slices that wait for a full batch."""

import numpy as np
import pytest
from numpy.typing import NDArray

from cohort.errors import DataError, GeometryError
from cohort.volume import Volume
from sentinel import planning
from sentinel.config import SentinelConfig
from sentinel.planning import SliceQueue, check_image, check_mask

SHAPE = (8, 12, 16)
AFFINE = np.array([[-0.5, 0, 0, 7.0], [0, 1.0, 0, -3.0], [0, 0, 3.0, 11.0], [0, 0, 0, 1.0]])
UPSIDE_DOWN = AFFINE * np.array([1.0, 1.0, -1.0, 1.0])
CONFIG = SentinelConfig(image_size=32, margin=2.0, max_slices=4)


def volume(lowest: float = -1000.0, affine: np.ndarray = AFFINE) -> Volume:
    array = np.random.default_rng(0).uniform(0.0, 100.0, SHAPE).astype(np.float32)
    array[0, 0, 0] = lowest
    return Volume(array=array, affine=affine)


def mask(first: int, last: int, rows: int = 4) -> np.ndarray:
    """Of slices `first` to below `last`, each with one row of 5 voxels more than the one before."""
    found = np.zeros(SHAPE, dtype=bool)
    for number, index in enumerate(range(first, last)):
        found[index, 2 : 2 + rows + number, 3:8] = True
    return found


class Predictor:
    """Gives every slice its structure plus its place in the order of scoring, and keeps what it saw."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.slices: list[NDArray[np.uint8]] = []

    def __call__(self, slices: NDArray[np.uint8], structures: NDArray[np.int64]) -> NDArray[np.float32]:
        first = sum(self.sizes)
        self.sizes.append(len(slices))
        self.slices.extend(slices)
        found = 100.0 * structures + np.arange(first, first + len(slices))
        return np.repeat(found[:, None], planning.JUDGEMENTS, axis=1).astype(np.float32)


@pytest.fixture
def predictor() -> Predictor:
    return Predictor()


class TestImages:
    def test_the_darkest_voxel_decides_whether_it_is_in_hu(self) -> None:
        check_image(volume(planning.DARKEST_TISSUE_HU), "ct_hu")
        lightest = planning.DARKEST_TISSUE_HU + 1.0
        with pytest.raises(
            DataError, match=r"from -149 to .* not in Hounsfield units \(no voxel is below -150"
        ):
            check_image(volume(lightest), "ct_hu")
        check_image(volume(lightest), "per_volume_percentile")

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("intensity", ["ct_hu", "per_volume_percentile"])
    def test_one_voxel_that_is_no_number(self, value: float, intensity: str) -> None:
        with pytest.raises(DataError, match="NaN or infinite voxels"):
            check_image(volume(value), intensity)

    @pytest.mark.parametrize("shape", [(12, 16), (1, 8, 12, 16), (8, 0, 16)])
    def test_another_shape(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(DataError, match="expected three dimensions"):
            check_image(Volume(array=np.zeros(shape, np.float32), affine=AFFINE), "ct_hu")

    def test_a_mask_with_swapped_axes(self) -> None:
        check_mask("liver", np.zeros(SHAPE, dtype=bool), volume())
        with pytest.raises(
            GeometryError, match=r"'liver' has shape \(16, 12, 8\), but its image has shape \(8, 12, 16\)"
        ):
            check_mask("liver", np.zeros(SHAPE[::-1], dtype=bool), volume())


class TestQueue:
    def test_batches_are_full_but_the_last(self, predictor: Predictor) -> None:
        queue = SliceQueue(CONFIG, predictor, batch=5)
        scan = volume()
        for number in range(3):
            queue.add(scan, mask(1, 5), number)
            assert len(queue.scores(0, 100)) == queue.done == 5 * (4 * (number + 1) // 5)
        queue.finish()
        queue.finish()
        assert predictor.sizes == [5, 5, 2]
        assert (queue.length, queue.done) == (12, 12)
        expected = [100.0 * (place // 4) + place for place in range(12)]
        assert queue.scores(0, 12)[:, 0].tolist() == expected
        assert queue.scores(4, 4)[:, 2].tolist() == expected[4:8]

    def test_a_mask_larger_than_a_batch(self, predictor: Predictor) -> None:
        queue = SliceQueue(CONFIG, predictor, batch=2)
        queue.add(volume(), mask(0, 4), 1)
        assert (predictor.sizes, queue.done) == ([2, 2], 4)

    def test_what_is_forgotten_does_not_move_what_follows(self, predictor: Predictor) -> None:
        queue = SliceQueue(CONFIG, predictor, batch=4)
        for structure in range(3):
            queue.add(volume(), mask(1, 5), structure)
        queue.forget(4)
        queue.forget(8)
        assert (queue.done, queue.length) == (12, 12)
        assert queue.scores(8, 4)[:, 1].tolist() == [208.0, 209.0, 210.0, 211.0]

    def test_slices_and_their_voxels(self, predictor: Predictor) -> None:
        queue = SliceQueue(CONFIG, predictor, batch=8)
        assert queue.add(volume(), mask(2, 5), 0) == ((2, 3, 4), (20, 25, 30))
        assert queue.add(volume(), mask(0, 8), 0) == ((0, 2, 4, 6), (20, 30, 40, 50)), "4 at most, evenly"
        assert queue.add(volume(), np.zeros(SHAPE, dtype=bool), 0) == ((), ())
        assert queue.length == 7

    def test_slices_count_in_the_orientation_of_the_sentinel(self, predictor: Predictor) -> None:
        queue = SliceQueue(CONFIG, predictor, batch=8)
        assert queue.add(volume(affine=UPSIDE_DOWN), mask(0, 3), 0) == ((5, 6, 7), (30, 25, 20))
        stored = SliceQueue(SentinelConfig(image_size=32, orientation="as_stored"), predictor, batch=8)
        assert stored.add(volume(affine=UPSIDE_DOWN), mask(0, 3), 0) == ((0, 1, 2), (20, 25, 30))

    def test_every_image_is_cut_out_of_itself(self, predictor: Predictor) -> None:
        """Grey values are kept from mask to mask, but not from image to image."""
        dark, light = volume(), volume()
        light.array[:] = light.array[::-1]
        scans = (dark, dark, light, dark)
        for scan in scans:
            alone = SliceQueue(CONFIG, predictor, batch=9)
            alone.add(scan, mask(1, 2), 0)
            alone.finish()
        together = SliceQueue(CONFIG, predictor, batch=9)
        for scan in scans:
            together.add(scan, mask(1, 2), 0)
        together.finish()
        np.testing.assert_array_equal(predictor.slices[4:], predictor.slices[:4])
        assert (predictor.slices[0] != predictor.slices[2]).any()
