import numpy as np
import pytest

from cohort.errors import DataError
from cohort.slabs import Slab, bounds, cropped, from_bounds, slabs_around, slabs_of, slices_in, union, within


def slab(first: int, last: int) -> Slab:
    return Slab(first=first, last=last)


class TestSlab:
    def test_its_name_tells_both_ends_and_reads_back(self) -> None:
        found = slab(12, 15)
        assert (found.name, found.thickness) == ("slices 12-15", 4)
        assert Slab.named(found.name) == found
        assert np.arange(20)[found.range].tolist() == [12, 13, 14, 15]

    @pytest.mark.parametrize(("first", "last"), [(-1, 2), (4, 3)])
    def test_one_without_a_slice_is_refused(self, first: int, last: int) -> None:
        with pytest.raises(DataError, match=f"from slice {first} to {last} holds none"):
            slab(first, last)

    @pytest.mark.parametrize("name", ["", "liver", "slices 3", "slices 1-2-3"])
    def test_other_text_names_none(self, name: str) -> None:
        with pytest.raises(DataError, match="names no slab; expected text such as 'slices 12-15'"):
            Slab.named(name)


class TestDivision:
    @pytest.mark.parametrize("thickness", range(1, 12))
    def test_every_slice_lies_in_one_slab(self, thickness: int) -> None:
        slabs = slabs_of(10, thickness)
        assert [index for each in slabs for index in range(each.first, each.last + 1)] == list(range(10))
        assert all(each.thickness == thickness for each in slabs[:-1])
        assert slabs[-1].thickness <= thickness

    def test_nothing_cannot_be_divided(self) -> None:
        with pytest.raises(DataError, match="0 slices cannot be divided into slabs of 4"):
            slabs_of(0, 4)

    def test_one_more_slab_on_either_side_of_what_was_found(self) -> None:
        found = np.zeros(22, dtype=bool)
        found[[5, 18]] = True
        assert slabs_around(found, 4) == slabs_of(22, 4)
        assert slabs_around(found, 2) == (
            slab(2, 3), slab(4, 5), slab(6, 7), slab(16, 17), slab(18, 19), slab(20, 21),
        )  # fmt: skip

    def test_the_ends_of_a_case_have_no_neighbour(self) -> None:
        found = np.zeros(8, dtype=bool)
        found[0] = True
        assert slabs_around(found, 2) == (slab(0, 1), slab(2, 3))

    def test_where_nothing_was_found_every_slab_counts(self) -> None:
        assert slabs_around(np.zeros(7, dtype=bool), 3) == slabs_of(7, 3)


class TestParts:
    ARRAY = np.arange(6 * 2 * 3).reshape(6, 2, 3)

    def test_which_slices_lie_in_slabs(self) -> None:
        assert slices_in([slab(4, 4), slab(0, 1)], 6).tolist() == [True, True, False, False, True, False]

    def test_a_crop_is_these_slices_and_no_slabs_are_the_whole(self) -> None:
        np.testing.assert_array_equal(cropped(self.ARRAY, [slab(1, 2), slab(5, 5)]), self.ARRAY[[1, 2, 5]])
        assert cropped(self.ARRAY, ()) is self.ARRAY

    def test_outside_of_slabs_another_array_counts(self) -> None:
        found = within(self.ARRAY.astype(np.uint8), 0, [slab(1, 2)])
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found[1:3], self.ARRAY[1:3])
        assert not found[[0, 3, 4, 5]].any()
        assert within(self.ARRAY, 0, ()) is self.ARRAY

    def test_a_slab_beyond_the_volume_is_refused(self) -> None:
        with pytest.raises(DataError, match="slices 4-7 reach beyond a volume of 6 slices"):
            cropped(self.ARRAY, [slab(4, 7)])


def test_slabs_survive_json() -> None:
    slabs = (slab(0, 3), slab(8, 9))
    assert bounds(slabs) == [[0, 3], [8, 9]]
    assert from_bounds(bounds(slabs)) == slabs


def test_slabs_of_a_case_add_up_and_the_whole_case_holds_all() -> None:
    one, other = slab(0, 3), slab(8, 9)
    assert union((other,), (one, other)) == (one, other)
    assert union((one,), ()) == union((), (one,)) == ()
