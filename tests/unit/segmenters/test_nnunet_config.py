import pytest

from cohort.errors import ConfigError
from segmenters.nnunet_config import NnUNetConfig


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"configuration": "3d"}, "configuration is '3d', expected one of 2d, 3d_fullres, 3d_lowres"),
        ({"modality": "PET"}, "modality is 'PET', expected one of CT, MRI"),
        ({"steps": 0}, "steps is 0"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"overlap": 1.0}, "overlap is 1.0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"mirror": True, "train_mirror": False}, "mirror is true, but train_mirror is false"),
    ],
)
def test_values_out_of_range_are_named(values, message):
    with pytest.raises(ConfigError, match=message):
        NnUNetConfig(**values)


def test_what_a_table_calls_it_and_what_it_measures():
    config = NnUNetConfig(configuration="2d")

    assert config.architecture == "nnunet-2d"
    assert config.measures == {"entropy", "inconsistency"}
