import pytest

from cohort.errors import ConfigError
from segmenters.config import SegmenterConfig, config_from_dict, config_to_dict
from segmenters.training_config import EarlyStopping, Resources


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (EarlyStopping, {"fraction": 1.0}, r"early_stopping\.fraction is 1\.0"),
        (EarlyStopping, {"validate_every": 0}, r"early_stopping\.validate_every is 0"),
        (EarlyStopping, {"patience": 0}, r"early_stopping\.patience is 0"),
        (Resources, {"cache_gib": -1.0}, r"resources\.cache_gib is -1\.0"),
        (Resources, {"loaders": -1}, r"resources\.loaders is -1"),
        (Resources, {"save_every": -5}, r"resources\.save_every is -5"),
    ],
)
def test_values_out_of_range_are_named(kind, values, message):
    with pytest.raises(ConfigError, match=message):
        kind(**values)


def test_a_batch_is_shared_evenly():
    assert SegmenterConfig(patch=(16, 16, 16), batch_size=6, processes=3).processes == 3
    with pytest.raises(ConfigError, match=r"batch_size is 4, but 3 processes .* a multiple of 3"):
        SegmenterConfig(patch=(16, 16, 16), batch_size=4, processes=3)
    with pytest.raises(ConfigError, match="accumulate is 0"):
        SegmenterConfig(patch=(16, 16, 16), accumulate=0)


def test_by_default_one_process_trains_to_the_last_step():
    config = SegmenterConfig(patch=(16, 16, 16))

    assert (config.processes, config.accumulate, config.early_stopping.fraction) == (1, 1, 0.0)


def test_parts_come_back_from_json():
    config = SegmenterConfig(
        patch=(16, 16, 16),
        early_stopping=EarlyStopping(fraction=0.2, patience=3),
        resources=Resources(cache_gib=0.5, loaders=3, save_every=7),
    )

    assert config_from_dict(config_to_dict(config)) == config
    with pytest.raises(ConfigError, match="do not fit"):
        config_from_dict({**config_to_dict(config), "resources": {"gpus": 8}})
