import pytest

from cohort.errors import ConfigError
from segmenters.config import SegmenterConfig


@pytest.mark.parametrize(
    ("network", "channels", "factors"),
    [
        ("unet", (16, 32, 64, 128), (8, 8, 8)),
        ("segresnet", (16, 32, 64, 128), (8, 8, 8)),
        ("dynunet", (32, 64, 128, 256), (8, 8, 8)),
        ("swinunetr", (24,), (32, 32, 32)),
        ("stunet_small", (16, 32, 64, 128, 256, 256), (32, 32, 32)),
        ("stunet_huge", (96, 192, 384, 768, 1536, 1536), (32, 32, 32)),
    ],
)
def test_a_network_brings_its_usual_channels(network, channels, factors):
    config = SegmenterConfig(network=network, patch=(32, 32, 64))

    assert config.channels == channels
    assert config.factors == factors


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"network": "swinunetr", "channels": (24, 48)}, r"one number.* multiple of 12"),
        ({"network": "swinunetr", "channels": (16,)}, r"channels is \(16,\).* multiple of 12"),
        (
            {"network": "swinunetr", "patch": (32, 48, 64)},
            r"patch is \(32, 48, 64\), expected three multiples of 32, because the levels of swinunetr",
        ),
        ({"network": "stunet_base", "patch": (32, 48, 64)}, r"multiples of 32.* levels of stunet_base"),
        (
            {"network": "stunet_base", "patch": (32, 32, 32)},
            r"single voxel at the lowest level of stunet_base",
        ),
        ({"patch": (8, 8, 8)}, r"single voxel at the lowest level of unet"),
        ({"network": "dynunet", "channels": (8, 16)}, r"three or more numbers of feature maps for dynunet"),
        ({"network": "segresnet", "strides": ((1, 2, 2),) * 3}, r"segresnet always halves; .* dynunet"),
        ({"network": "swinunetr", "strides": ((2, 2, 2),) * 5}, r"swinunetr always halves"),
        ({"strides": ((1, 2, 2),)}, r"expected 3 triples \(D, H, W\) of 1 or 2"),
        ({"strides": ((1, 2, 2), (2, 2, 2), (3, 2, 2))}, r"expected 3 triples \(D, H, W\) of 1 or 2"),
        ({"strides": ((1, 2, 2),) * 3, "full_resolution": True}, r"leave full_resolution out"),
        ({"strides": ((1, 2, 2),) * 3, "patch": (5, 12, 16)}, r"multiples of \(1, 8, 8\) in \(D, H, W\)"),
    ],
)
def test_what_a_network_cannot_be_is_said(values, message):
    with pytest.raises(ConfigError, match=message):
        SegmenterConfig(**{"patch": (64, 64, 64), **values})


def test_a_single_voxel_may_be_left_where_voxels_are_not_normalised_over():
    assert SegmenterConfig(network="segresnet", patch=(8, 8, 8)).factors == (8, 8, 8)
