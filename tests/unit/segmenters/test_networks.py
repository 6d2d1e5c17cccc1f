import pytest
import torch

from cohort.errors import ConfigError
from segmenters.architectures import ARCHITECTURES
from segmenters.config import NETWORK_NAMES, SegmenterConfig
from segmenters.networks import build_network, to_device

SUPERVISED = ["dynunet", "stunet_small", "stunet_huge"]
STRIDED = [name for name, found in ARCHITECTURES.items() if found.takes_strides]


def small(name: str, **values) -> SegmenterConfig:
    least = {"channels": (4, 8, 16), "patch": (8, 12, 16)}
    if name == "swinunetr":
        least = {"channels": (12,), "patch": (32, 32, 64)}
    return SegmenterConfig(**{"network": name, **least, **values})


@pytest.mark.parametrize("name", NETWORK_NAMES)
@pytest.mark.parametrize("values", [{}, {"dropout": 0.2}, {"residual_units": 2}])
def test_logits_have_the_shape_of_the_patch(name, values):
    config = small(name, **values)
    network = build_network(config, 3).eval()

    with torch.inference_mode():
        assert network(torch.zeros(1, 1, *config.patch)).shape == (1, 3, *config.patch)


@pytest.mark.parametrize("name", SUPERVISED)
def test_deep_supervision_gives_every_level_in_training_alone(name):
    network = build_network(small(name), 3)
    patches = torch.zeros(2, 1, 8, 12, 16)

    levels = [tuple(found.shape) for found in network.train()(patches)]

    assert levels == [(2, 3, 8, 12, 16), (2, 3, 4, 6, 8)]
    assert network.eval()(patches).shape == (2, 3, 8, 12, 16)
    without = build_network(small(name, deep_supervision=False), 3).train()
    assert without(patches).shape == (2, 3, 8, 12, 16)


@pytest.mark.parametrize("name", STRIDED)
def test_strides_leave_thick_slices_alone(name):
    config = small(name, strides=((1, 2, 2), (1, 2, 2)), patch=(3, 12, 16))

    assert config.factors == (1, 4, 4)
    assert build_network(config, 3).eval()(torch.zeros(1, 1, 3, 12, 16)).shape == (1, 3, 3, 12, 16)


@pytest.mark.parametrize("name", STRIDED)
def test_strides_do_not_change_the_weights(name):
    thick = small(name, strides=((1, 2, 2), (2, 2, 2)), deep_supervision=False)
    halved, unequal = (
        {key: value.shape for key, value in build_network(config, 3).state_dict().items()}
        for config in (small(name, deep_supervision=False), thick)
    )

    if name == "dynunet":  # the size of its upsampling kernels is that of the strides
        assert halved.keys() == unequal.keys()
    else:
        assert halved == unequal


def test_full_resolution_has_one_halving_less():
    config = SegmenterConfig(channels=(4, 8, 16, 16), patch=(4, 12, 20), full_resolution=True)

    assert config.factors == (4, 4, 4)
    assert build_network(config, 3)(torch.zeros(1, 1, 4, 12, 20)).shape == (1, 3, 4, 12, 20)


@pytest.mark.parametrize("name", NETWORK_NAMES)
def test_weights_follow_the_seed_and_leave_the_global_state(name):
    state = torch.random.get_rng_state()
    first, second, other = (build_network(small(name), 3, seed).state_dict() for seed in (1, 1, 2))

    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", NETWORK_NAMES)
def test_heads_are_the_weights_that_depend_on_the_classes(name):
    few, many = (build_network(small(name), classes).state_dict() for classes in (2, 5))
    changed = {key for key in few if few[key].shape != many[key].shape}

    heads = {key for key in few if key.startswith(ARCHITECTURES[name].heads)}

    assert changed
    assert changed <= heads
    assert len(heads) - len(changed) <= 1  # the U-Net's last activation has one number for all classes


@pytest.mark.parametrize("name", NETWORK_NAMES)
def test_no_weight_has_two_names(name):
    state = build_network(small(name), 3).state_dict()

    assert len({value.data_ptr() for value in state.values()}) == len(state)


def test_dropout_spares_the_logits_of_dynunet():
    network = build_network(small("dynunet", dropout=0.9), 2).train()
    torch.nn.init.constant_(network.output_block.conv.conv.bias, 100.0)
    torch.nn.init.zeros_(network.output_block.conv.conv.weight)

    finest = network(torch.zeros(1, 1, 8, 12, 16))[0]

    assert bool((finest == 100.0).all())


def test_segresnet_wants_doubling_channels():
    with pytest.raises(ConfigError, match=r"expected \(4, 8, 16\)"):
        build_network(small("segresnet", channels=(4, 8, 12)), 2)


@pytest.mark.parametrize("name", ["dynunet", "stunet_small", "unet"])
def test_channels_last_gives_the_same_logits(name):
    network = build_network(small(name), 2).eval()
    patches = torch.randn(1, 1, 8, 12, 16, generator=torch.Generator().manual_seed(0))
    plain = network(patches)

    moved = to_device(network, torch.device("cpu"))(patches)

    torch.testing.assert_close(plain, moved, atol=1e-4, rtol=1e-4)
