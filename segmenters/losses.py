"""Dice and cross-entropy over partly annotated patches."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import Tensor

from segmenters.pooling import Pool, of_these
from segmenters.preprocessing import IGNORED

_SMOOTH = 1.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LossTerms:
    """The two terms of the loss, scalars to be added."""

    dice: Tensor
    cross_entropy: Tensor


def level_weights(levels: int) -> tuple[float, ...]:
    """Share of each level in the loss under deep supervision: halves from level to level, sums to 1.

    The coarsest of several levels has none, as in nnU-Net.

    >>> level_weights(1), level_weights(3)
    ((1.0,), (0.6666666666666666, 0.3333333333333333, 0.0))
    """
    shares = [0.5**level for level in range(max(1, levels - 1))]
    return (*(share / sum(shares) for share in shares), *(0.0,) * (levels - len(shares)))


def loss_of(
    logits: Tensor | Sequence[Tensor],
    channels: Tensor,
    known: Tensor,
    pool: Pool = of_these,
    weight: Tensor | None = None,
) -> LossTerms:
    """The loss of what a network gives in training: `dice_cross_entropy` of each level, weighted.

    Args:
        logits: (B, C, D, H, W), or with deep supervision a list of them, finest first; any float type.
        channels: (B, D, H, W) int64 at the finest level, `IGNORED` where nobody annotated; a coarser one
            takes the nearest voxels.
        known: (B, C) bool, the channels that each sample's annotation answers for.
        pool: as in `dice_cross_entropy`, called once a level.
        weight: as in `dice_cross_entropy`.
    """
    levels = [logits] if isinstance(logits, Tensor) else logits
    shares = level_weights(len(levels))
    terms = [
        (share, dice_cross_entropy(found.float(), _at_level(channels, found), known, pool, weight))
        for share, found in zip(shares, levels, strict=True)
        if share > 0.0
    ]
    return LossTerms(
        dice=torch.stack([share * found.dice for share, found in terms]).sum(),
        cross_entropy=torch.stack([share * found.cross_entropy for share, found in terms]).sum(),
    )


def _at_level(channels: Tensor, logits: Tensor) -> Tensor:
    shape = tuple(logits.shape[2:])
    if shape == tuple(channels.shape[1:]):
        return channels
    resized = functional.interpolate(channels[:, None].float(), size=shape, mode="nearest-exact")
    return resized[:, 0].long()


def annotated_log_prob(log_prob: Tensor, channels: Tensor, known: Tensor) -> Tensor:
    """Log-probability of what the annotation says of each voxel.

    Where it names a structure, that is the structure's own. Elsewhere the voxel is background or one of
    the structures that were not annotated: p(background) + sum of p(unannotated). So nothing tells an
    unannotated structure from background, and an annotated one never counts as background.

    Args:
        log_prob: (B, C, D, H, W) natural logarithms, background first.
        channels: (B, D, H, W) int64 in [0, C), 0 is background-or-unknown.
        known: (B, C) bool, whether the sample's annotation answers for a channel; background is True.

    Returns:
        (B, D, H, W) natural logarithms.

    Source:
        Shi et al., "Marginal loss and exclusion loss for partially supervised multi-organ segmentation",
        Medical Image Analysis 70 (2021), eq. 3.
    """
    named = log_prob.gather(1, channels[:, None])[:, 0]
    if bool(known.all()):
        return named
    unnamed = torch.stack([_background_or_unknown(*sample) for sample in zip(log_prob, known, strict=True)])
    return torch.where(channels == 0, unnamed, named)


def dice_cross_entropy(
    logits: Tensor, channels: Tensor, known: Tensor, pool: Pool = of_these, weight: Tensor | None = None
) -> LossTerms:
    """Soft Dice loss of the annotated structures and cross-entropy, with unannotated ones marginalised.

    The Dice of a structure is taken over all samples of the batch that annotate it, and averaged over
    the structures that occur in it. A structure that is annotated but absent from the batch is left to the
    cross-entropy: with a smoothed Dice, its first few false positives would cost as much as a whole
    structure, and a small or rarely annotated structure would be unlearned for good.

    Voxels that nobody annotated count in neither term.

    Args:
        logits: (B, C, D, H, W) float32, background first.
        channels: (B, D, H, W) int64 in [0, C), 0 is background-or-unknown; or `IGNORED`.
        known: (B, C) bool, the channels that each sample's annotation answers for.
        pool: turns sums over these samples into sums over the whole batch, where they are a part of it.
        weight: (B, C) float32 in (0, 1], how much each sample's labels of a channel count. The cross-entropy
            weighs voxels by the channel that they are labelled with; a structure's Dice is taken over
            weighted voxels, and counts by their mean weight. None counts all fully.

    Returns:
        Dice loss in [0, 1] and cross-entropy in nats per annotated voxel of the whole batch; 0 where it has
        none.
    """
    log_prob = functional.log_softmax(logits, dim=1)
    counted = channels != IGNORED
    partly = not bool(counted.all())
    if partly:
        channels = channels.masked_fill(~counted, 0)
    voxelwise = annotated_log_prob(log_prob, channels, known)
    if weight is not None:
        voxelwise = voxelwise * weight.gather(1, channels.flatten(1)).view_as(voxelwise)
    if partly:
        voxelwise = torch.where(counted, voxelwise, 0.0)
    dice, share = _dice(log_prob.exp(), channels, known, pool, weight, counted if partly else None)
    return LossTerms(dice=dice, cross_entropy=-voxelwise.mean() / share)


def _background_or_unknown(log_prob: Tensor, known: Tensor) -> Tensor:
    if bool(known.all()):
        return log_prob[0]
    hidden = torch.cat([known.new_ones(1), ~known[1:]])
    return log_prob[hidden].logsumexp(dim=0)


def _dice(
    prob: Tensor,
    channels: Tensor,
    known: Tensor,
    pool: Pool,
    weight: Tensor | None,
    annotated: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Dice loss, and the share of the whole batch's voxels that are annotated; 1 where none is.

    Both rest on sums over the whole batch, so that they are asked for at once.
    """
    reference = torch.zeros_like(prob).scatter_(1, channels[:, None], 1.0)
    if annotated is not None:
        prob, reference = prob * annotated[:, None], reference * annotated[:, None]
    counted = known.to(prob.dtype) if weight is None else known * weight
    axes = (2, 3, 4)
    overlap = ((prob * reference).sum(axes) * counted).sum(0)[1:]
    size = (reference.sum(axes) * counted).sum(0)[1:]
    predicted = (prob.sum(axes) * counted).sum(0)[1:]
    parts = [overlap, size, predicted]
    if weight is not None:
        parts.append((reference.sum(axes) * known).sum(0)[1:])
    voxels = torch.full_like(size, channels.numel())
    own = voxels if annotated is None else torch.full_like(size, int(annotated.sum()))
    *sums, annotated_voxels, all_voxels = pool(torch.stack([*parts, own, voxels]))
    share = (annotated_voxels / all_voxels)[0]
    losses = 1.0 - (2.0 * sums[0] + _SMOOTH) / (sums[1] + sums[2] + _SMOOTH)
    present = (sums[1] > 0).to(prob.dtype)
    if weight is not None:
        losses = losses * sums[1] / sums[3].clamp(min=1.0)
    share = torch.where(share > 0.0, share, 1.0)
    return (losses * present).sum() / present.sum().clamp(min=1.0), share
