import json

import pytest

from cohort.errors import ModelError
from segmenters.descriptions import describe, find_checkpoints, load_checkpoint, read_description


@pytest.fixture
def write(tmp_path):
    def write(step: int, name: str):
        path = tmp_path / name
        path.write_bytes(b"weights %d" % step)
        return describe(path, family="other", step=step, structures=["liver"], details={"plan": [1, 2]})

    return write


def test_checkpoints_of_any_file_type_are_found_in_the_order_of_their_steps(write, tmp_path):
    late, early = write(1000, "step_1000.pth"), write(20, "step_0020.json5")

    assert find_checkpoints(tmp_path) == (early, late)
    assert read_description(late.path)["plan"] == [1, 2]
    assert find_checkpoints(tmp_path / "nowhere") == ()


def test_another_family_is_refused(write):
    with pytest.raises(
        ModelError, match="of the family 'other', but this segmenter is of the family 'torch'"
    ):
        read_description(write(1, "step_0001.pth").path, "torch")


def test_weights_that_changed_are_refused(write):
    saved = write(1, "step_0001.pth")
    saved.path.write_bytes(b"other")

    with pytest.raises(ModelError, match="the weights were replaced or are truncated"):
        load_checkpoint(saved.path)


def test_another_format_is_refused(write):
    beside = write(1, "step_0001.pth").path.with_suffix(".json")
    beside.write_text(json.dumps({**json.loads(beside.read_text()), "format": 9}))

    with pytest.raises(ModelError, match="has format 9, expected 1; train again"):
        find_checkpoints(beside.parent)
