import pytest

from cohort.errors import ConfigError
from cohort.selection.quality import Quality
from cohort.selection.random import Random
from cohort.selection.registry import PRESETS, STRATEGIES, resolve


@pytest.mark.parametrize(
    ("strategy", "estimator", "expected"),
    [
        ("random", None, (Random(), None)),
        ("entropy", None, (Quality(), "entropy")),
        ("entropy", "entropy", (Quality(), "entropy")),
        ("quality", None, (Quality(), "sentinel")),
        ("quality", "sentinel", (Quality(), "sentinel")),
        ("quality", "entropy", (Quality(), "entropy")),
    ],
)
def test_names_and_what_they_mean(strategy: str, estimator: str | None, expected: object) -> None:
    assert resolve(strategy, estimator) == expected


def test_an_unknown_strategy_is_told_the_known_ones() -> None:
    with pytest.raises(
        ConfigError, match="Unknown strategy 'qualty'; expected one of entropy, oracle-worst, quality, random"
    ):
        resolve("qualty", None)


@pytest.mark.parametrize(
    ("strategy", "estimator", "message"),
    [
        ("random", "entropy", "'random' ranks without quality scores, but estimator 'entropy' is set"),
        ("entropy", "sentinel", "'entropy' is short for 'quality' with estimator 'entropy'"),
    ],
)
def test_an_estimator_that_contradicts_the_strategy(strategy: str, estimator: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(strategy, estimator)


def test_registries_cannot_be_changed() -> None:
    with pytest.raises(TypeError, match="does not support item assignment"):
        STRATEGIES["mine"] = Random()  # type: ignore[index]
    with pytest.raises(TypeError, match="does not support item assignment"):
        PRESETS["mine"] = (Random(), None)  # type: ignore[index]


def test_a_strategy_knows_its_name() -> None:
    assert {name: strategy.name for name, strategy in STRATEGIES.items()} == {
        name: name for name in STRATEGIES
    }
