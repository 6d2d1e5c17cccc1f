"""The dense head: draws where the structure should be, so that a sentinel learns from every pixel.

One number a slice teaches little when few cases are labelled. The head reads the features of the published
network at every resolution and predicts the reference within the crop; the mask's overlap with what it draws
is a second estimate of the DSC, and sums of overlaps over slices give that of the whole mask.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from sentinel.vision import BACKBONES

WIDTH = 48
_STEM = 64
_SMOOTHING = 1.0
_SMALLEST = 0.5


class DenseHead(nn.Module):
    """From a network's features to the logits of the reference, at half of the slices' resolution.

    Args:
        backbone: of the network, see `sentinel.vision.BACKBONES`.
        text_dim: size of a text embedding.
    """

    def __init__(self, *, backbone: str, text_dim: int) -> None:
        super().__init__()
        deepest = BACKBONES[backbone]
        channels = (_STEM, deepest // 8, deepest // 4, deepest // 2, deepest)
        self.lateral = nn.ModuleList(nn.Conv2d(size, WIDTH, kernel_size=1) for size in channels)
        self.smooth = nn.ModuleList(
            nn.Sequential(nn.Conv2d(WIDTH, WIDTH, kernel_size=3, padding=1), nn.BatchNorm2d(WIDTH), nn.ReLU())
            for _ in channels
        )
        self.text = nn.Linear(text_dim, WIDTH)
        self.logits = nn.Conv2d(WIDTH, 1, kernel_size=1)

    def forward(self, pyramid: Sequence[Tensor], text: Tensor) -> Tensor:
        """Draw the reference.

        Args:
            pyramid: features (N, C, H, W) from the stem's, at half resolution, to the deepest.
            text: (N, text_dim).

        Returns:
            (N, S / 2, S / 2) logits.
        """
        flow = self.text(text.to(pyramid[-1].dtype))[:, :, None, None]
        for level in reversed(range(len(pyramid))):
            side = self.lateral[level](pyramid[level])
            if level < len(pyramid) - 1:
                flow = functional.interpolate(flow, size=side.shape[2:], mode="bilinear", align_corners=False)
            flow = self.smooth[level](side + flow)
        logits: Tensor = self.logits(flow)
        return logits.squeeze(1)


def halved(grey: Tensor) -> Tensor:
    """Planes (N, S, S) in 0..255 as shares of foreground (N, S / 2, S / 2) in [0, 1]."""
    return functional.avg_pool2d(grey.float()[:, None] / 255.0, kernel_size=2)[:, 0]


def dense_loss(logits: Tensor, reference: Tensor) -> Tensor:
    """Cross-entropy plus soft Dice loss of drawn references.

    Args:
        logits: (N, H, W).
        reference: (N, H, W), shares of foreground in [0, 1].
    """
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, reference)
    prob = torch.sigmoid(logits)
    overlap = 2.0 * (prob * reference).sum(dim=(1, 2)) + _SMOOTHING
    total = prob.sum(dim=(1, 2)) + reference.sum(dim=(1, 2)) + _SMOOTHING
    return cross_entropy + (1.0 - overlap / total).mean()


def drawn_overlap(logits: Tensor, mask: Tensor) -> Tensor:
    """How a mask overlaps with the reference as drawn, relative to the mask's size.

    Args:
        logits: (N, H, W).
        mask: (N, H, W), shares of foreground in [0, 1].

    Returns:
        (N, 2): overlap and size of what was drawn, both divided by the size of the mask; NaN for a mask of
        less than half a pixel, which is too small to compare with.
    """
    prob = torch.sigmoid(logits)
    size = mask.sum(dim=(1, 2))
    size = torch.where(size < _SMALLEST, torch.nan, size)
    return torch.stack([(prob * mask).sum(dim=(1, 2)) / size, prob.sum(dim=(1, 2)) / size], dim=1)
