import pytest
import torch

from segmenters.resampling import resample_labels, resample_linear, resampled_shape


def test_shape_at_another_spacing():
    assert resampled_shape((8, 12, 16), (3.0, 1.0, 0.5), (1.5, 1.0, 1.0)) == (16, 12, 8)
    assert resampled_shape((8, 12, 16), (3.0, 1.0, 0.5), (3.001, 1.0, 0.5)) == (8, 12, 16)
    assert resampled_shape((1, 1, 1), (1.0, 1.0, 1.0), (5.0, 5.0, 5.0)) == (1, 1, 1)


def test_equal_shape_changes_nothing():
    volume = torch.arange(8 * 12 * 16, dtype=torch.float32).reshape(8, 12, 16)

    assert torch.equal(resample_linear(volume, (8, 12, 16)), volume)


def test_hand_derived_doubling_and_halving():
    line = torch.tensor([[[0.0, 4.0]]])

    assert resample_linear(line, (1, 1, 4)).flatten().tolist() == [0.0, 1.0, 3.0, 4.0]
    # a triangle of half width 2 around 0.5: voxels at distance 0.5, 0.5, 1.5 weigh 0.75, 0.75, 0.25
    halved = resample_linear(torch.tensor([[[0.0, 1.0, 2.0, 3.0]]]), (1, 1, 2))
    assert halved.flatten().tolist() == pytest.approx([(0.75 + 0.5) / 1.75, (0.25 + 1.5 + 2.25) / 1.75])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_upsampling_equals_torch_along_each_axis(axis):
    volume = torch.rand(2, 8, 12, 16, generator=torch.Generator().manual_seed(1))
    shape = [8, 12, 16]
    shape[axis] = 2 * shape[axis] + 3

    expected = torch.nn.functional.interpolate(volume[None], size=shape, mode="trilinear")[0]

    torch.testing.assert_close(resample_linear(volume, (shape[0], shape[1], shape[2])), expected)


def test_label_map_takes_the_label_that_covers_most():
    labels = torch.zeros(8, 12, 16, dtype=torch.uint8)
    labels[:4, :6, 8:] = 7
    labels[4:, :, :4] = 3

    halved = resample_labels(labels, (4, 6, 8))

    assert halved.dtype == torch.uint8
    assert torch.equal(halved, labels[::2, ::2, ::2])
