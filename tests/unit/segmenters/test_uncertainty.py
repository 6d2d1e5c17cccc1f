import math

import pytest
import torch

from cohort.errors import ConfigError
from segmenters.uncertainty import (
    NOISE_PASSES,
    Passes,
    Variation,
    bald,
    check_measures,
    entropy,
    inconsistency,
    mc_dropout,
    measure,
    predictive_entropy,
)


def grid(*voxels: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(voxels).T.reshape(len(voxels[0]), 1, 1, len(voxels))


def plain(prob: torch.Tensor) -> Passes:
    return Passes(prob=prob, again=lambda variation: prob)


def h(*prob: float) -> float:
    return -sum(p * math.log(p) for p in prob if p) / math.log(len(prob))


def test_entropy_is_the_mean_over_the_region_of_each_structure():
    prob = grid((0.9, 0.1, 0.0), (0.4, 0.6, 0.0), (0.95, 0.05, 0.0), (0.0, 0.0, 1.0))

    background, first, second = entropy(plain(prob)).tolist()

    # the first structure's region is voxel 0 (0.1 is the threshold) and voxel 1 (predicted)
    assert first == pytest.approx((h(0.9, 0.1, 0) + h(0.4, 0.6, 0)) / 2)
    assert second == 0.0
    assert background == pytest.approx((h(0.9, 0.1, 0) + h(0.4, 0.6, 0) + h(0.95, 0.05, 0)) / 3)


def test_structure_without_a_region_is_nan():
    values = entropy(plain(grid((0.97, 0.02, 0.01), (0.5, 0.45, 0.05)))).tolist()

    assert not math.isnan(values[1])
    assert math.isnan(values[2])


def test_least_certain_is_one():
    assert entropy(plain(torch.full((4, 2, 2, 2), 0.25))).tolist() == pytest.approx([1.0] * 4)


def test_structures_are_named_and_untrained_ones_are_nan():
    values = measure(plain(grid((0.4, 0.6))), ("entropy",), ("spleen",), ("liver", "spleen"))

    assert values["entropy"]["spleen"] == pytest.approx(h(0.4, 0.6))
    assert math.isnan(values["entropy"]["liver"])
    assert measure(plain(grid((0.4, 0.6))), (), ("spleen",), ("spleen",)) == {}


def test_mc_dropout_is_the_spread_of_passes_in_the_region():
    first, second = grid((0.2, 0.8), (1.0, 0.0)), grid((0.6, 0.4), (0.6, 0.4))
    seen: list[Variation] = []

    def again(variation: Variation) -> torch.Tensor:
        seen.append(variation)
        return first if len(seen) % 2 else second

    background, structure = mc_dropout(Passes(prob=grid((0.3, 0.7), (0.95, 0.05)), again=again)).tolist()

    # passes alternate between 0.8 and 0.4 in the one voxel of the region
    assert structure == pytest.approx(0.2, abs=1e-6)
    assert background == pytest.approx(0.2, abs=1e-6)
    assert all(variation.dropout and not variation.noise for variation in seen)
    assert len({variation.seed for variation in seen}) == len(seen)
    assert math.isnan(mc_dropout(plain(grid((0.99, 0.01))))[1])


def test_inconsistency_is_the_loss_of_overlap_under_noise():
    prob = grid((0.1, 0.9), (0.2, 0.8), (0.9, 0.1))
    noisy = grid((0.1, 0.9), (0.7, 0.3), (0.9, 0.1))
    seen: list[Variation] = []

    def again(variation: Variation) -> torch.Tensor:
        seen.append(variation)
        return noisy

    values = inconsistency(Passes(prob=prob, again=again)).tolist()

    # two voxels against one of them: DSC 2/3
    assert values == pytest.approx([1 / 3, 1 / 3])
    assert len(seen) == NOISE_PASSES
    assert all(variation.noise > 0 and not variation.dropout for variation in seen)
    assert math.isnan(inconsistency(plain(grid((0.6, 0.4))))[1])


def test_unknown_kind_lists_the_known():
    with pytest.raises(
        ConfigError, match="Unknown uncertainty 'vibes'; known: bald, entropy, inconsistency, mc_dropout"
    ):
        check_measures(["entropy", "vibes"])


def in_turn(*probs: torch.Tensor) -> Passes:
    """Passes with dropout that give these probabilities in turn."""
    count = 0

    def again(variation: Variation) -> torch.Tensor:
        nonlocal count
        assert variation.dropout
        count += 1
        return probs[(count - 1) % len(probs)]

    return Passes(prob=grid((0.4, 0.6), (0.99, 0.01)), again=again)


def test_sure_passes_of_different_labels_disagree_and_unsure_ones_do_not():
    sure = in_turn(grid((1.0, 0.0), (1.0, 0.0)), grid((0.0, 1.0), (1.0, 0.0)))
    unsure = in_turn(grid((0.5, 0.5), (1.0, 0.0)))

    # both are as uncertain on average, but only the first disagree; the structure's region is voxel 0
    assert predictive_entropy(sure)[1] == pytest.approx(1.0)
    assert bald(sure)[1] == pytest.approx(1.0)
    assert predictive_entropy(unsure)[1] == pytest.approx(1.0)
    assert bald(unsure)[1] == pytest.approx(0.0, abs=1e-6)


def test_bald_is_the_entropy_of_the_mean_minus_the_mean_entropy():
    first, second = grid((0.2, 0.8), (1.0, 0.0)), grid((0.6, 0.4), (1.0, 0.0))

    found = float(bald(in_turn(first, second))[1])

    assert found == pytest.approx(h(0.4, 0.6) - (h(0.2, 0.8) + h(0.6, 0.4)) / 2, abs=1e-6)


@pytest.mark.parametrize("kind", [bald, predictive_entropy])
def test_dropout_measures_of_a_structure_without_a_region_are_nan(kind):
    prob = grid((0.97, 0.02, 0.01), (0.5, 0.45, 0.05))

    assert math.isnan(kind(plain(prob))[2])
