"""Dice and cross-entropy over partly annotated patches."""

from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import Tensor

_SMOOTH = 1.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LossTerms:
    """The two terms of the loss, scalars to be added."""

    dice: Tensor
    cross_entropy: Tensor


def merge_unannotated(logits: Tensor, known: Tensor) -> Tensor:
    """Log-probabilities in which an unannotated structure counts as background-or-unknown.

    The probability of the background channel becomes p(background) + sum of p(unannotated); that of an
    unannotated structure becomes 0 (a very negative logarithm). So no gradient tells an unannotated
    structure from background.

    Args:
        logits: (B, C, D, H, W), background first.
        known: (B, C) bool, whether the sample's annotation answers for a channel; background is True.

    Returns:
        (B, C, D, H, W) natural logarithms; their exponentials sum to 1 over C.

    Source:
        Shi et al., "Marginal loss and exclusion loss for partially supervised multi-organ segmentation",
        Medical Image Analysis 70 (2021), eq. 3.
    """
    if bool(known.all()):
        return functional.log_softmax(logits, dim=1)
    unknown = ~known[:, :, None, None, None]
    never = torch.finfo(logits.dtype).min / 4
    merged = unknown.clone()
    merged[:, 0] = True
    background = logits.masked_fill(~merged, never).logsumexp(dim=1, keepdim=True)
    others = logits[:, 1:].masked_fill(unknown[:, 1:], never)
    return functional.log_softmax(torch.cat([background, others], dim=1), dim=1)


def dice_cross_entropy(logits: Tensor, channels: Tensor, known: Tensor) -> LossTerms:
    """Soft Dice loss of the annotated structures and cross-entropy, with unannotated ones marginalised.

    The Dice of a structure is taken over all samples of the batch that annotate it, and averaged over
    the structures that any sample annotates. A structure that is annotated but absent from the batch
    counts through its false positives (smoothing 1 voxel).

    Args:
        logits: (B, C, D, H, W) float32, background first.
        channels: (B, D, H, W) int64 in [0, C), 0 is background-or-unknown.
        known: (B, C) bool, the channels that each sample's annotation answers for.

    Returns:
        Dice loss in [0, 1] and cross-entropy in nats per voxel.
    """
    log_prob = merge_unannotated(logits, known)
    cross_entropy = functional.nll_loss(log_prob, channels)
    return LossTerms(dice=_dice(log_prob.exp(), channels, known), cross_entropy=cross_entropy)


def _dice(prob: Tensor, channels: Tensor, known: Tensor) -> Tensor:
    counted = known.to(prob.dtype)
    losses, weights = [], []
    for channel in range(1, prob.shape[1]):
        reference = (channels == channel).to(prob.dtype)
        axes = (1, 2, 3)
        overlap = (prob[:, channel] * reference).sum(axes) * counted[:, channel]
        total = (prob[:, channel].sum(axes) + reference.sum(axes)) * counted[:, channel]
        losses.append(1.0 - (2.0 * overlap.sum() + _SMOOTH) / (total.sum() + _SMOOTH))
        weights.append(counted[:, channel].amax())
    weight = torch.stack(weights)
    return (torch.stack(losses) * weight).sum() / weight.sum().clamp(min=1.0)
