from dataclasses import replace

import pytest
import torch
from torch import nn

from segmenters.config import SegmenterConfig
from segmenters.distributed import ALONE
from segmenters.gradients import add_gradient
from segmenters.loading import Batch
from segmenters.losses import dice_cross_entropy
from segmenters.networks import build_network
from segmenters.preprocessing import IGNORED

CPU = torch.device("cpu")


@pytest.fixture(params=["unet", "segresnet"])
def config(request):
    return SegmenterConfig(
        network=request.param, channels=(4, 8), patch=(8, 12, 16), batch_size=2, precision="float32"
    )


def make_batch(size: int) -> Batch:
    """Patches of which each holds another amount of each structure, and some do not annotate one."""
    channels = torch.zeros(size, 8, 12, 16, dtype=torch.int64)
    for index in range(size):
        channels[index, : 2 + index, :5] = 1
        channels[index, 3:5, 6 : 8 + index % 3] = 2 * (index % 2)
    images = channels[:, None].float() + torch.randn(
        size, 1, 8, 12, 16, generator=torch.Generator().manual_seed(0)
    )
    known = torch.tensor([[True, True, index != 2] for index in range(size)])
    return Batch(images=images, channels=channels, known=known)


def parts(batch: Batch, size: int) -> list[Batch]:
    return [
        Batch(images=images, channels=channels, known=known)
        for images, channels, known in zip(
            batch.images.split(size), batch.channels.split(size), batch.known.split(size), strict=True
        )
    ]


def gradient(config: SegmenterConfig, batches: list[Batch]) -> tuple[dict[str, float], torch.Tensor]:
    network = build_network(config, 3, seed=1).train()
    losses = add_gradient(network, batches, config, CPU, ALONE, seed=0, step=1)
    return losses, torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])


@pytest.mark.parametrize("size", [1, 2, 3])
def test_micro_batches_add_up_to_the_large_batch(config, size):
    batch = make_batch(6)

    losses, whole = gradient(config, [batch])
    found, added = gradient(config, parts(batch, size))

    assert found == pytest.approx(losses, rel=1e-5)
    assert float((added - whole).norm() / whole.norm()) < 1e-4


@pytest.mark.parametrize("size", [1, 2, 3])
def test_micro_batches_with_ignored_slices_add_up_too(config, size):
    batch = make_batch(6)
    batch.channels[1, 3:] = IGNORED
    batch.channels[4, :6] = IGNORED

    losses, whole = gradient(config, [batch])
    found, added = gradient(config, parts(batch, size))

    assert found == pytest.approx(losses, rel=1e-5)
    assert float((added - whole).norm() / whole.norm()) < 1e-4


def test_large_batch_is_not_the_mean_over_micro_batches(config):
    """The Dice is pooled: adding up gradients of the parts' own losses would be another training."""
    batch = make_batch(6)
    _, whole = gradient(config, [batch])
    network = build_network(config, 3, seed=1).train()
    for part in parts(batch, 1):
        terms = dice_cross_entropy(network(part.images), part.channels, part.known)
        ((terms.dice + terms.cross_entropy) / 6).backward()

    apart = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])

    assert float((apart - whole).norm() / whole.norm()) > 0.05


def test_both_looks_at_a_micro_batch_see_the_same_dropout(config):
    dropping = replace(config, dropout=0.5)
    batch = make_batch(2)
    seen: list[torch.Tensor] = []
    network = build_network(dropping, 3, seed=1).train()
    network.register_forward_hook(lambda module, inputs, output: seen.append(output.detach().clone()))

    add_gradient(network, parts(batch, 1), dropping, CPU, ALONE, seed=0, step=1)

    assert torch.equal(seen[0], seen[2])
    assert torch.equal(seen[1], seen[3])
    add_gradient(network, parts(batch, 1), dropping, CPU, ALONE, seed=0, step=2)
    assert not torch.equal(seen[4], seen[0])


class WithStatistics(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm3d(1)
        self.last = nn.Conv3d(1, 3, 1)

    def forward(self, images):
        return self.last(self.norm(images))


def test_running_statistics_count_each_micro_batch_once(config):
    network = WithStatistics().train()

    add_gradient(network, parts(make_batch(3), 1), config, CPU, ALONE, seed=0, step=1)

    assert int(network.norm.num_batches_tracked) == 3
