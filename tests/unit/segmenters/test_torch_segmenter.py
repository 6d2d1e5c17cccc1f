import math
import os

import numpy as np
import pytest
import torch

from cohort.errors import ConfigError, DataError, ModelError
from cohort.volume import read_label_map
from segmenters.base import load_checkpoint, read_prediction
from segmenters.checkpoints import read_recipe
from segmenters.config import SegmenterConfig
from segmenters.torch_segmenter import TorchSegmenter


@pytest.fixture
def cases(write_case):
    return [write_case("a", 0), write_case("b", 1)]


def test_same_seed_same_weights(cases, structures, config, tmp_path):
    segmenter = TorchSegmenter(config, "cpu")  # on a GPU it is not promised

    (first,) = segmenter.fit(cases, structures, tmp_path / "1", seed=5)
    torch.rand(3)
    (second,) = segmenter.fit(cases, structures, tmp_path / "2", seed=5)
    (other,) = segmenter.fit(cases, structures, tmp_path / "3", seed=6)

    assert first.sha256 == second.sha256
    assert first.sha256 != other.sha256


def test_checkpoints_say_what_they_are(cases, structures, config, tmp_path):
    first, last = TorchSegmenter(config).fit(
        cases, structures, tmp_path, seed=0, steps=4, checkpoint_steps=(2,)
    )

    assert [first.step, last.step] == [2, 4]
    assert load_checkpoint(tmp_path / "step_0004.safetensors") == last
    assert last.structures == ("liver", "spleen")
    assert read_recipe(last.path).spacing_mm == (3.0, 1.0, 0.5)


def test_structure_not_annotated_anywhere_is_not_trained(write_case, as_case, structures, config, tmp_path):
    case = write_case("a", 0, ["spleen"])
    segmenter = TorchSegmenter(config)
    (checkpoint,) = segmenter.fit([case], structures, tmp_path / "w", seed=0, steps=1)

    (prediction,) = segmenter.predict(
        [as_case(case).view()], checkpoint, structures, tmp_path / "p", uncertainty=["entropy"]
    )

    assert checkpoint.structures == ("spleen",)
    assert set(np.unique(read_label_map(prediction.mask).array)) <= {0, 5}
    assert prediction.voxels["liver"] == prediction.slices["liver"] == 0
    assert math.isnan(prediction.uncertainty["entropy"]["liver"])


def test_what_is_there_is_not_predicted_again(cases, as_case, structures, config, tmp_path):
    segmenter = TorchSegmenter(config)
    first, last = segmenter.fit(cases, structures, tmp_path / "w", seed=0, steps=2, checkpoint_steps=[1])
    views = [as_case(case).view() for case in cases]
    out = tmp_path / "p"
    predictions = segmenter.predict(views, first, structures, out)
    assert all(len(prediction.features) == config.channels[-1] for prediction in predictions)
    for prediction in predictions:
        os.utime(prediction.mask, ns=(1, 1))

    again = segmenter.predict(views, first, structures, out)
    assert again == predictions
    assert [p.mask.stat().st_mtime_ns for p in again] == [1, 1]

    predictions[0].mask.unlink()
    segmenter.predict(views, first, structures, out)
    assert predictions[0].mask.stat().st_mtime_ns != 1
    assert predictions[1].mask.stat().st_mtime_ns == 1

    renewed = segmenter.predict(views, last, structures, out, uncertainty=["entropy"])
    assert all(p.mask.stat().st_mtime_ns != 1 for p in renewed)
    assert read_prediction(out / "b.json").checkpoint_sha256 == last.sha256


def test_progress_is_reported(cases, as_case, structures, config, tmp_path):
    segmenter = TorchSegmenter(config)
    heard = []
    (checkpoint,) = segmenter.fit(cases, structures, tmp_path / "w", seed=0, steps=1)

    segmenter.predict(
        [as_case(case).view() for case in cases],
        checkpoint,
        structures,
        tmp_path / "p",
        report=lambda step, total, metrics: heard.append((step, total, dict(metrics))),
    )

    assert heard == [(1, 2, {}), (2, 2, {})]


def test_what_cannot_be_trained_is_named(cases, structures, config, tmp_path):
    segmenter = TorchSegmenter(config)
    with pytest.raises(ModelError, match="no training case"):
        segmenter.fit([], structures, tmp_path, seed=0)
    with pytest.raises(ConfigError, match=r"checkpoint_steps has \[9\], expected steps from 1 to 3"):
        segmenter.fit(cases, structures, tmp_path, seed=0, checkpoint_steps=[2, 9])
    with pytest.raises(ConfigError, match="steps is 0"):
        segmenter.fit(cases, structures, tmp_path, seed=0, steps=0)
    with pytest.raises(ConfigError, match="device is 'tpu'"):
        TorchSegmenter(config, device="tpu")


def test_what_cannot_be_predicted_is_named(cases, as_case, structures, config, tmp_path):
    segmenter = TorchSegmenter(config)
    (checkpoint,) = segmenter.fit(cases, structures, tmp_path / "w", seed=0, steps=1)
    views = [as_case(cases[0]).view()]
    with pytest.raises(ModelError, match="no case to predict"):
        segmenter.predict([], checkpoint, structures, tmp_path)
    with pytest.raises(ConfigError, match="Unknown uncertainty 'vibes'"):
        segmenter.predict(views, checkpoint, structures, tmp_path, uncertainty=["vibes"])
    with pytest.raises(ModelError, match=r"was trained on \['spleen'\], which the cohort does not have"):
        segmenter.predict(views, checkpoint, structures[:1], tmp_path)
    other = TorchSegmenter(SegmenterConfig(network="segresnet", channels=(4, 8), patch=(8, 12, 16)))
    with pytest.raises(ModelError, match="this segmenter is a 'segresnet'"):
        other.predict(views, checkpoint, structures, tmp_path)
    views[0].image.write_bytes(views[0].image.read_bytes()[:100])
    with pytest.raises(DataError, match=r"a.nii.gz cannot be read"):
        segmenter.predict(views, checkpoint, structures, tmp_path / "p")
