import numpy as np
import pytest
import torch

from cohort.errors import ModelError
from segmenters.config import SegmenterConfig
from segmenters.preprocessing import PreparedCase, prepare_training_case
from segmenters.training import learning_rate, train

SPACING = (3.0, 1.0, 0.5)
CPU = torch.device("cpu")


@pytest.fixture
def prepared(write_case, structures, config):
    return [
        prepare_training_case(
            write_case(name, seed), structures[:2], structures, SPACING, config, np.random.default_rng(0)
        )
        for seed, name in enumerate("ab")
    ]


def test_schedule_rises_and_falls():
    rates = [learning_rate(0.01, step, 200) for step in range(1, 201)]

    assert max(rates) == pytest.approx(0.01)
    assert rates.index(max(rates)) == 29
    assert rates[0] < 0.001
    assert rates[-1] < 1e-5
    assert learning_rate(0.01, 1, 1) == pytest.approx(0.01)


def test_loss_falls_and_checkpoints_are_kept_where_asked(prepared, config):
    kept: list[int] = []
    reports: list[tuple[int, int, dict[str, float]]] = []

    steps = train(
        prepared,
        SPACING,
        config,
        seed=1,
        steps=35,
        checkpoint_steps=frozenset({7, 35}),
        keep=lambda step, weights: kept.append(step),
        device=CPU,
        report=lambda step, total, metrics: reports.append((step, total, dict(metrics))),
    )

    assert kept == [7, 35]
    assert steps == (7, 35)
    assert [(step, total) for step, total, _ in reports] == [(10, 35), (20, 35), (30, 35), (35, 35)]
    assert set(reports[0][2]) == {"loss", "dice_loss", "cross_entropy", "learning_rate"}
    assert reports[-1][2]["loss"] < 0.8 * reports[0][2]["loss"]


def test_loss_that_is_not_finite_is_an_error(config):
    broken = PreparedCase(
        case_id="a",
        image=torch.full((8, 12, 16), torch.nan),
        channels=torch.zeros(8, 12, 16, dtype=torch.uint8),
        known=torch.tensor([True, True]),
        places={},
    )

    with pytest.raises(ModelError, match="loss is nan at step 1; lower learning_rate"):
        train(
            [broken],
            SPACING,
            config,
            seed=0,
            steps=2,
            checkpoint_steps=frozenset(),
            keep=lambda step, weights: None,
            device=CPU,
        )


def test_training_leaves_the_global_random_state(prepared, config):
    dropping = SegmenterConfig(
        channels=(4, 8), patch=(8, 12, 16), batch_size=1, dropout=0.5, precision="float32"
    )
    state = torch.random.get_rng_state()

    train(
        prepared,
        SPACING,
        dropping,
        seed=0,
        steps=1,
        checkpoint_steps=frozenset(),
        keep=lambda step, weights: None,
        device=CPU,
    )

    assert torch.equal(state, torch.random.get_rng_state())
