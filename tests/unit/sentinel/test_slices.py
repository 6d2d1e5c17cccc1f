import numpy as np
import pytest
import torch
from PIL import Image

from cohort.errors import ConfigError, DataError
from cohort.volume import Grid, Volume
from sentinel.slices import (
    Crop,
    choose_slices,
    crop_around,
    cut_slice,
    grey_values,
    normalise,
    oriented,
    stored_slices,
)


def test_few_slices_are_all_chosen() -> None:
    mask = np.zeros((8, 12, 16), dtype=bool)
    mask[[1, 2, 5], 3, 4] = True
    assert choose_slices(mask, 10) == (1, 2, 5)


def test_many_slices_are_thinned_as_published() -> None:
    mask = np.zeros((20, 2, 2), dtype=bool)
    mask[3:16] = True
    assert choose_slices(mask, 10) == tuple(3 + int(13 / 10 * i) for i in range(10))


def test_empty_mask_has_no_slices() -> None:
    assert choose_slices(np.zeros((8, 12, 16), dtype=bool)) == ()


def test_crop_by_hand() -> None:
    plane = np.zeros((100, 200), dtype=bool)
    plane[40:44, 90:111] = True
    # rows 40..43 -> 20..63 (43 long), columns 90..110 -> 70..130 (60 long): 17 // 2 more rows on each side
    assert crop_around(plane, (20, 20)) == Crop(top=12, bottom=71, left=70, right=130)


def test_crop_is_clamped_and_grows_columns() -> None:
    plane = np.zeros((30, 12), dtype=bool)
    plane[2:29, 5] = True
    assert crop_around(plane, (3, 1)) == Crop(top=0, bottom=30, left=0, right=12)


def test_crop_holds_something_even_in_a_corner() -> None:
    plane = np.zeros((5, 5), dtype=bool)
    plane[0, 0] = True
    assert crop_around(plane, (1, 1)).of(plane).any()


def test_crop_of_an_empty_slice() -> None:
    with pytest.raises(DataError, match="no bounding box"):
        crop_around(np.zeros((4, 5), dtype=bool), (1, 1))


def test_hounsfield_window_rounds_down() -> None:
    image = np.array([[[-1000.0, -200.0, -199.0, 0.0, 199.9, 200.0, 3000.0]]], dtype=np.float32)
    assert grey_values(image, "ct_hu").tolist() == [[[0, 0, 0, 127, 254, 255, 255]]]


def test_percentiles_do_not_depend_on_scale() -> None:
    image = np.random.default_rng(0).normal(size=(8, 12, 16)).astype(np.float32)
    first, second = (
        grey_values(image, "per_volume_percentile"),
        grey_values(image * 8.0 + 32.0, "per_volume_percentile"),
    )
    assert np.abs(first.astype(int) - second).max() <= 1
    assert (first.min(), first.max()) == (0, 255)


def test_volume_without_contrast() -> None:
    assert not grey_values(np.full((2, 3, 4), 7.0, dtype=np.float32), "per_volume_percentile").any()


def test_unknown_intensity() -> None:
    with pytest.raises(ConfigError, match="Unknown intensity 'mr'"):
        grey_values(np.zeros((2, 3, 4), dtype=np.float32), "mr")


@pytest.mark.parametrize(("size", "tolerance"), [(64, 0), (7, 1)])
def test_resizing_is_pillows(size: int, tolerance: int) -> None:
    rng = np.random.default_rng(1)
    grey, plane = rng.integers(0, 256, (30, 41), dtype=np.uint8), rng.random((30, 41)) < 0.5
    crop = Crop(top=2, bottom=27, left=3, right=40)
    cut = cut_slice((grey, plane), crop, size)
    for channel, source in ((0, grey), (1, plane.astype(np.uint8) * 255)):
        resized = Image.fromarray(np.ascontiguousarray(crop.of(source))).resize(
            (size, size), Image.Resampling.BILINEAR
        )
        assert np.abs(cut[channel].numpy().astype(int) - np.asarray(resized)).max() <= tolerance


def test_normalisation() -> None:
    slices = torch.tensor([0, 255], dtype=torch.uint8).view(1, 2, 1, 1).expand(1, 2, 2, 2)
    assert normalise(slices)[0, :, 0, 0].tolist() == [-2.0, 1.0]
    assert normalise(255 - slices)[0, :, 0, 0].tolist() == [2.0, -1.0]


def test_canonical_orientation_turns_and_as_stored_does_not() -> None:
    array = np.arange(8 * 12 * 16, dtype=np.float32).reshape(8, 12, 16)
    affine = np.diag([-0.5, 1.0, -3.0, 1.0])
    volume = Volume(array=array, affine=affine)
    np.testing.assert_array_equal(oriented(volume, "canonical").array, array[::-1, :, ::-1])
    np.testing.assert_array_equal(oriented(volume, "as_stored").array, array)


class TestStoredSlices:
    @pytest.mark.parametrize("direction", [1.0, -1.0])
    def test_a_canonical_slice_is_found_again_in_the_file(self, direction: float) -> None:
        array = np.arange(5, dtype=np.uint8)[:, None, None] * np.ones((1, 3, 2), dtype=np.uint8)
        affine = np.diag([-0.5, 1.0, direction * 3.0, 1.0])
        canonical = oriented(Volume(array=array, affine=affine), "canonical")
        found = stored_slices((0, 1, 4), Grid(shape=(5, 3, 2), affine=affine))
        assert found == tuple(int(canonical.array[index, 0, 0]) for index in (0, 1, 4))

    def test_a_file_that_is_sliced_along_another_axis_has_none(self) -> None:
        affine = np.array([[0, 0, 3.0, 0], [1.0, 0, 0, 0], [0, 0.5, 0, 0], [0, 0, 0, 1.0]])
        assert stored_slices((0, 1), Grid(shape=(5, 3, 2), affine=affine)) is None
