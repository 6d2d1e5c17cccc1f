from dataclasses import replace

import pytest
import torch
from torch import nn

from cohort.errors import ConfigError
from segmenters.config import Augmentation, SegmenterConfig
from segmenters.consistency import MeanTeacher, ramp
from segmenters.torch_segmenter import TorchSegmenter
from segmenters.training_config import Resources, SemiSupervision

STILL = Augmentation(contrast=0.0, gamma=0.0, noise=0.0)


class Scale(nn.Module):
    """Two channels: 0 and the image times a weight."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, images):
        return torch.cat([torch.zeros_like(images), self.weight * images], dim=1)


def teacher(network: nn.Module, weight: float, share: float = 1.0, consistency: float = 2.0) -> MeanTeacher:
    config = SegmenterConfig(
        patch=(16, 16, 16),
        augmentation=STILL,
        precision="float32",
        semi_supervision=SemiSupervision(consistency=consistency),
    )
    return MeanTeacher(
        network=network,
        weights={"weight": torch.tensor(weight)},
        config=config,
        device=torch.device("cpu"),
        share=share,
        seed=0,
    )


@pytest.fixture
def images():
    return torch.ones(2, 1, 2, 2, 2)


def test_a_network_that_agrees_with_its_average_has_no_loss(images):
    network = Scale(0.7)

    found = teacher(network, 0.7).loss(images, network(images), torch.tensor([True, True]), 0)

    assert found.item() == 0.0


def test_the_loss_is_the_weighted_difference_of_probabilities(images):
    network = Scale(1.0)
    found = teacher(network, 0.0, share=0.5, consistency=3.0).loss(
        images, network(images), torch.tensor([True, False]), 0
    )

    difference = torch.sigmoid(torch.tensor(1.0)) - 0.5
    assert found.item() == pytest.approx(0.5 * 3.0 * 2 * float(difference) ** 2)
    (gradient,) = torch.autograd.grad(found, network.parameters())
    assert float(gradient) > 0.0  # towards the teacher's smaller weight


@pytest.mark.parametrize(("pseudo", "share"), [([False, False], 1.0), ([True, True], 0.0)])
def test_annotated_patches_and_the_first_steps_ask_for_nothing(images, pseudo, share):
    network = Scale(1.0)
    found = teacher(network, 0.0, share=share).loss(images, network(images), torch.tensor(pseudo), 0)

    assert found.item() == 0.0


def test_the_weight_rises_and_stays():
    shares = [ramp(step, 100, 0.5) for step in range(1, 101)]

    assert shares == sorted(shares)
    assert shares[49:] == [1.0] * 51
    assert ramp(1, 100, 0.0) == 1.0


def test_consistency_needs_an_average():
    with pytest.raises(ConfigError, match="average_decay is 0"):
        SegmenterConfig(
            patch=(16, 16, 16), average_decay=0.0, semi_supervision=SemiSupervision(consistency=1.0)
        )


class Killed(Exception):
    """What a test stops a training with."""


@pytest.fixture
def fit(write_case, structures, config):
    """Train on two annotated cases and two images."""
    cases = [write_case(name, seed) for seed, name in enumerate("ab")]
    images = [replace(write_case(n, s), pseudo=True, annotated=frozenset()) for s, n in enumerate("cd")]

    def run(out, *, stop_at=None, curve=None, **changes):
        def report(step, total, metrics):
            if curve is not None:
                curve.append(dict(metrics))
            if step == stop_at:
                raise Killed

        asked = replace(config, resources=Resources(save_every=4), **changes)
        segmenter = TorchSegmenter(asked, "cpu")
        return segmenter.fit([*cases, *images], structures, out, seed=5, steps=25, report=report)[-1].sha256

    return run


def test_images_without_masks_change_a_training_by_consistency(fit, tmp_path):
    curve, plain = [], []
    agreeing = fit(tmp_path / "a", curve=curve, semi_supervision=SemiSupervision(consistency=5.0))

    assert fit(tmp_path / "b", curve=plain) != agreeing
    assert all(row["consistency"] >= 0.0 for row in curve)
    assert sum(row["consistency"] for row in curve) > 0.0
    assert not any("consistency" in row for row in plain)


@pytest.mark.parametrize("changes", [{}, {"batch_size": 1, "accumulate": 2}])
def test_an_interrupted_training_ends_with_the_same_bytes(fit, tmp_path, changes):
    settings = {"semi_supervision": SemiSupervision(consistency=5.0), **changes}
    whole = fit(tmp_path / "whole", **settings)
    with pytest.raises(Killed):
        fit(tmp_path / "parts", stop_at=10, **settings)

    assert fit(tmp_path / "parts", **settings) == whole
