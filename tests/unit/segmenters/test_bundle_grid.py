import numpy as np
import torch

from segmenters.bundle_grid import channels_on_grid, grid_spacing, most_probable_on_grid, onto_grid

# voxel (x, y, z) runs right, forward and up in steps of 1, 2 and 4 mm
SOURCE = np.array([[1.0, 0, 0, 10.0], [0, 2.0, 0, -6.0], [0, 0, 4.0, 3.0], [0, 0, 0, 1.0]])


def test_a_ramp_stays_what_it_is_in_the_world():
    """Linear interpolation is exact on a function that is linear in millimetres, whatever the axes do."""
    target = np.array([[0, -0.5, 0, 14.0], [0, 0, 1.5, -5.0], [3.0, 0, 0, 4.0], [0, 0, 0, 1.0]])
    place = np.stack([*np.indices((7, 5, 6)), np.ones((7, 5, 6))]).astype(float)
    x, y, z, _ = np.tensordot(SOURCE, place, axes=1)
    ramp = torch.from_numpy((x + 10 * y + 100 * z).astype(np.float32))

    found = onto_grid(ramp, SOURCE, target, (5, 6, 4))

    inside = np.stack([*np.indices((5, 6, 4)), np.ones((5, 6, 4))]).astype(float)
    x, y, z, _ = np.tensordot(target, inside, axes=1)
    np.testing.assert_allclose(found.numpy(), x + 10 * y + 100 * z, rtol=1e-5)


def test_the_same_grid_is_not_touched():
    values = torch.rand(3, 4, 5)

    assert onto_grid(values, SOURCE, SOURCE.copy(), (3, 4, 5)) is values


def test_outside_is_the_first_channel():
    prob = torch.stack([torch.full((2, 2, 2), 0.2), torch.full((2, 2, 2), 0.8)])
    target = SOURCE.copy()
    target[0, 3] -= 2.0

    found = most_probable_on_grid(prob, SOURCE, target, (5, 2, 2))

    assert found[:, 0, 0].tolist() == [0, 0, 1, 1, 0]


def test_a_label_covers_what_it_covers_most():
    channels = np.zeros((6, 2, 2), dtype=np.uint8)
    channels[2:] = 7
    coarse = SOURCE @ np.diag([2.0, 1.0, 1.0, 1.0])

    assert channels_on_grid(channels, SOURCE, coarse, (3, 2, 2))[:, 0, 0].tolist() == [0, 7, 7]


def test_spacing_is_the_length_of_the_columns():
    turned = SOURCE[:, [1, 2, 0, 3]]

    assert grid_spacing(turned) == (2.0, 4.0, 1.0)
