import math

import pytest
import torch

from cohort.errors import ConfigError
from segmenters.uncertainty import check_measures, entropy, measure


def grid(*voxels: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(voxels).T.reshape(len(voxels[0]), 1, 1, len(voxels))


def h(*prob: float) -> float:
    return -sum(p * math.log(p) for p in prob if p) / math.log(len(prob))


def test_entropy_is_the_mean_over_the_region_of_each_structure():
    prob = grid((0.9, 0.1, 0.0), (0.4, 0.6, 0.0), (0.95, 0.05, 0.0), (0.0, 0.0, 1.0))

    background, first, second = entropy(prob).tolist()

    # the first structure's region is voxel 0 (0.1 is the threshold) and voxel 1 (predicted)
    assert first == pytest.approx((h(0.9, 0.1, 0) + h(0.4, 0.6, 0)) / 2)
    assert second == 0.0
    assert background == pytest.approx((h(0.9, 0.1, 0) + h(0.4, 0.6, 0) + h(0.95, 0.05, 0)) / 3)


def test_structure_without_a_region_is_nan():
    values = entropy(grid((0.97, 0.02, 0.01), (0.5, 0.45, 0.05))).tolist()

    assert not math.isnan(values[1])
    assert math.isnan(values[2])


def test_least_certain_is_one():
    assert entropy(torch.full((4, 2, 2, 2), 0.25)).tolist() == pytest.approx([1.0] * 4)


def test_structures_are_named_and_untrained_ones_are_nan():
    values = measure(grid((0.4, 0.6)), ("entropy",), ("spleen",), ("liver", "spleen"))

    assert values["entropy"]["spleen"] == pytest.approx(h(0.4, 0.6))
    assert math.isnan(values["entropy"]["liver"])
    assert measure(grid((0.4, 0.6)), (), ("spleen",), ("spleen",)) == {}


def test_unknown_kind_lists_the_known():
    with pytest.raises(ConfigError, match="Unknown uncertainty 'vibes'; known: entropy"):
        check_measures(["entropy", "vibes"])
