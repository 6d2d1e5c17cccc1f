import numpy as np
import pytest
import torch
from torch import nn

from cohort.volume import Volume
from segmenters.config import Augmentation, SegmenterConfig
from segmenters.inference import Windows, labels_on_image, predict_probabilities
from segmenters.networks import build_network
from segmenters.preprocessing import prepare_image
from segmenters.uncertainty import Variation

# swaps the axes: x runs along world z, y along x backwards, z along y
TURNED = np.array([[0, -1.0, 0, 3.0], [0, 0, 3.0, -7.0], [0.5, 0, 0, 11.0], [0, 0, 0, 1.0]])


class Threshold(nn.Module):
    """Logits that grow with the intensity, so that voxels above 0 HU are structure 1."""

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        return torch.cat([-20 * patches, 20 * patches], dim=1)


class LeftRight(nn.Module):
    """Logits that depend on where a voxel lies in the window."""

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        ramp = torch.linspace(-3, 3, patches.shape[-1]).expand_as(patches)
        return torch.cat([torch.zeros_like(ramp), ramp], dim=1)


def make(**values) -> SegmenterConfig:
    return SegmenterConfig(
        channels=(4, 8),
        patch=(8, 8, 8),
        intensity="ct_hu",
        window_hu=(-100.0, 100.0),
        precision="float32",
        **values,
    )


def predict(network, image, spacing_mm, config, windows=None, variation=None) -> torch.Tensor:
    prepared = prepare_image(image, spacing_mm, config)
    return predict_probabilities(
        network, prepared, config, windows or Windows.of(config), variation or Variation()
    )


def blocks(step: int) -> np.ndarray:
    image = np.full((8, 12, 16), -80.0, dtype=np.float32)
    image[: 2 * step, 4:9, 2:11] = 90.0
    return image


@pytest.mark.parametrize("spacing_mm", [(0.5, 3.0, 1.0), (0.5, 1.5, 1.0)])
def test_label_map_lies_on_the_stored_grid(spacing_mm):
    image = Volume(array=blocks(2), affine=TURNED)

    prob = predict(Threshold(), image, spacing_mm, make())
    labels = labels_on_image(prob, image, (0, 7))

    np.testing.assert_allclose(prob.sum(dim=0).numpy(), 1.0, atol=1e-5)
    assert labels.shape == (8, 12, 16)
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, np.where(image.array > 0, 7, 0))


def test_probabilities_are_canonical_at_the_recipes_spacing():
    image = Volume(array=blocks(2), affine=TURNED)

    prob = predict(Threshold(), image, (1.0, 3.0, 1.0), make())

    # canonical (z, y, x) is stored (x: 16 of 0.5 mm, z: 8 of 3 mm, y: 12 of 1 mm)
    assert prob.shape == (2, 8, 8, 12)


def test_mirroring_averages_both_sides():
    image = Volume(array=blocks(2), affine=np.diag([1.0, 1.0, 1.0, 1.0]))
    mirrored = make(mirror=True, augmentation=Augmentation(flip=(False, False, True)))
    whole = Windows(overlap=0.5, batch=1, mirror=(False, False, False))

    plain = predict(LeftRight(), image, (1.0, 1.0, 1.0), mirrored, whole)
    averaged = predict(LeftRight(), image, (1.0, 1.0, 1.0), mirrored)

    assert not torch.allclose(plain, plain.flip(3), atol=1e-3)
    torch.testing.assert_close(averaged, averaged.flip(3))


def test_a_pass_with_dropout_is_one_draw_and_no_mean_over_mirrorings():
    image = Volume(array=blocks(2), affine=np.diag([1.0, 1.0, 1.0, 1.0]))
    mirrored = make(mirror=True, augmentation=Augmentation(flip=(False, False, True)))
    whole = Windows(overlap=0.5, batch=1, mirror=(False, False, False))

    plain = predict(LeftRight(), image, (1.0, 1.0, 1.0), mirrored, whole)
    drawn = predict(LeftRight(), image, (1.0, 1.0, 1.0), mirrored, variation=Variation(dropout=True, seed=3))

    torch.testing.assert_close(drawn, plain)


def test_one_voxel_thick_volume_fits_any_patch():
    image = Volume(array=np.full((1, 3, 5), 50.0, dtype=np.float32), affine=np.diag([1.0, 1.0, 1.0, 1.0]))

    prob = predict(Threshold(), image, (1.0, 1.0, 1.0), make())

    assert (labels_on_image(prob, image, (0, 4)) == 4).all()


@pytest.mark.parametrize("variation", [Variation(dropout=True, seed=3), Variation(noise=0.2, seed=3)])
def test_varied_passes_differ_and_repeat_with_their_seed(variation):
    image = Volume(array=blocks(2), affine=np.diag([1.0, 1.0, 1.0, 1.0]))
    config = make(dropout=0.5)
    network = build_network(config, 2).eval()
    state = torch.random.get_rng_state()

    plain, first, second, after = (
        predict(network, image, (1.0, 1.0, 1.0), config, variation=chosen)
        for chosen in (None, variation, variation, None)
    )

    assert torch.equal(plain, after)
    assert torch.equal(first, second)
    assert not torch.allclose(plain, first, atol=1e-4)
    assert torch.equal(state, torch.random.get_rng_state())
