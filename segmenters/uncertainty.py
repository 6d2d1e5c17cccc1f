"""Uncertainty per structure, reduced while a case is predicted: probability maps are never kept."""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from cohort.errors import ConfigError

REGION_PROBABILITY = 0.1
"""A structure's region is where it is predicted, or has at least this probability."""

Measure = Callable[[Tensor], Tensor]
"""From probabilities (C, D, H, W) of a case to one value per channel (C,), NaN without a region."""


def entropy(prob: Tensor) -> Tensor:
    """Mean voxel entropy over each structure's region.

    Args:
        prob: (C, D, H, W), sums to 1 over C.

    Returns:
        (C,) in [0, 1] (1: all channels equally likely everywhere); NaN for a channel that is neither
        predicted nor reaches `REGION_PROBABILITY` anywhere.

    >>> entropy(torch.tensor([0.5, 0.5]).reshape(2, 1, 1, 1)).tolist()
    [1.0, 1.0]
    """
    voxelwise = torch.special.entr(prob).sum(dim=0) / math.log(len(prob))
    predicted = prob.argmax(dim=0)
    values = [
        voxelwise[(predicted == channel) | (prob[channel] >= REGION_PROBABILITY)].double().mean()
        for channel in range(len(prob))
    ]
    return torch.stack(values).clamp(0.0, 1.0).float()


MEASURES: Mapping[str, Measure] = MappingProxyType({"entropy": entropy})


def check_measures(names: Sequence[str]) -> None:
    """Refuse a name that no uncertainty has.

    Raises:
        ConfigError: listing the known ones.
    """
    for name in names:
        if name not in MEASURES:
            raise ConfigError(f"Unknown uncertainty {name!r}; known: {', '.join(sorted(MEASURES))}")


def measure(
    prob: Tensor, kinds: Sequence[str], trained: Sequence[str], structures: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Every kind of uncertainty of every structure.

    Args:
        prob: (C, D, H, W).
        kinds: names in `MEASURES`.
        trained: structures of the channels from 1.
        structures: to answer for; NaN for one without a channel.
    """
    result = {}
    for kind in kinds:
        values = MEASURES[kind](prob)[1:].tolist()
        found = dict(zip(trained, values, strict=True))
        result[kind] = {name: float(found.get(name, math.nan)) for name in structures}
    return result
