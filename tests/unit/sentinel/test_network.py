import pytest
import torch

from cohort.errors import ConfigError
from sentinel.network import QualitySentinel
from sentinel.vision import BACKBONES


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_state_dict_has_the_published_names_and_shapes(backbone: str) -> None:
    features = BACKBONES[backbone]
    state = {
        name: tuple(value.shape) for name, value in QualitySentinel(backbone=backbone).state_dict().items()
    }
    own = {name: shape for name, shape in state.items() if not name.startswith("net.")}
    assert own == {
        "conv1.weight": (64, 2, 7, 7),
        "conv1.bias": (64,),
        "bn1.weight": (64,),
        "bn1.bias": (64,),
        "bn1.running_mean": (64,),
        "bn1.running_var": (64,),
        "bn1.num_batches_tracked": (),
        "fc1.weight": (50, features),
        "fc1.bias": (50,),
        "fc2.weight": (1, 50),
        "fc2.bias": (1,),
        "attention1.weight": (features, features + 512),
        "attention1.bias": (features,),
        "attention2.weight": (50, features + 512),
        "attention2.bias": (50,),
    }
    assert state["net.conv1.weight"] == (64, 3, 7, 7)
    assert state["net.fc.weight"] == (1000, features)


@pytest.mark.parametrize("backbone", sorted(BACKBONES))
def test_every_backbone_scores_each_slice(backbone: str) -> None:
    network = QualitySentinel(backbone=backbone, text_dim=7, hidden_dim=5).eval()
    with torch.inference_mode():
        assert network(torch.zeros(2, 2, 32, 32), torch.ones(2, 7)).shape == (2,)


def test_score_depends_on_image_mask_and_name() -> None:
    torch.manual_seed(0)
    network = QualitySentinel(backbone="resnet18", text_dim=7).eval()
    slices, text = torch.randn(1, 2, 32, 32), torch.randn(1, 7)
    with torch.inference_mode():
        score = network(slices, text)
        for changed in (0, 1):
            other = slices.clone()
            other[:, changed] += torch.randn(32, 32)
            assert not torch.allclose(network(other, text), score)
        assert not torch.allclose(network(slices, text + 1.0), score)


def test_formula_of_the_head() -> None:
    torch.manual_seed(1)
    network = QualitySentinel(backbone="resnet18", text_dim=3).eval()
    slices, text = torch.randn(2, 2, 32, 32), torch.randn(2, 3)
    with torch.inference_mode():
        feature = network.pyramid(slices)[-1].mean(dim=(2, 3))
        joined = torch.cat([feature, text], dim=1)
        hidden = network.fc1(network.attention1(joined) * feature)
        expected = network.fc2(network.attention2(joined) * hidden)[:, 0]
        torch.testing.assert_close(network(slices, text), expected)
    assert feature.shape == (2, 512)


def test_unknown_backbone_lists_the_known() -> None:
    with pytest.raises(ConfigError, match="Unknown backbone 'vgg'; expected one of resnet18, resnet34"):
        QualitySentinel(backbone="vgg")


def test_sizes_below_one_are_refused() -> None:
    with pytest.raises(ConfigError, match="text_dim 0 and hidden_dim 50 must both be at least 1"):
        QualitySentinel(backbone="resnet18", text_dim=0)
