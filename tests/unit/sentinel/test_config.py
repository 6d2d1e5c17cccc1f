import pytest

from cohort.errors import ConfigError
from sentinel.config import SentinelConfig


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"backbone": "vgg"}, "backbone is 'vgg', expected one of resnet18"),
        ({"intensity": "mr"}, "intensity is 'mr'"),
        ({"orientation": "LPS"}, "orientation is 'LPS'"),
        ({"margin_unit": "cm"}, "margin_unit is 'cm'"),
        ({"margin": 0.0}, r"margin is 0.0, expected more than 0"),
        ({"image_size": 16}, "image_size is 16, expected at least 32"),
        ({"batch_size": 1}, "batch_size is 1, expected at least 2"),
        ({"steps": -1}, "steps is -1"),
        ({"max_slices": 0}, "max_slices is 0"),
        ({"volume_weight": 1.5}, "volume_weight is 1.5, expected 0 to 1"),
        ({"validation_fraction": 1.0}, "validation_fraction is 1.0"),
        ({"precision": "float16"}, "precision is 'float16'"),
        ({"unknown_names": "guess"}, "unknown_names is 'guess'"),
    ],
)
def test_mistakes_are_named(changes: dict[str, object], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        SentinelConfig(**changes)


def test_margin_in_voxels_ignores_spacing() -> None:
    assert SentinelConfig(margin=20.0).margin_voxels((3.0, 1.0, 0.5)) == (20, 20)


def test_margin_in_mm_goes_by_the_spacing_of_rows_and_columns() -> None:
    config = SentinelConfig(margin=4.0, margin_unit="mm")
    assert config.margin_voxels((3.0, 1.0, 0.5)) == (4, 8)
    assert config.margin_voxels((3.0, 100.0, 100.0)) == (1, 1)
