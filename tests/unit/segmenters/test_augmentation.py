import numpy as np
import pytest
import torch

from segmenters.augmentation import _draw_matrix, cut_patch, vary_intensity
from segmenters.config import Augmentation
from segmenters.preprocessing import PreparedCase

STILL = Augmentation(
    spatial_probability=1.0, rotation_degrees=0, scale=0, elastic_mm=0, contrast=0, gamma=0, noise=0
)


def make_case() -> PreparedCase:
    channels = torch.zeros(10, 14, 18, dtype=torch.uint8)
    channels[2:8, 3:11, 4:9] = 1
    channels[4:9, 5:12, 10:16] = 2
    return PreparedCase(
        case_id="a", image=channels.float(), channels=channels, known=torch.tensor([True] * 3), places={}
    )


def cut(augmentation: Augmentation, start=(1, 2, 3), patch=(8, 8, 12), padding=0.0, seed=0):
    rng = np.random.default_rng(seed)
    return cut_patch(make_case(), start, patch, (3.0, 1.0, 0.5), augmentation, padding, rng)


@pytest.mark.parametrize("start", [(1, 2, 3), (-2, -1, 4)])
def test_resampling_without_change_equals_cropping(start):
    image, channels = cut(STILL, start, (12, 16, 12), padding=-1.0)
    cropped, cropped_channels = cut(Augmentation(spatial_probability=0.0), start, (12, 16, 12), padding=-1.0)

    torch.testing.assert_close(image, cropped, atol=1e-4, rtol=0)
    assert torch.equal(channels, cropped_channels)


def test_crop_over_the_edge_is_padded():
    image, channels = cut(Augmentation(spatial_probability=0.0), (-2, 0, 0), (8, 8, 12), padding=-1.0)

    assert (image[:2] == -1.0).all()
    assert (channels[:2] == 0).all()
    assert torch.equal(channels[2:], make_case().channels[:6, :8, :12])


def test_image_and_channels_move_together():
    strong = Augmentation(spatial_probability=1.0, rotation_degrees=30, scale=0.2, elastic_mm=0.5)

    image, channels = cut(strong, seed=3)
    still_channels = cut(STILL)[1]

    assert not torch.equal(channels, still_channels)
    assert float(((image - channels).abs() < 0.75).float().mean()) > 0.9
    assert sorted(torch.unique(channels).tolist()) == [0, 1, 2]


def test_rotation_keeps_lengths_in_millimetres():
    spacing = np.array([3.0, 1.0, 0.5])
    matrix = _draw_matrix(
        (3.0, 1.0, 0.5), Augmentation(rotation_degrees=40, scale=0), np.random.default_rng(1)
    )

    in_mm = spacing[:, None] * matrix / spacing[None, :]

    np.testing.assert_allclose(in_mm @ in_mm.T, np.eye(3), atol=1e-12)
    assert abs(in_mm[0, 1]) > 0.01


def test_only_allowed_axes_are_mirrored():
    flipping = Augmentation(flip=(False, False, True), spatial_probability=0.0)
    whole = make_case().channels

    seen = {
        "plain" if torch.equal(patch, whole) else "mirrored" if torch.equal(patch, whole.flip(2)) else "other"
        for patch in (cut(flipping, (0, 0, 0), (10, 14, 18), seed=seed)[1] for seed in range(20))
    }

    assert seen == {"plain", "mirrored"}


def test_same_seed_same_patch():
    first, second = cut(Augmentation(), seed=5), cut(Augmentation(), seed=5)

    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_intensity_off_changes_nothing():
    images = torch.rand(2, 1, 4, 5, 6)

    assert torch.equal(vary_intensity(images, STILL, torch.Generator()), images)


def test_intensity_varies_per_image_and_keeps_range_under_gamma():
    images = torch.linspace(-1, 1, 120).reshape(1, 1, 4, 5, 6).repeat(2, 1, 1, 1, 1)
    gamma = Augmentation(contrast=0, noise=0, gamma=0.5)

    varied = vary_intensity(images, gamma, torch.Generator().manual_seed(0))

    assert float(varied.min()) == pytest.approx(-1.0)
    assert float(varied.max()) == pytest.approx(1.0)
    assert not torch.allclose(varied[0], varied[1])
    noisy = vary_intensity(images, Augmentation(), torch.Generator().manual_seed(0))
    assert torch.isfinite(noisy).all()


class Watched:
    """A volume that remembers how many voxels were read of it."""

    def __init__(self, voxels: torch.Tensor) -> None:
        self.voxels, self.read = voxels, 0

    @property
    def shape(self) -> torch.Size:
        return self.voxels.shape

    def __getitem__(self, box):
        piece = self.voxels[box]
        self.read += piece.numel()
        return piece


def large_case(seed: int) -> PreparedCase:
    image = torch.randn(40, 60, 80, generator=torch.Generator().manual_seed(seed))
    channels = (image > 0.5).to(torch.uint8)
    return PreparedCase(
        case_id="a", image=Watched(image), channels=Watched(channels), known=torch.tensor([True]), places={}
    )


@pytest.mark.parametrize("start", [(20, 25, 40), (0, 0, 0), (32, 50, 66), (-3, 10, 70)])
@pytest.mark.parametrize("padding", [0.0, -1.0])
def test_only_what_a_patch_needs_is_read_and_it_is_the_same(monkeypatch, start, padding):
    bending = Augmentation(spatial_probability=1.0, rotation_degrees=30, scale=0.2, elastic_mm=1.0)
    case = large_case(1)

    def cut_one():
        rng = np.random.default_rng(4)
        return cut_patch(case, start, (8, 10, 14), (3.0, 1.0, 0.5), bending, padding, rng)

    image, channels = cut_one()
    part = case.image.read
    monkeypatch.setattr(
        "segmenters.augmentation._reach", lambda *arguments: tuple(slice(0, size) for size in (40, 60, 80))
    )
    whole_image, whole_channels = cut_one()

    assert part < 40 * 60 * 80 / 3
    torch.testing.assert_close(image, whole_image, atol=1e-4, rtol=0)
    assert float((channels == whole_channels).float().mean()) > 0.999


def test_a_plain_patch_reads_itself_alone():
    case = large_case(1)

    cut_patch(
        case,
        (-3, 10, 70),
        (8, 10, 14),
        (3.0, 1.0, 0.5),
        Augmentation(spatial_probability=0.0),
        0.0,
        np.random.default_rng(0),
    )

    assert case.image.read == case.channels.read == 5 * 10 * 10
