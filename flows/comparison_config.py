"""The YAML of a comparison: arms of one campaign, their seeds, and what was declared before any was run.

What is varied is an active-learning campaign (`campaign`) or a semi-supervised training (`semi_supervised`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, NonNegativeInt, model_validator

from cohort.errors import ConfigError
from flows.config import ActiveLearningConfig
from flows.config_files import as_dict, flatten, parse_override, read_values, set_value, validated
from flows.round_config import known_currency
from flows.semi_supervised_config import SemiSupervisedConfig
from flows.strict_model import CampaignName, Model
from sentinel.estimators.registry import estimator_entry

CAMPAIGNS = "campaigns"
OWN_KEYS = ("name", "root", "seeds", "control", "currency", "keep", "groups")
"""Keys of the comparison that `--set` reaches; every other key is one of the campaigns."""

_NAMED_BY_THE_COMPARISON = ("name", "experiment", "campaigns_root", "seed")
_SAME_FOR_ALL = (
    "data.",
    "start.",
    "segmenter.",
    "evaluation.",
    "annotator.",
    "budget.minutes_",
    "rounds",
    "generations",
    "unlabelled",
    "contoured_only",
    "good_dsc",
    "threads",
)
"""What pairs two arms: keys, or beginnings of keys, that no arm may change."""

_AN_ARM_MAY = ("segmenter.semi_supervision.",)
"""What an arm may change all the same: how its training uses images without annotation."""


def pairs_arms(key: str) -> bool:
    """Whether two arms are no pair unless they have a (dotted) key in common."""
    return key.startswith(_SAME_FOR_ALL) and not key.startswith(_AN_ARM_MAY)


Seeds = Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)]


class ArmModel(Model):
    """One way to choose what to annotate.

    `set` holds dotted keys of the campaign with their values; `seeds` are those of the comparison if left
    out; `currency` is the axis of its secondary contrasts, where parts of cases are annotated, say.
    """

    changes: dict[str, Any] = Field(default_factory=dict, alias="set")
    seeds: Seeds | None = None
    currency: Annotated[str, AfterValidator(known_currency)] | None = None


class ContrastModel(Model):
    """Two arms, and the seeds on which the first is compared with the second."""

    arm: str
    against: str
    seeds: Seeds | None = None


class ComparisonConfig(Model):
    """A whole comparison; `campaign` or `semi_supervised` is a path from the folder of the file."""

    name: CampaignName
    root: Path = Path("comparisons")
    campaign: Path | None = None
    semi_supervised: Path | None = None
    changes: dict[str, Any] = Field(default_factory=dict, alias="set")
    seeds: Seeds
    control: str = "random"
    primary: ContrastModel | None = None
    currency: Annotated[str, AfterValidator(known_currency)] = "cases"
    keep: Literal["all", "light"] = "all"
    groups: Path | None = None
    arms: Annotated[dict[CampaignName, ArmModel], Field(min_length=1)]

    @model_validator(mode="after")
    def _is_paired(self) -> "ComparisonConfig":
        mistakes = [*self._unknown_base(), *self._unknown_arms(), *self._repeated_seeds()]
        if not mistakes:
            mistakes = [*self._unpaired_arms(), *self._undeclared_seeds()]
        if mistakes:
            raise ValueError("; ".join(mistakes))
        return self

    @property
    def folder(self) -> Path:
        """Folder of the comparison."""
        return self.root / self.name

    @property
    def base(self) -> Path:
        """YAML of what the arms are variants of, from the folder of the comparison's file."""
        return self.campaign or self.semi_supervised or Path()

    @property
    def campaigns_root(self) -> Path:
        """Folder that holds its campaigns."""
        return self.folder / CAMPAIGNS

    def seeds_of(self, arm: str) -> tuple[int, ...]:
        """Seeds of an arm."""
        return self.arms[arm].seeds or self.seeds

    def axis(self, arm: str, against: str) -> str:
        """Currency of a contrast that was not declared: that of the arm which names one."""
        named = {self.arms[name].currency for name in (arm, against)} - {None, self.currency}
        return str(named.pop()) if len(named) == 1 else self.currency

    @property
    def primary_seeds(self) -> tuple[int, ...]:
        """Seeds on which the primary contrast rests; none where none was declared."""
        if self.primary is None:
            return ()
        return self.primary.seeds or self.seeds_of(self.primary.arm)

    def secondary_arms(self) -> tuple[str, ...]:
        """Arms whose contrast with the control is secondary: all others, but for the declared pair."""
        declared = {self.primary.arm, self.primary.against} if self.primary else set()
        return tuple(arm for arm in self.arms if arm != self.control and {arm, self.control} != declared)

    def _unknown_base(self) -> list[str]:
        if (self.campaign is None) is (self.semi_supervised is None):
            return ["name what the arms vary: either 'campaign' or 'semi_supervised', the path of its YAML"]
        if self.semi_supervised is not None and self.groups is not None:
            return [
                "groups is for campaigns; a comparison of semi_supervised trainings has no tables of groups"
            ]
        return []

    def _unknown_arms(self) -> list[str]:
        named = {"control": self.control}
        if self.primary is not None:
            named |= {"primary.arm": self.primary.arm, "primary.against": self.primary.against}
        return [
            f"{key} is {arm!r}, which is none of the arms {', '.join(self.arms)}"
            for key, arm in named.items()
            if arm not in self.arms
        ]

    def _repeated_seeds(self) -> list[str]:
        listed = {"seeds": self.seeds, **{f"arms.{arm}.seeds": self.seeds_of(arm) for arm in self.arms}}
        return [
            f"{key} names a seed twice: {list(seeds)}"
            for key, seeds in listed.items()
            if len(set(seeds)) < len(seeds)
        ]

    def _unpaired_arms(self) -> list[str]:
        control = set(self.seeds_of(self.control))
        return [
            f"arms.{arm}: seeds {missing} have no run of the control {self.control!r} to be paired with; "
            "give these seeds to the control too"
            for arm in self.arms
            if (missing := sorted(set(self.seeds_of(arm)) - control))
        ]

    def _undeclared_seeds(self) -> list[str]:
        if self.primary is None:
            return []
        if self.primary.arm == self.primary.against:
            return [f"primary compares {self.primary.arm!r} with itself"]
        return [
            f"primary.seeds: the arm {arm!r} is not run with the seeds {missing}"
            for arm in (self.primary.arm, self.primary.against)
            if (missing := sorted(set(self.primary_seeds) - set(self.seeds_of(arm))))
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One campaign of a comparison, or one semi-supervised training.

    Args:
        arm: name.
        seed: of the campaign.
        config: of the campaign.
    """

    arm: str
    seed: int
    config: ActiveLearningConfig | SemiSupervisedConfig

    @property
    def name(self) -> str:
        """Name of the campaign."""
        return self.config.name

    @property
    def folder(self) -> Path:
        """Folder of the campaign."""
        return self.config.folder

    @property
    def rounds(self) -> int:
        """How often it is measured on the held-out cases."""
        own = self.config
        return own.rounds if isinstance(own, ActiveLearningConfig) else own.generations + 1

    @property
    def reads_references(self) -> bool:
        """Whether the arm ranks by what only an annotation could know: an upper bound, no strategy."""
        if isinstance(self.config, SemiSupervisedConfig):
            return self.config.filter.reads_references
        promoting = self.config.pseudo_labels
        if promoting is not None and promoting.filter.reads_references:
            return True
        name = self.config.estimator_name
        return name is not None and estimator_entry(name).reads_references


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A comparison and all its campaigns.

    Args:
        config: of the comparison.
        units: its campaigns in the order in which they are run: arms, then seeds.
    """

    config: ComparisonConfig
    units: tuple[Unit, ...]

    def only(self, arms: Iterable[str] = (), seeds: Iterable[int] = ()) -> tuple[Unit, ...]:
        """The units of some arms and seeds; of all where none is named.

        Raises:
            ConfigError: for an arm or a seed that the comparison does not have.
        """
        arms, seeds = tuple(arms), tuple(seeds)
        for kind, named, known in (
            ("arm", arms, {unit.arm: None for unit in self.units}),
            ("seed", seeds, {unit.seed: None for unit in self.units}),
        ):
            unknown = [str(name) for name in named if name not in known]
            if unknown:
                raise ConfigError(
                    f"The comparison {self.config.name} has no {kind} {', '.join(unknown)}; "
                    f"it has {', '.join(map(str, known))}"
                )
        return tuple(
            unit
            for unit in self.units
            if (not arms or unit.arm in arms) and (not seeds or unit.seed in seeds)
        )


def load_comparison(path: Path, overrides: Iterable[str] = ()) -> Comparison:
    """Read the YAML of a comparison and of the campaign that it varies.

    Args:
        path: of the comparison's YAML.
        overrides: `key=value`, for a key of `OWN_KEYS` of the comparison, for any other of all campaigns.

    Raises:
        ConfigError: for unknown keys, arms that are not paired, or arms that change what must be the same.
    """
    values = read_values(path)
    values.setdefault("name", path.stem)
    for key, value in map(parse_override, overrides):
        if key in OWN_KEYS:
            values[key] = value
        else:
            values["set"] = {**(values.get("set") or {}), key: value}
    config = validated(ComparisonConfig, values, path)
    base = read_values(path.parent / config.base)
    return Comparison(config=config, units=_units(config, base, path))


def _units(config: ComparisonConfig, base: Mapping[str, Any], path: Path) -> tuple[Unit, ...]:
    mistakes = list(_renamed(config))
    units: list[Unit] = []
    for arm in config.arms:
        for seed in config.seeds_of(arm):
            try:
                campaign = _validated(config, _campaign_values(config, base, arm, seed), path)
            except ConfigError as error:
                mistakes.append(f"arms.{arm}: {error}")
                break
            units.append(Unit(arm=arm, seed=seed, config=campaign))
    mistakes.extend(_not_the_same(config, units))
    if mistakes:
        raise ConfigError(f"The comparison {path} cannot be run:\n" + "\n".join(f"  {m}" for m in mistakes))
    return tuple(units)


def _validated(
    config: ComparisonConfig, values: dict[str, Any], path: Path
) -> ActiveLearningConfig | SemiSupervisedConfig:
    if config.semi_supervised is not None:
        return validated(SemiSupervisedConfig, values, path)
    return validated(ActiveLearningConfig, values, path)


def _campaign_values(
    config: ComparisonConfig, base: Mapping[str, Any], arm: str, seed: int
) -> dict[str, Any]:
    values = _copied(base)
    for key, value in (flatten(config.changes) | flatten(config.arms[arm].changes)).items():
        set_value(values, key, value)
    return values | {
        "name": f"{arm}-seed{seed}",
        "experiment": config.name,
        "campaigns_root": config.campaigns_root,
        "seed": seed,
    }


def _renamed(config: ComparisonConfig) -> Iterable[str]:
    places = {"set": config.changes, **{f"arms.{arm}.set": each.changes for arm, each in config.arms.items()}}
    for place, changes in places.items():
        for key in _NAMED_BY_THE_COMPARISON:
            if key in flatten(changes):
                yield f"{place}.{key}: the comparison gives this to its campaigns itself; remove it"


def _not_the_same(config: ComparisonConfig, units: Iterable[Unit]) -> Iterable[str]:
    """Keys in which an arm differs from the control although they pair the two."""
    first: dict[str, dict[str, Any]] = {}
    for unit in units:
        first.setdefault(unit.arm, flatten(as_dict(unit.config)))
    control = first.get(config.control, {})
    for arm, values in first.items():
        for key in sorted(values.keys() | control.keys()) if control else ():
            if pairs_arms(key) and values.get(key) != control.get(key):
                yield (
                    f"arms.{arm}.set.{key}: {values.get(key)} here, {control.get(key)} in the control "
                    f"{config.control!r}; arms must have this in common: set it for all of them under 'set'"
                )


def _copied(values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy whose nested mappings can be changed."""
    return {key: _copied(value) if isinstance(value, Mapping) else value for key, value in values.items()}


def listed(text: str) -> tuple[str, ...]:
    """Names that are separated by commas.

    >>> listed("random, quality")
    ('random', 'quality')
    """
    return tuple(part.strip() for part in text.split(",") if part.strip())


def numbers(text: str) -> tuple[int, ...]:
    """Whole numbers that are separated by commas.

    Raises:
        ConfigError: for anything else.

    >>> numbers("0,2")
    (0, 2)
    """
    try:
        return tuple(int(part) for part in listed(text))
    except ValueError as error:
        raise ConfigError(f"--seeds is {text!r}, expected whole numbers such as 0,1") from error
