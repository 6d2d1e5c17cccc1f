from dataclasses import replace

import numpy as np
import pytest

from cohort.case import Structure
from cohort.errors import GeometryError, ModelError
from cohort.volume import read_label_map, write_volume
from segmenters.nnunet_labels import labelled_cases, nnunet_labels, teaching, to_cohort, to_nnunet


def counts(labelled, structures):
    return {
        item.identifier: np.bincount(
            to_nnunet(read_label_map(item.case.label_map).array, item, structures).ravel(), minlength=5
        )
        for item in labelled
    }


def test_what_may_hide_a_structure_is_ignored(write_case, structures):
    cases = [write_case("a", 0, ["liver"]), write_case("b", 1, ["liver", "spleen"])]
    partial, complete = labelled_cases(cases, structures)
    stored = read_label_map(cases[0].label_map).array

    learned = to_nnunet(stored, partial, structures)
    assert not partial.complete
    np.testing.assert_array_equal(learned == 1, stored == 2)
    np.testing.assert_array_equal(learned == 4, stored != 2)  # the spleen too: it was not annotated

    learned = to_nnunet(stored, complete, structures)
    assert complete.complete  # no case annotates the stomach, so no case has to answer for it
    np.testing.assert_array_equal(learned == 1, stored == 2)
    np.testing.assert_array_equal(learned == 2, stored == 5)
    np.testing.assert_array_equal(learned == 0, stored == 0)


def test_labels_are_consecutive_and_the_one_to_ignore_is_last(structures):
    assert nnunet_labels(structures, ignore=True) == {
        "background": 0,
        "liver": 1,
        "spleen": 2,
        "stomach": 3,
        "ignore": 4,
    }
    assert "ignore" not in nnunet_labels(structures, ignore=False)
    found = to_cohort(np.array([[[0, 1, 2]]], dtype=np.uint8), (0, 5, 9))
    assert found.tolist() == [[[0, 5, 9]]]


def test_names_that_mean_something_else_to_nnunet_are_refused():
    with pytest.raises(ModelError, match=r"structure named 'ignore'.*rename it"):
        nnunet_labels([Structure(name="ignore", label=1)], ignore=False)
    many = [Structure(name=f"s{label}", label=label) for label in range(1, 256)]
    with pytest.raises(ModelError, match="255 structures"):
        nnunet_labels(many, ignore=False)


def test_a_changed_case_is_another_one(write_case, structures):
    both = write_case("b", 1)
    (before, _) = labelled_cases([write_case("a", 0), both], structures)
    (again, _) = labelled_cases([write_case("a", 0), both], structures)
    (other_image, _) = labelled_cases([write_case("a", 2), both], structures)
    (fewer, _) = labelled_cases([write_case("a", 0, ["liver"]), both], structures)
    (alone,) = labelled_cases([write_case("a", 0, ["liver"])], structures)  # then it hides nothing

    found = [item.identifier for item in (before, other_image, fewer, alone)]
    assert again.identifier == before.identifier
    assert len(set(found)) == 4
    assert all(name.startswith("a_") for name in found)


def test_without_background_nothing_is_learned(write_case, structures):
    labelled = labelled_cases([write_case("a", 0, ["liver"]), write_case("b", 1, ["spleen"])], structures)

    with pytest.raises(ModelError, match=r"None of the 2 .* annotates all of \['liver', 'spleen'\]"):
        teaching(labelled, counts(labelled, structures))


def test_without_a_structure_nothing_is_learned(write_case, structures):
    empty = np.zeros((8, 12, 16), dtype=np.uint8)
    labelled = labelled_cases([write_case("a", 0, labels=empty)], structures)

    with pytest.raises(ModelError, match="None of the 1 training cases has a voxel of a structure"):
        teaching(labelled, counts(labelled, structures))


def test_a_case_that_is_ignored_everywhere_is_left_out(write_case, structures):
    empty = np.zeros((8, 12, 16), dtype=np.uint8)
    cases = [
        write_case("a", 0, ["liver"], labels=empty),
        write_case("b", 1),
        write_case("c", 2, labels=empty),
    ]
    labelled = labelled_cases(cases, structures)

    found = teaching(labelled, counts(labelled, structures))

    assert [item.case.case_id for item in found] == ["b", "c"]  # c shows what background is


def test_a_label_map_on_another_grid_is_refused(write_case, structures, affine):
    case, other = write_case("a", 0), write_case("b", 1)
    write_volume(other.label_map, np.zeros((8, 12, 15), dtype=np.uint8), affine)

    with pytest.raises(GeometryError, match=r"b_labels.nii.gz has shape \(8, 12, 15\)"):
        labelled_cases([case, replace(other, image=case.image)], structures)
