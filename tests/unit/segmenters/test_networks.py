import pytest
import torch

from cohort.errors import ConfigError
from segmenters.config import NETWORK_NAMES, SegmenterConfig
from segmenters.networks import build_network, to_device


def small(name: str, **values) -> SegmenterConfig:
    return SegmenterConfig(**{"network": name, "channels": (4, 8, 16), "patch": (8, 12, 16), **values})


@pytest.mark.parametrize("name", NETWORK_NAMES)
@pytest.mark.parametrize("values", [{}, {"dropout": 0.2}, {"residual_units": 2}])
def test_logits_have_the_shape_of_the_patch(name, values):
    network = build_network(small(name, **values), 3)

    assert network(torch.zeros(2, 1, 8, 12, 16)).shape == (2, 3, 8, 12, 16)


def test_full_resolution_has_one_halving_less():
    config = SegmenterConfig(channels=(4, 8, 16, 16), patch=(4, 12, 20), full_resolution=True)

    assert config.factor == 4
    assert build_network(config, 3)(torch.zeros(1, 1, 4, 12, 20)).shape == (1, 3, 4, 12, 20)


@pytest.mark.parametrize("name", NETWORK_NAMES)
def test_weights_follow_the_seed_and_leave_the_global_state(name):
    state = torch.random.get_rng_state()
    first, second, other = (build_network(small(name), 3, seed).state_dict() for seed in (1, 1, 2))

    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_segresnet_wants_doubling_channels():
    with pytest.raises(ConfigError, match=r"expected \(4, 8, 16\)"):
        build_network(small("segresnet", channels=(4, 8, 12)), 2)


def test_channels_last_gives_the_same_logits():
    network = build_network(small("unet"), 2).eval()
    patches = torch.randn(1, 1, 8, 12, 16, generator=torch.Generator().manual_seed(0))
    plain = network(patches)

    moved = to_device(network, torch.device("cpu"))(patches)

    torch.testing.assert_close(plain, moved, atol=1e-4, rtol=1e-4)
