import math

import numpy as np
import pytest

from cohort.errors import DataError
from cohort.volume import read_label_map
from segmenters.predictions import find_prediction, read_prediction, write_prediction


@pytest.fixture
def labels():
    array = np.zeros((8, 12, 16), dtype=np.uint8)
    array[2:5, 1:3, 4:8] = 2
    array[7, 0, 0] = 5
    return array


@pytest.fixture
def written(tmp_path, labels, structures, affine):
    uncertainty = {"entropy": {"liver": 0.25, "spleen": 0.5, "stomach": math.nan}}
    return write_prediction(tmp_path, "a", labels, affine, structures, "sha", uncertainty)


def test_numbers_are_counted_and_come_back(written, tmp_path, labels, affine):
    found = read_prediction(tmp_path / "a.json")

    assert found.voxels == written.voxels == {"liver": 24, "spleen": 1, "stomach": 0}
    assert found.slices == {"liver": 3, "spleen": 1, "stomach": 0}
    assert found.uncertainty["entropy"]["liver"] == 0.25
    assert math.isnan(found.uncertainty["entropy"]["stomach"])
    assert found.mask == tmp_path / "a.nii.gz"
    stored = read_label_map(found.mask)
    assert np.array_equal(stored.array, labels)
    np.testing.assert_allclose(stored.affine, affine)


def test_found_only_where_it_answers_the_question(written, tmp_path, structures):
    assert find_prediction(tmp_path, "a", structures, "sha", ["entropy"]) is not None
    assert find_prediction(tmp_path, "a", structures, "sha", []) is not None
    assert find_prediction(tmp_path, "a", structures, "other", []) is None
    assert find_prediction(tmp_path, "a", structures, "sha", ["entropy", "mc_dropout"]) is None
    assert find_prediction(tmp_path, "a", structures[:2], "sha", []) is None
    assert find_prediction(tmp_path, "b", structures, "sha", []) is None


def test_label_map_without_numbers_and_numbers_without_label_map(written, tmp_path, structures):
    written.mask.unlink()
    with pytest.raises(DataError, match=r"a.nii.gz does not exist, but"):
        read_prediction(tmp_path / "a.json")
    assert find_prediction(tmp_path, "a", structures, "sha", []) is None
    (tmp_path / "a.json").unlink()
    with pytest.raises(DataError, match=r"a.json does not exist"):
        read_prediction(tmp_path / "a.json")


@pytest.mark.parametrize("text", ["", "[]", '{"case_id": "a"}', '{"case_id": "a", "mask": 3}'])
def test_broken_numbers_are_named(tmp_path, text):
    (tmp_path / "a.json").write_text(text)

    with pytest.raises(DataError, match=r"a.json is no prediction .* predict the case again"):
        read_prediction(tmp_path / "a.json")


def test_features_come_back_and_are_left_out_where_there_are_none(
    written, tmp_path, labels, affine, structures
):
    assert "features" not in (tmp_path / "a.json").read_text()
    assert read_prediction(tmp_path / "a.json").features == ()
    write_prediction(tmp_path, "b", labels, affine, structures, "sha", {}, (0.5, -1.25))
    assert read_prediction(tmp_path / "b.json").features == (0.5, -1.25)
