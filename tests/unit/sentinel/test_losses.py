from itertools import permutations

import numpy as np
import pytest
import torch

from cohort.errors import ModelError
from sentinel.losses import dsc_weights, optimal_pairing, pair_ranking, weighted_mse


def _slow_weight(target: float) -> float:
    for edge, weight in ((0.3, 7.0), (0.5, 5.0), (0.7, 3.0), (0.9, 2.0)):
        if target <= edge:
            return weight
    return 1.0


def test_weights_at_their_edges() -> None:
    targets = [0.0, 0.3, 0.301, 0.5, 0.501, 0.7, 0.701, 0.9, 0.901, 1.0]
    assert dsc_weights(torch.tensor(targets)).tolist() == [_slow_weight(t) for t in targets]


def test_weighted_mse_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    predicted, target = rng.normal(size=17).astype(np.float32), rng.random(17).astype(np.float32)
    slow = sum(_slow_weight(t) * (p - t) ** 2 for p, t in zip(predicted, target, strict=True)) / 17
    assert weighted_mse(torch.tensor(predicted), torch.tensor(target)).item() == pytest.approx(slow, rel=1e-5)


def test_pair_ranking_against_a_loop() -> None:
    rng = np.random.default_rng(1)
    predicted, target = rng.normal(size=13).astype(np.float32), rng.random(13).astype(np.float32)
    partner = optimal_pairing(rng.normal(size=(13, 5)).astype(np.float32))
    slow = 0.0
    for i, j in enumerate(partner):
        slow += max(0.0, -(predicted[i] - predicted[j]) * (target[i] - target[j]) + 1e-4) / 13
    fast = pair_ranking(torch.tensor(predicted), torch.tensor(target), torch.tensor(partner))
    assert fast.item() == pytest.approx(slow, rel=1e-5)


def test_ranking_only_punishes_the_wrong_order() -> None:
    target, partner = torch.tensor([0.2, 0.8]), torch.tensor([1, 0])
    assert pair_ranking(torch.tensor([0.3, 0.9]), target, partner).item() == 0.0
    assert pair_ranking(torch.tensor([0.9, 0.3]), target, partner).item() == pytest.approx(0.36 + 1e-4)


@pytest.mark.parametrize("size", [2, 3, 6])
def test_pairing_is_the_best_permutation_without_fixed_points(size: int) -> None:
    text = np.random.default_rng(size).normal(size=(size, 4)).astype(np.float32)
    unit = text / np.linalg.norm(text, axis=1, keepdims=True)
    similarity = unit @ unit.T
    allowed = [p for p in permutations(range(size)) if all(i != j for i, j in enumerate(p))]
    best = max(sum(similarity[i, j] for i, j in enumerate(p)) for p in allowed)
    partner = optimal_pairing(text)
    assert sorted(partner) == list(range(size))
    assert (partner != np.arange(size)).all()
    assert sum(similarity[i, j] for i, j in enumerate(partner)) == pytest.approx(best, abs=1e-5)


def test_slices_of_one_structure_are_partners() -> None:
    text = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
    assert (optimal_pairing(text) // 4 == np.arange(12) // 4).all()


def test_a_batch_of_one_cannot_be_paired() -> None:
    with pytest.raises(ModelError, match="A batch of 1 cannot be paired"):
        optimal_pairing(np.ones((1, 4), dtype=np.float32))
