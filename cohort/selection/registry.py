"""The strategies by name, and the short names that pair one with an estimator."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, cast

from cohort.errors import ConfigError
from cohort.selection.base import Strategy
from cohort.selection.clasp import Clasp
from cohort.selection.diversity import CoreSet, Diverse, Representative
from cohort.selection.guards import Guarded
from cohort.selection.options import checked
from cohort.selection.per_cost import Deficit, PerCost
from cohort.selection.power import Power, Schedule
from cohort.selection.quality import Quality
from cohort.selection.random import Random
from cohort.selection.stratified import Stratified


def _random() -> Strategy:
    return Random()


def _stratified(sizes: int = 3, rare: float = 0.05, allocation: str = "proportional") -> Strategy:
    kind = cast(Literal["proportional", "equal"], allocation)
    return Stratified(sizes=sizes, rare=rare, allocation=kind)


def _core_set() -> Strategy:
    return CoreSet()


def _quality() -> Strategy:
    return Quality()


def _quality_diverse(
    beta_start: float = 1.0, beta_end: float = 8.0, representativeness: float = 1.0, spread: float = 0.0
) -> Strategy:
    inner: Strategy = Quality()
    if representativeness:
        inner = Representative(inner=inner, weight=representativeness)
    inner = Power(inner=inner, schedule=Schedule(start=beta_start, end=beta_end))
    return Diverse(inner=inner, factor=spread) if spread else inner


def _clasp(share: float = 0.75, beta_start: float = 1.0, beta_end: float = 8.0) -> Strategy:
    return Clasp(share=share, schedule=Schedule(start=beta_start, end=beta_end))


def _gain_per_cost(currency: str = "minutes") -> Strategy:
    return PerCost(inner=Deficit(), currency=currency, from_zero=True)


def _guard(
    guards: bool = True,
    duplicates: float = 0.05,
    empty_share: float = 0.5,
    outlier_share: float = 0.25,
    outlier_bound: float = 5.0,
) -> Callable[[Strategy], Strategy]:
    def wrap(inner: Strategy) -> Strategy:
        return Guarded(
            inner=inner,
            duplicates=duplicates,
            empty_share=empty_share,
            outlier_share=outlier_share,
            outlier_bound=outlier_bound,
        )

    return wrap if guards else lambda inner: inner


BUILDERS: Mapping[str, Callable[..., Strategy]] = MappingProxyType(
    {
        "random": _random,
        "stratified": _stratified,
        "core_set": _core_set,
        "quality": _quality,
        "quality_diverse": _quality_diverse,
        "clasp": _clasp,
        "gain_per_cost": _gain_per_cost,
    }
)
"""Strategy name -> what builds it; the keywords of the builder are the options of the strategy."""


def build_strategy(name: str, options: Mapping[str, object], *, shown: str = "") -> Strategy:
    """A strategy with its options; all but random ones are guarded, unless the option `guards` is false.

    Args:
        name: in `BUILDERS`.
        options: of the strategy and of `Guarded`; what is left out has its default.
        shown: what the configuration calls it.

    Raises:
        ConfigError: for an option that the strategy does not have, or a value that makes no sense.
    """
    build = BUILDERS[name]
    plain = build()
    if not (plain.needs_scores or plain.needs_features):
        return build(**checked(shown or name, options, build)[0])
    own, of_guard = checked(shown or name, options, build, _guard)
    return _guard(**of_guard)(build(**own))


STRATEGIES: Mapping[str, Strategy] = MappingProxyType({name: build_strategy(name, {}) for name in BUILDERS})
"""Strategy name -> strategy with its default options."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A name of a configuration.

    Args:
        strategy: name in `BUILDERS`.
        estimator: that it ranks by, None for a strategy that needs no scores.
        fixed: whether the name stands for that estimator alone.
        options: of the strategy, where they are not its defaults.
    """

    strategy: str
    estimator: str | None
    fixed: bool = False
    options: Mapping[str, object] = field(default_factory=dict, hash=False)


_PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "random": Preset(strategy="random", estimator=None),
        "stratified": Preset(strategy="stratified", estimator=None),
        "core_set": Preset(strategy="core_set", estimator=None),
        "quality": Preset(strategy="quality", estimator="sentinel"),
        "quality_diverse": Preset(strategy="quality_diverse", estimator="sentinel"),
        "gain_per_cost": Preset(strategy="gain_per_cost", estimator="sentinel"),
        "clasp": Preset(strategy="clasp", estimator="predictive_entropy"),
        "oracle-worst": Preset(strategy="quality", estimator="oracle", fixed=True, options={"guards": False}),
        **{
            name: Preset(strategy="quality", estimator=name, fixed=True)
            for name in ("entropy", "predictive_entropy", "bald", "mc_dropout", "inconsistency", "fused")
        },
    }
)

PRESETS: Mapping[str, tuple[Strategy, str | None]] = MappingProxyType(
    {
        name: (build_strategy(preset.strategy, preset.options), preset.estimator)
        for name, preset in _PRESETS.items()
    }
)
"""What a config may name: short name -> strategy and the estimator that it ranks by (None: no scores)."""


def resolve(
    strategy: str, estimator: str | None = None, options: Mapping[str, object] | None = None
) -> tuple[Strategy, str | None]:
    """The strategy and the estimator that a config means.

    Args:
        strategy: a name of `PRESETS`.
        estimator: replaces the preset's own estimator; None keeps it. Whether an estimator of that name
            exists is for the room that has the estimators to say.
        options: of the strategy; what is left out has its default.

    Raises:
        ConfigError: for an unknown strategy or option, or an estimator that contradicts the strategy.

    >>> resolve("quality", "entropy", {"guards": False})
    (Quality(), 'entropy')
    >>> resolve("random")
    (Random(), None)
    """
    if strategy not in _PRESETS:
        raise ConfigError(f"Unknown strategy {strategy!r}; expected one of {', '.join(sorted(_PRESETS))}")
    preset = _PRESETS[strategy]
    chosen = build_strategy(preset.strategy, {**preset.options, **(options or {})}, shown=strategy)
    if estimator is None or estimator == preset.estimator:
        return chosen, preset.estimator
    if not chosen.needs_scores:
        raise ConfigError(
            f"Strategy {strategy!r} ranks without quality scores, but estimator {estimator!r} is set; "
            "remove the estimator or use the strategy 'quality'"
        )
    if preset.fixed:
        raise ConfigError(
            f"Strategy {strategy!r} is short for {preset.strategy!r} with estimator {preset.estimator!r}, "
            f"but estimator {estimator!r} is set; use the strategy {preset.strategy!r} with it"
        )
    return chosen, estimator
