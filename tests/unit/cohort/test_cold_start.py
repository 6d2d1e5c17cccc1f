import numpy as np
import pytest

from cohort.cold_start import choose_diverse_start
from cohort.errors import ConfigError

NAMES = [f"c{n}" for n in range(30)]
CLUSTERS = np.repeat(np.eye(3, dtype=np.float32) * 50.0, 10, axis=0)
CLUSTERS = CLUSTERS + np.random.default_rng(0).normal(0.0, 0.1, CLUSTERS.shape).astype(np.float32)


def test_every_cluster_is_in_the_start_set() -> None:
    for seed in range(20):
        chosen = choose_diverse_start(NAMES, CLUSTERS, count=3, seed=seed)
        assert {int(name[1:]) // 10 for name in chosen} == {0, 1, 2}


def test_the_order_of_the_cases_does_not_matter() -> None:
    order = np.random.default_rng(1).permutation(30)
    expected = choose_diverse_start(NAMES, CLUSTERS, count=7, seed=4)
    assert choose_diverse_start([NAMES[n] for n in order], CLUSTERS[order], count=7, seed=4) == expected
    assert len(set(expected)) == 7


def test_the_seed_decides() -> None:
    found = {choose_diverse_start(NAMES, CLUSTERS, count=1, seed=seed) for seed in range(30)}
    assert len(found) > 10


def test_copies_are_drawn_where_nothing_else_is_left() -> None:
    same = np.zeros((4, 2), dtype=np.float32)
    assert set(choose_diverse_start(list("abcd"), same, count=4, seed=0)) == set("abcd")


@pytest.mark.parametrize("count", [0, 31])
def test_a_count_that_cannot_be(count: int) -> None:
    with pytest.raises(ConfigError, match=f"start set of {count} cases was asked for, but 30 cases"):
        choose_diverse_start(NAMES, CLUSTERS, count=count, seed=0)
