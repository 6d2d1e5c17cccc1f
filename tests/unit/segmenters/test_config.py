import json

import pytest

from cohort.errors import ConfigError
from segmenters.config import (
    NETWORK_NAMES,
    Augmentation,
    SegmenterConfig,
    config_from_dict,
    config_to_dict,
)
from segmenters.networks import NETWORKS


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"network": "vnet"}, "network is 'vnet', expected one of dynunet, segresnet, stunet_base,"),
        ({"intensity": "raw"}, "expected one of per_volume_percentile, ct_hu"),
        ({"precision": "float16"}, "expected one of auto, float32, bfloat16"),
        ({"patch": (16, 16, 20)}, "three multiples of 8"),
        ({"patch": (16, 16)}, "three multiples of 8"),
        ({"channels": (16,)}, "two or more"),
        ({"spacing_mm": (1.0, 0.0, 1.0)}, "three sizes above 0"),
        ({"window_hu": (300.0, -200.0)}, "lower below upper"),
        ({"learning_rate": 0.0}, "above 0"),
        ({"learning_rate": float("nan")}, "above 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"overlap": 1.0}, "overlap is 1.0"),
        ({"average_decay": 1.0}, "average_decay is 1.0"),
        ({"steps": 0}, "steps is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"foreground_fraction": 1.5}, "foreground_fraction is 1.5"),
    ],
)
def test_values_out_of_range_are_named(values, message):
    with pytest.raises(ConfigError, match=message):
        SegmenterConfig(**{"patch": (16, 16, 16), **values})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"flip": (True, False)}, "three flags"),
        ({"spatial_probability": -0.1}, "spatial_probability"),
        ({"scale": 1.0}, "scale is 1.0"),
        ({"noise": -1.0}, "noise is -1.0"),
    ],
)
def test_augmentation_out_of_range_is_named(values, message):
    with pytest.raises(ConfigError, match=message):
        Augmentation(**values)


def test_config_comes_back_from_json():
    config = SegmenterConfig(
        patch=(16, 8, 24),
        spacing_mm=(3.0, 1.0, 0.5),
        intensity="ct_hu",
        augmentation=Augmentation(flip=(True, False, False), elastic_mm=2.0),
    )

    assert config_from_dict(json.loads(json.dumps(config_to_dict(config)))) == config


def test_unknown_and_missing_keys_are_errors():
    with pytest.raises(ConfigError, match=r"Unknown segmenter settings \['leaning_rate'\]"):
        config_from_dict({"patch": [16, 16, 16], "leaning_rate": 1.0})
    with pytest.raises(ConfigError, match="patch"):
        config_from_dict({"steps": 5})
    with pytest.raises(ConfigError, match="flop"):
        config_from_dict({"patch": [16, 16, 16], "augmentation": {"flop": True}})


def test_every_name_has_a_network():
    assert sorted(NETWORKS) == sorted(NETWORK_NAMES)
