"""Uncertainty per structure, reduced while a case is predicted: probability maps are never kept."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from cohort.errors import ConfigError
from cohort.seeds import derive_seed

REGION_PROBABILITY = 0.1
"""A structure's region is where it is predicted, or has at least this probability."""

DROPOUT_PASSES = 8
NOISE_PASSES = 4
NOISE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Variation:
    """How a forward pass differs from the plain one.

    Args:
        dropout: whether the network's dropout stays on.
        noise: standard deviation of Gaussian noise added to the normalised intensities.
        seed: of dropout and noise.
    """

    dropout: bool = False
    noise: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Passes:
    """What the uncertainty of a case is computed from.

    Args:
        prob: (C, D, H, W) of the plain pass, sums to 1 over C.
        again: makes another pass, varied, and gives its probabilities.
    """

    prob: Tensor
    again: Callable[[Variation], Tensor]


Measure = Callable[[Passes], Tensor]
"""From the passes of a case to one value per channel (C,), NaN without a region."""


def entropy(passes: Passes) -> Tensor:
    """Mean voxel entropy over each structure's region, of the plain pass alone.

    Returns:
        (C,) in [0, 1] (1: all channels equally likely everywhere); NaN for a channel that is neither
        predicted nor reaches `REGION_PROBABILITY` anywhere.

    >>> even = torch.tensor([0.5, 0.5]).reshape(2, 1, 1, 1)
    >>> entropy(Passes(prob=even, again=lambda variation: even)).tolist()
    [1.0, 1.0]
    """
    return _mean_in_regions(_voxel_entropy(passes.prob), passes.prob).clamp(0, 1)


def mc_dropout(passes: Passes) -> Tensor:
    """Mean standard deviation of a structure's probability over passes with dropout, in its region.

    Returns:
        (C,) in [0, 0.5]; NaN for a channel without a region in the plain pass. 0 everywhere for a network
        that was trained without dropout.

    Source:
        Gal and Ghahramani, "Dropout as a Bayesian approximation", ICML 2016.
    """
    total, squares = torch.zeros_like(passes.prob), torch.zeros_like(passes.prob)
    for index in range(DROPOUT_PASSES):
        prob = passes.again(Variation(dropout=True, seed=derive_seed(0, "mc_dropout", index)))
        total += prob
        squares += prob * prob
    mean = total / DROPOUT_PASSES
    spread = (squares / DROPOUT_PASSES - mean * mean).clamp(min=0.0).sqrt()
    regions = _regions(passes.prob)
    return torch.stack([s[region].double().mean() for s, region in zip(spread, regions, strict=True)]).float()


def predictive_entropy(passes: Passes) -> Tensor:
    """Mean voxel entropy of the mean probability over passes with dropout, in each structure's region.

    Returns:
        (C,) in [0, 1] (1: all channels equally likely everywhere); NaN as in `entropy`.

    Source:
        Gal and Ghahramani, "Dropout as a Bayesian approximation", ICML 2016.
    """
    return _mean_in_regions(_dropout_entropies(passes)[0], passes.prob).clamp(0, 1)


def bald(passes: Passes) -> Tensor:
    """Mutual information of a voxel's label and the weights: how much passes with dropout disagree.

    The entropy of the mean probability minus the mean entropy of the passes, averaged over each structure's
    region: high where every pass is sure, but of different labels.

    Returns:
        (C,) in [0, 1], relative to the logarithm of the number of channels; NaN as in `entropy`. 0 everywhere
        for a network that was trained without dropout.

    Source:
        Houlsby et al., "Bayesian active learning for classification and preference learning", 2011, eq. 2.
    """
    of_mean, mean_of = _dropout_entropies(passes)
    return _mean_in_regions((of_mean - mean_of).clamp(min=0.0), passes.prob).clamp(0, 1)


def inconsistency(passes: Passes) -> Tensor:
    """How much a structure's mask changes when the image gets a little noise: 1 - mean DSC of the masks.

    Returns:
        (C,) in [0, 1]; NaN for a channel that the plain pass does not predict.
    """
    channels = range(len(passes.prob))
    plain = passes.prob.argmax(dim=0)
    agreement = torch.zeros(len(passes.prob), dtype=torch.float64)
    for index in range(NOISE_PASSES):
        seed = derive_seed(0, "inconsistency", index)
        noisy = passes.again(Variation(noise=NOISE, seed=seed)).argmax(dim=0)
        agreement += torch.tensor([_agreement(plain == c, noisy == c) for c in channels], dtype=torch.float64)
    return (1.0 - agreement / NOISE_PASSES).float()


MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        "entropy": entropy,
        "mc_dropout": mc_dropout,
        "predictive_entropy": predictive_entropy,
        "bald": bald,
        "inconsistency": inconsistency,
    }
)

DROPOUT_MEASURES = frozenset({"mc_dropout", "predictive_entropy", "bald"})
"""Those that compare passes with dropout, and mean nothing without it."""


def check_measures(names: Sequence[str]) -> None:
    """Refuse a name that no uncertainty has.

    Raises:
        ConfigError: listing the known ones.
    """
    for name in names:
        if name not in MEASURES:
            raise ConfigError(f"Unknown uncertainty {name!r}; known: {', '.join(sorted(MEASURES))}")


def measure(
    passes: Passes, kinds: Sequence[str], trained: Sequence[str], structures: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Every kind of uncertainty of every structure.

    Args:
        passes: of a case.
        kinds: names in `MEASURES`.
        trained: structures of the channels from 1.
        structures: to answer for; NaN for one without a channel.
    """
    result = {}
    for kind in kinds:
        values = MEASURES[kind](passes)[1:].tolist()
        found = dict(zip(trained, values, strict=True))
        result[kind] = {name: float(found.get(name, math.nan)) for name in structures}
    return result


def _regions(prob: Tensor) -> list[Tensor]:
    predicted = prob.argmax(dim=0)
    return [(predicted == c) | (prob[c] >= REGION_PROBABILITY) for c in range(len(prob))]


def _agreement(first: Tensor, second: Tensor) -> float:
    size = int(first.sum())
    return 2.0 * int((first & second).sum()) / (size + int(second.sum())) if size else math.nan


def _voxel_entropy(prob: Tensor) -> Tensor:
    """Entropy (D, H, W) of probabilities (C, D, H, W), 1 where all channels are equally likely."""
    nats: Tensor = torch.special.entr(prob).sum(dim=0)
    return nats / math.log(len(prob))


def _dropout_entropies(passes: Passes) -> tuple[Tensor, Tensor]:
    """Entropy of the mean probability over passes with dropout, and mean entropy of these passes."""
    total = torch.zeros_like(passes.prob)
    entropies = torch.zeros_like(passes.prob[0])
    for index in range(DROPOUT_PASSES):
        prob = passes.again(Variation(dropout=True, seed=derive_seed(0, "mc_dropout", index)))
        total += prob
        entropies += _voxel_entropy(prob)
    return _voxel_entropy(total / DROPOUT_PASSES), entropies / DROPOUT_PASSES


def _mean_in_regions(voxelwise: Tensor, prob: Tensor) -> Tensor:
    """(C,): the mean of voxel values (D, H, W) in each channel's region."""
    return torch.stack([voxelwise[region].double().mean() for region in _regions(prob)]).float()
