"""From files to gradients: what a label map says outside of annotated slices must not reach the network."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cohort.slabs import Slab
from cohort.volume import read_label_map
from segmenters.distributed import ALONE
from segmenters.gradients import add_gradient
from segmenters.loading import Patches
from segmenters.networks import build_network
from segmenters.preprocessing import prepare_training_case
from segmenters.torch_segmenter import TorchSegmenter

SLABS = (Slab(first=2, last=3), Slab(first=6, last=6))
SPACING = (2.0, 1.0, 0.5)


def changed(labels: np.ndarray, slices: list[int]) -> np.ndarray:
    """Other labels in some slices."""
    other = labels.copy()
    other[slices] = np.where(labels[slices] == 2, 5, 2)
    return other


@pytest.fixture
def learned(write_case, structures, config):
    """Labels -> losses and gradients of a step on varied patches of two cases, one partly annotated."""

    def run(labels: np.ndarray | None):
        partly = replace(write_case("a", 0, labels=labels), slabs=SLABS)
        prepared = [
            prepare_training_case(case, structures[:2], structures, SPACING, config, np.random.default_rng(0))
            for case in (partly, write_case("b", 1))
        ]
        network = build_network(config, 3, seed=1).train()
        batch = Patches(prepared, SPACING, config, seed=0).batch(range(6))
        losses = add_gradient(network, [batch], config, torch.device("cpu"), ALONE, seed=0, step=1)
        return losses, torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])

    return run


def test_labels_outside_of_annotated_slices_change_neither_loss_nor_gradient(learned, write_case):
    labels = read_label_map(write_case("a", 0).label_map).array
    losses, gradient = learned(labels)

    found, same = learned(changed(labels, [0, 1, 4, 5, 7]))
    assert found == losses
    assert torch.equal(same, gradient)

    found, other = learned(changed(labels, [3]))
    assert found != losses
    assert not torch.equal(other, gradient)


def test_weights_of_a_training_do_not_depend_on_them(write_case, structures, config, tmp_path):
    labels = read_label_map(write_case("a", 0).label_map).array
    made = []
    for number, slices in enumerate(([], [0, 1, 4, 5, 7], [3])):
        case = replace(write_case("a", 0, labels=changed(labels, slices)), slabs=SLABS)
        *_, last = TorchSegmenter(config, "cpu").fit([case], structures, tmp_path / str(number), seed=0)
        made.append(last.sha256)
    assert made[0] == made[1] != made[2]
