from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest

from cohort.case import Structure
from cohort.errors import ConfigError, DataError
from cohort.records import GradedMask
from sentinel.config import SentinelConfig
from sentinel.pairs import make_pairs
from sentinel.scoring import Sentinel
from sentinel.training import choose_validation_patients, train_sentinel, validate

CONFIG = SentinelConfig(
    image_size=32, margin=3.0, training_slices=200, steps=5, batch_size=8, precision="float32", device="cpu"
)
Graded = Callable[..., list[GradedMask]]
Structures = tuple[Structure, ...]


def weights(sentinel: Sentinel) -> np.ndarray:
    return np.concatenate([value.numpy().ravel() for value in sentinel.network.state_dict().values()])


def test_same_seed_same_sentinel(graded: Graded, structures: Structures) -> None:
    masks = graded()
    first, second = (
        train_sentinel(order, structures, replace(CONFIG, steps=2), seed=3) for order in (masks, masks[::-1])
    )
    np.testing.assert_array_equal(weights(first), weights(second))
    assert first.training_sha256 == second.training_sha256
    other = train_sentinel(masks, structures, replace(CONFIG, steps=1), seed=4)
    assert other.training_sha256 != first.training_sha256
    assert (weights(other) != weights(first)).any()


def test_history_metrics_and_progress(graded: Graded, structures: Structures) -> None:
    told: list[tuple[int, int, Mapping[str, float]]] = []
    sentinel = train_sentinel(graded(), structures, CONFIG, seed=3, report=lambda *what: told.append(what))
    assert [step for step, _, _ in told] == [1, 2, 3, 4, 5]
    assert {total for _, total, _ in told} == {5}
    assert {"loss", "weighted_mse", "pair_ranking", "validation_pearson"} <= set(told[-1][2])
    assert [step["step"] for step in sentinel.history] == [1.0, 2.0, 3.0, 4.0, 5.0]
    best = max(step["validation_pearson"] for step in sentinel.history)
    assert sentinel.metrics["validation_pearson"] == best


def test_it_learns_to_tell_good_masks_from_bad(graded: Graded, structures: Structures) -> None:
    config = replace(CONFIG, steps=40, batch_size=16, training_slices=400, validation_fraction=0.0)
    masks = graded()
    sentinel = train_sentinel(masks, structures, config, seed=3)
    unseen = make_pairs(masks, structures, config, seed=99)
    assert validate(sentinel, unseen)["pearson"] > 0.6


def test_hidden_masks_teach_the_dense_head_alone(graded: Graded, structures: Structures) -> None:
    told: list[Mapping[str, float]] = []
    config = replace(CONFIG, mask_dropout=0.9999, validation_fraction=0.0)
    train_sentinel(
        graded(), structures, config, seed=3, report=lambda step, total, metrics: told.append(metrics)
    )
    assert all(metrics["weighted_mse"] == 0.0 < metrics["dense"] for metrics in told)


def test_no_steps_leave_random_weights(graded: Graded, structures: Structures) -> None:
    sentinel = train_sentinel(graded(cases=1), structures, replace(CONFIG, steps=0), seed=3)
    assert sentinel.history == ()
    assert dict(sentinel.metrics) == {}


def test_validation_goes_by_patient() -> None:
    patients = [f"p{index}" for index in range(8)] * 3
    chosen = choose_validation_patients(patients, CONFIG, 0)
    assert len(chosen) == 2
    assert chosen == choose_validation_patients(patients[::-1], CONFIG, 0)
    assert choose_validation_patients(["a", "b"], CONFIG, 0) == frozenset()
    assert choose_validation_patients(patients, replace(CONFIG, validation_fraction=0.0), 0) == frozenset()
    assert len(choose_validation_patients(["a", "b", "c"], replace(CONFIG, validation_fraction=0.99), 0)) == 1


def test_own_structure_trains_and_can_be_refused(graded: Graded) -> None:
    structures = (Structure(name="flux capacitor", label=1),)
    masks = graded(cases=1, evaluated=frozenset({"flux capacitor"}))
    assert train_sentinel(masks, structures, replace(CONFIG, steps=1), seed=3).structures == (
        "flux capacitor",
    )
    with pytest.raises(DataError, match="'flux capacitor' is not in the table"):
        train_sentinel(masks, structures, replace(CONFIG, unknown_names="error"), seed=3)


def test_text_of_another_size(graded: Graded, structures: Structures) -> None:
    with pytest.raises(ConfigError, match="text_dim is 512, but the shipped text embeddings have 384"):
        train_sentinel(graded(), structures, replace(CONFIG, text_dim=512), seed=3)
