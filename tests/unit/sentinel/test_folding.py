import torch

from sentinel.dense import DenseHead
from sentinel.folding import folded, weights_version
from sentinel.network import QualitySentinel


def trained_alike(network: torch.nn.Module) -> torch.nn.Module:
    """Batch norms whose statistics and scales are not those of a new network."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
            for tensor in (module.bias.data, module.running_mean):
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return network.eval()


def test_a_folded_network_computes_the_same_without_batch_norms() -> None:
    torch.manual_seed(0)
    for backbone in ("resnet18", "resnet50"):
        network = trained_alike(QualitySentinel(backbone=backbone, text_dim=8)).double()
        slices, text = torch.randn(2, 2, 64, 64).double(), torch.randn(2, 8).double()
        with torch.no_grad():
            expected, found = network.pyramid(slices), folded(network).pyramid(slices)
            torch.testing.assert_close(folded(network)(slices, text), network(slices, text))
        for before, after in zip(expected, found, strict=True):
            torch.testing.assert_close(after, before)
        used = [m for n, m in folded(network).named_modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert len(used) <= 1  # the published network carries one that it does not use


def test_a_folded_dense_head_computes_the_same() -> None:
    torch.manual_seed(0)
    head = trained_alike(DenseHead(backbone="resnet18", text_dim=8)).double()
    sizes = ((64, 32), (64, 16), (128, 8), (256, 4), (512, 2))
    pyramid = [torch.randn(2, channels, side, side).double() for channels, side in sizes]
    text = torch.randn(2, 8).double()
    with torch.no_grad():
        torch.testing.assert_close(folded(head)(pyramid, text), head(pyramid, text))
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded(head).modules())


def test_the_network_stays_as_it_is_and_changes_are_noticed() -> None:
    network = QualitySentinel(backbone="resnet18", text_dim=8).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    version = weights_version(network)
    folded(network)
    assert network.training
    assert weights_version(network) == version
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with torch.no_grad():
        network.bn1.running_mean.add_(1.0)
    assert weights_version(network) != version
