import pytest
import torch
from torch import nn

from segmenters.config import SegmenterConfig
from segmenters.deep_features import DeepFeatures
from segmenters.networks import build_network


def network(name: str = "unet") -> nn.Module:
    config = SegmenterConfig(network=name, channels=(4, 8, 16), patch=(16, 16, 16))
    return build_network(config, 3).eval()


class Pyramid(nn.Module):
    """Down to a level of 2 channels, and up again."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv3d(1, 2, 2, stride=2, bias=False)
        self.up = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv3d(2, 5, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.up(self.down(image))


@torch.inference_mode()
def test_they_are_the_mean_activations_of_the_deepest_level() -> None:
    model = Pyramid()
    images = torch.rand(3, 1, 4, 6, 8, generator=torch.Generator().manual_seed(0))
    deep = DeepFeatures(model)
    with deep.collecting():
        model(images[:2])
        model(images[2:])
    expected = model.down(images).mean(dim=(0, 2, 3, 4))
    assert deep.values() == pytest.approx(expected.tolist(), rel=1e-5)


@torch.inference_mode()
def test_nothing_is_heard_outside_of_the_block() -> None:
    model = Pyramid()
    deep = DeepFeatures(model)
    model(torch.ones(1, 1, 4, 4, 4))
    assert deep.values() == ()
    with deep.collecting():
        model(torch.ones(1, 1, 4, 4, 4))
    before = deep.values()
    model(torch.zeros(1, 1, 4, 4, 4))
    assert deep.values() == before
    assert not model._forward_hooks
    with deep.collecting():
        model(torch.zeros(1, 1, 4, 4, 4))
    assert deep.values() == (0.0, 0.0)


@torch.inference_mode()
def test_cases_may_need_windows_of_another_size() -> None:
    model = Pyramid()
    deep = DeepFeatures(model)
    for shape in ((4, 4, 4), (8, 12, 8), (4, 4, 4)):
        image = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(0))
        with deep.collecting():
            model(image)
        expected = model.down(image).mean(dim=(0, 2, 3, 4))
        assert deep.values() == pytest.approx(expected.tolist(), rel=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("name", ["unet", "segresnet", "dynunet"])
def test_networks_have_a_deepest_level(name: str) -> None:
    model = network(name)
    deep = DeepFeatures(model)
    found = []
    for image in (torch.zeros(1, 1, 16, 16, 16), torch.linspace(-1, 1, 4096).reshape(1, 1, 16, 16, 16)):
        with deep.collecting():
            model(image)
        found.append(deep.values())
    assert len(found[0]) >= 8
    assert found[0] != found[1]
