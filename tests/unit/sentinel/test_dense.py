"""The dense head: its shapes, its loss, and the overlap of a mask with what it draws."""

import math

import pytest
import torch

from sentinel.dense import DenseHead, dense_loss, drawn_overlap, halved
from sentinel.network import QualitySentinel


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_draws_at_half_resolution(backbone: str) -> None:
    torch.manual_seed(0)
    network, head = QualitySentinel(backbone=backbone, text_dim=3), DenseHead(backbone=backbone, text_dim=3)
    text = torch.randn(2, 3)
    pyramid = network.eval().pyramid(torch.randn(2, 2, 40, 56))
    drawn = head.eval()(pyramid, text)
    assert drawn.shape == (2, 20, 28)
    assert not torch.allclose(drawn, head(pyramid, text + 1.0)), "the structure's name counts"


def test_halved() -> None:
    plane = torch.tensor([[[0, 255, 255, 255], [0, 255, 255, 255]]], dtype=torch.uint8)
    assert halved(plane).tolist() == [[[0.5, 1.0]]]


def test_the_loss_of_what_is_drawn_right_is_smallest() -> None:
    reference = torch.zeros(1, 4, 4)
    reference[:, :2] = 1.0
    right, nothing, wrong = 20.0 * reference - 10.0, torch.zeros(1, 4, 4), 10.0 - 20.0 * reference
    losses = [float(dense_loss(logits, reference)) for logits in (right, nothing, wrong)]
    assert losses[0] == pytest.approx(0.0, abs=1e-3)
    assert losses[0] < losses[1] < losses[2]
    assert losses[1] == pytest.approx(math.log(2.0) + 1.0 - (8.0 + 1.0) / (8.0 + 8.0 + 1.0), abs=1e-5)


def test_overlap_is_relative_to_the_mask() -> None:
    mask = torch.zeros(1, 2, 4)
    mask[:, 0] = 1.0
    logits = torch.full((1, 2, 4), -100.0)
    logits[:, 0, :3] = 100.0
    logits[:, 1, :2] = 100.0
    assert drawn_overlap(logits, mask).tolist() == [[0.75, 1.25]]


def test_a_mask_of_less_than_half_a_pixel_is_not_compared() -> None:
    masks = torch.zeros(2, 2, 4)
    masks[0, 0, 0], masks[1, 0, 0] = 0.4, 0.6
    found = drawn_overlap(torch.zeros(2, 2, 4), masks)
    assert found[0].isnan().all()
    assert found[1].tolist() == pytest.approx([0.5, 4.0 / 0.6])
