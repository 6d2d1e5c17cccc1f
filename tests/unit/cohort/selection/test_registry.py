import pytest

from cohort.errors import ConfigError
from cohort.selection.diversity import CoreSet, Diverse, Representative
from cohort.selection.guards import Guarded
from cohort.selection.power import Power, Schedule
from cohort.selection.quality import Quality
from cohort.selection.random import Random
from cohort.selection.registry import PRESETS, STRATEGIES, resolve
from cohort.selection.stratified import Stratified

QUALITY = Guarded(inner=Quality())


@pytest.mark.parametrize(
    ("strategy", "estimator", "expected"),
    [
        ("random", None, (Random(), None)),
        ("entropy", None, (QUALITY, "entropy")),
        ("entropy", "entropy", (QUALITY, "entropy")),
        ("quality", None, (QUALITY, "sentinel")),
        ("quality", "sentinel", (QUALITY, "sentinel")),
        ("quality", "entropy", (QUALITY, "entropy")),
        ("oracle-worst", None, (Quality(), "oracle")),
    ],
)
def test_names_and_what_they_mean(strategy: str, estimator: str | None, expected: object) -> None:
    assert resolve(strategy, estimator) == expected


def test_an_unknown_strategy_is_told_the_known_ones() -> None:
    with pytest.raises(
        ConfigError, match=r"Unknown strategy 'qualty'; expected one of bald, clasp, core_set, .*stratified"
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


def test_a_strategy_knows_its_name_and_what_it_wraps() -> None:
    assert {name: strategy.name for name, strategy in STRATEGIES.items()} == {
        "random": "random",
        "stratified": "stratified(random)",
        "core_set": "core_set",
        "quality": "quality",
        "quality_diverse": "power(representative(quality))",
        "clasp": "clasp",
        "gain_per_cost": "per_cost(deficit)",
    }


class TestOptions:
    def test_they_reach_the_strategy(self) -> None:
        strategy, estimator = resolve("quality_diverse", options={"beta_start": 2, "representativeness": 0.5})
        expected = Power(
            inner=Representative(inner=Quality(), weight=0.5), schedule=Schedule(start=2, end=8.0)
        )
        assert (strategy, estimator) == (Guarded(inner=expected), "sentinel")
        options = {"spread": 3.0, "representativeness": 0.0, "guards": False}
        assert resolve("quality_diverse", options=options)[0] == Diverse(
            inner=Power(inner=Quality()), factor=3.0
        )

    def test_those_of_the_guards_too(self) -> None:
        strategy, _ = resolve("entropy", options={"empty_share": 0.1, "duplicates": 0})
        assert strategy == Guarded(inner=Quality(), empty_share=0.1, duplicates=0)
        assert resolve("core_set")[0] == Guarded(inner=CoreSet())
        assert resolve("stratified")[0] == Stratified()

    @pytest.mark.parametrize(
        ("strategy", "options", "message"),
        [
            ("random", {"beta": 1}, "'random' has no option 'beta'; it has: none"),
            (
                "clasp",
                {"beta": 1},
                "'clasp' has no option 'beta'; it has: beta_end, beta_start, duplicates, empty_share, ",
            ),
            ("clasp", {"share": "much"}, "'share' of the strategy 'clasp' is 'much'; expected a number"),
            ("clasp", {"share": True}, "is True; expected a number"),
            ("stratified", {"sizes": 2.5}, "is 2.5; expected a whole number"),
            ("stratified", {"sizes": 0}, "Strata of 0 sizes"),
            ("stratified", {"allocation": "fair"}, "allocation is 'fair'; expected proportional or equal"),
            ("stratified", {"allocation": 1}, "is 1; expected a word"),
            ("quality_diverse", {"beta_end": 0}, "beta goes from 1.0 to 0"),
            ("quality_diverse", {"representativeness": -1.0}, "representativeness is -1.0"),
            ("quality_diverse", {"spread": 0.5}, "factor is 0.5; expected a number from 1"),
            ("clasp", {"share": 1.5}, "share is 1.5"),
            ("gain_per_cost", {"currency": "euros"}, "Unknown currency 'euros'"),
            ("quality", {"empty_share": 2.0}, "empty_share is 2.0; expected a share from 0 to 1"),
            ("quality", {"duplicates": -1.0}, "duplicates is -1.0; expected a number from 0"),
            (
                "quality",
                {"guards": "no"},
                "'guards' of the strategy 'quality' is 'no'; expected true or false",
            ),
        ],
    )
    def test_what_a_strategy_does_not_have(
        self, strategy: str, options: dict[str, object], message: str
    ) -> None:
        with pytest.raises(ConfigError, match=message):
            resolve(strategy, options=options)
