"""The YAML of a flow as pydantic models: unknown keys are errors, and all mistakes are told at once."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from cohort.budget import CURRENCIES, Budget, CostModel
from cohort.case import check_case_id
from cohort.errors import ConfigError, DataError
from cohort.selection import Strategy, resolve
from cohort.selection.base import Guard
from flows.filter_config import PseudoLabelsModel
from flows.requests import Unit
from flows.segmenter_config import FAMILY_TAGS, SegmenterModel
from flows.strict_model import Model
from sentinel.config import SentinelConfig
from sentinel.estimators.registry import estimator_entry

setattr(SentinelConfig, "__pydantic_config__", ConfigDict(extra="forbid", allow_inf_nan=False))  # noqa: B010

_PATIENTS_NEEDED = {"nothing": 1, "references": 1, "sentinel": 2, "fused": 3}

WHERE_AND_HOW = frozenset(
    {
        "campaigns_root",
        "root",
        "experiment",
        "data.root",
        "data.labelled",
        "data.unlabelled",
        "data.held_out",
        *(
            f"{place}segmenter.resources.{key}"
            for place in ("", "unseen.")
            for key in ("cache_gib", "loaders", "save_every")
        ),
    }
)
"""Keys that may change between two starts of one campaign: they do not say what is computed."""


def known_currency(value: str) -> str:
    """Refuse a currency that budgets are not counted in."""
    if value not in CURRENCIES:
        raise ValueError(f"unknown currency {value!r}; expected one of {', '.join(CURRENCIES)}")
    return value


def _campaign_name(value: str) -> str:
    try:
        check_case_id(value)
    except DataError as error:
        raise ValueError(f"{value!r} cannot name a folder; use letters, digits, '.', '_' and '-'") from error
    return value


def _known_strategy(value: str) -> str:
    resolve(value)
    return value


def _known_fallback(value: str | None) -> str | None:
    if value is not None and resolve(value)[1] is not None:
        raise ValueError(f"{value!r} needs an estimator itself; take one that needs none, such as random")
    return value


def _known_estimator(value: str | None) -> str | None:
    if value is not None:
        estimator_entry(value)
    return value


AnyModel = TypeVar("AnyModel", bound=BaseModel)
CampaignName = Annotated[str, AfterValidator(_campaign_name)]


class PhantomModel(Model):
    """The generated cohort."""

    cases: Annotated[int, Field(ge=2)] = 40
    seed: int = 0
    shape: tuple[PositiveInt, PositiveInt, PositiveInt] = (40, 96, 128)
    spacing_mm: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (5.0, 3.2, 3.2)


class DataModel(Model):
    """Where the scans are.

    `decathlon` reads `root`; `folders` reads `labelled`, `unlabelled` and `held_out` (each with `images/`
    and `labels/`) and needs `structures`; `phantom` generates the cohort into `root` (by default beside the
    campaigns).
    """

    layout: Literal["decathlon", "folders", "phantom"] = "decathlon"
    root: Path | None = None
    labelled: Path | None = None
    unlabelled: Path | None = None
    held_out: Path | None = None
    structures: dict[str, PositiveInt] = Field(default_factory=dict)
    held_out_cases: PositiveInt | None = None
    held_out_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.25
    phantom: PhantomModel = PhantomModel()

    @model_validator(mode="before")
    @classmethod
    def _infer_layout(cls, values: Any) -> Any:
        if isinstance(values, dict) and "layout" not in values and values.get("labelled"):
            return {**values, "layout": "folders"}
        return values

    @model_validator(mode="after")
    def _needs(self) -> "DataModel":
        if self.layout == "decathlon" and self.root is None:
            raise ValueError("the layout 'decathlon' needs data.root, the folder that holds dataset.json")
        if self.layout == "folders":
            missing = [
                f"data.{key}"
                for key in ("labelled", "unlabelled", "held_out", "structures")
                if not getattr(self, key)
            ]
            if missing:
                raise ValueError(f"the layout 'folders' needs {', '.join(missing)}")
        return self


class Configured(Model):
    """A configuration of a flow that works in a folder of its own."""

    @property
    def folder(self) -> Path:
        """Where everything that the flow makes goes."""
        raise NotImplementedError


class StartModel(Model):
    """The labelled cases of round 0: drawn at `random`, or `diverse`: unlike each other as images."""

    cases: PositiveInt = 4
    method: Literal["random", "diverse"] = "random"


class BudgetModel(Model):
    """What may be spent on annotation in each round, and what a minute of it is made of."""

    currency: Annotated[str, AfterValidator(known_currency)] = "cases"
    per_round: PositiveFloat = 4
    minutes_per_case: NonNegativeFloat = 2.0
    minutes_per_structure: NonNegativeFloat = 1.0
    minutes_per_slice: NonNegativeFloat = 0.2

    @property
    def limit(self) -> Budget:
        """What a round may spend."""
        return Budget(currency=self.currency, per_round=self.per_round)

    @property
    def cost_model(self) -> CostModel:
        """What an annotation costs."""
        return CostModel(
            minutes_per_case=self.minutes_per_case,
            minutes_per_structure=self.minutes_per_structure,
            minutes_per_slice=self.minutes_per_slice,
        )


class CrossFittingModel(Model):
    """Segmenters that each leave some labelled cases out, so that masks of known DSC teach the sentinel."""

    folds: Annotated[int, Field(ge=2)] = 2
    repeats: PositiveInt = 1
    steps: PositiveInt = 200
    checkpoint_steps: tuple[PositiveInt, ...] = ()

    @model_validator(mode="after")
    def _within(self) -> "CrossFittingModel":
        late = [step for step in self.checkpoint_steps if step > self.steps]
        if late:
            raise ValueError(f"checkpoint_steps {late} lie after the last step {self.steps}")
        return self


class TrialModel(Model):
    """The estimator on trial: what revealed DSC does with it.

    `recalibrate` puts predicted DSC and its bounds right by the masks of earlier rounds; `retrain_every` is
    the number of rounds that one sentinel serves. Where `fallback` names a strategy, it takes over in a round
    before which `min_cases` or more annotated cases do not show, with this `confidence`, that the estimator's
    order has to do with DSC.
    """

    recalibrate: bool = True
    retrain_every: PositiveInt = 1
    fallback: Annotated[str | None, AfterValidator(_known_fallback)] = "stratified"
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.9
    min_cases: PositiveInt = 12


class EvaluationModel(Model):
    """How the held-out cases are measured."""

    tolerance_mm: PositiveFloat | dict[str, PositiveFloat] = 1.0


class NoiseModel(Model):
    """How a simulated annotator errs; see `cohort.annotator_noise.AnnotatorNoise`."""

    boundary_mm: NonNegativeFloat = 0.0
    smoothness_mm: PositiveFloat = 10.0
    missed_slices: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    missed_structures: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0


class AnnotatorModel(Model):
    """Who annotates: `oracle` reveals the reference of a case, the others wait for people.

    `folder` takes label maps from a folder, `monailabel` from the datastore of a MONAI Label server. `format`
    is that of the files in the folder: label maps, or segmentations of 3D Slicer. `noise` is for the oracle
    alone.
    """

    kind: Literal["oracle", "folder", "monailabel"] = "oracle"
    format: Literal["nii.gz", "seg.nrrd"] = "nii.gz"
    noise: NoiseModel = NoiseModel()

    @model_validator(mode="after")
    def _fits_the_kind(self) -> "AnnotatorModel":
        if self.format != "nii.gz" and self.kind != "folder":
            raise ValueError(
                f"format {self.format} is for the annotator 'folder', but annotator.kind is {self.kind!r}"
            )
        if self.kind != "oracle" and self.noise != NoiseModel():
            raise ValueError(f"noise is for the annotator 'oracle', but annotator.kind is {self.kind!r}")
        return self


class ActiveLearningConfig(Configured):
    """A whole active-learning campaign."""

    name: CampaignName = "campaign"
    experiment: str = ""
    campaigns_root: Path = Path("campaigns")
    seed: NonNegativeInt = 0
    threads: NonNegativeInt = 0
    data: DataModel
    start: StartModel = StartModel()
    rounds: PositiveInt = 5
    budget: BudgetModel = BudgetModel()
    unit: Unit = "case"
    slices_per_slab: PositiveInt = 4
    strategy: Annotated[str, AfterValidator(_known_strategy)] = "quality"
    features: Literal["image", "segmenter"] = "image"
    strategy_options: dict[str, bool | int | float | str] = Field(default_factory=dict)
    estimator: Annotated[str | None, AfterValidator(_known_estimator)] = None
    segmenter: SegmenterModel
    cross_fitting: CrossFittingModel = CrossFittingModel()
    sentinel: SentinelConfig = SentinelConfig()
    trial: TrialModel = TrialModel()
    evaluation: EvaluationModel = EvaluationModel()
    annotator: AnnotatorModel = AnnotatorModel()
    pseudo_labels: PseudoLabelsModel | None = None

    @model_validator(mode="after")
    def _strategy_is_known(self) -> "ActiveLearningConfig":
        _ = self.resolved_strategy
        if self.features == "segmenter" and self.segmenter.family != "torch":
            raise ValueError(
                f"features is 'segmenter', but {self.segmenter.architecture} does not give any; "
                "set it to image"
            )
        if self.start.method == "diverse" and self.data.layout == "folders":
            raise ValueError(
                "start.method is 'diverse', but the layout 'folders' says itself which cases are labelled; "
                "remove start.method"
            )
        self._segmenter_yields_what_is_needed()
        self._weights_reach_the_loss()
        self._slices_can_be_ignored()
        self._folds_can_stop_early()
        needed = self.patients_needed
        if self.data.layout != "folders" and self.start.cases < needed:
            raise ValueError(
                f"start.cases is {self.start.cases}, but the estimator {', '.join(self.estimator_names)} "
                f"learns from cross-fitted masks, which take at least {needed}"
            )
        return self

    def _folds_can_stop_early(self) -> None:
        stopping = getattr(self.segmenter, "early_stopping", None)
        if stopping is None or not stopping.fraction or not self.cross_fits or self.data.layout == "folders":
            return
        folds = self.cross_fitting.folds
        smallest = self.start.cases - math.ceil(self.start.cases / folds)
        if math.floor(stopping.fraction * smallest) < 1:
            raise ValueError(
                f"early stopping holds back {stopping.fraction} of the labelled patients, which is nobody of "
                f"the {smallest} that a cross-fitted segmenter starts with (start.cases {self.start.cases}, "
                f"cross_fitting.folds {folds}): raise one of these, or leave early stopping out"
            )

    def _weights_reach_the_loss(self) -> None:
        weighted = self.pseudo_labels is not None and self.pseudo_labels.filter.weights != "none"
        if weighted and self.segmenter.family in ("nnunet", "command"):
            raise ValueError(
                f"pseudo-labels are weighted, but a segmenter of the family {self.segmenter.family!r} has "
                "its own loss, which no weight reaches; set weights to none"
            )

    def _slices_can_be_ignored(self) -> None:
        if self.unit == "slices" and self.segmenter.family != "torch":
            raise ValueError(
                f"unit is 'slices', but a segmenter of the family {self.segmenter.family!r} cannot ignore "
                "slices that nobody annotated; take a network of our own training loop, or unit case"
            )

    def _segmenter_yields_what_is_needed(self) -> None:
        for name in self.estimator_names:
            self._segmenter_yields(name)

    def _segmenter_yields(self, name: str) -> None:
        missing = sorted(estimator_entry(name).needs - self.segmenter.measures)
        if not missing:
            return
        if self.segmenter.family == "torch":
            raise ValueError(
                f"estimator is {name!r}, but segmenter.dropout is 0, so that every pass would be the same; "
                "set it, for example to 0.1"
            )
        raise ValueError(
            f"estimator is {name!r}, but predictions of {self.segmenter.architecture} do not yield "
            f"{', '.join(missing)}; take the estimator 'sentinel', which needs masks alone"
        )

    @property
    def folder(self) -> Path:
        """Folder of the campaign."""
        return self.campaigns_root / self.name

    @property
    def cross_fits(self) -> bool:
        """Whether the estimator learns from masks of labelled cases."""
        return self.patients_needed > 1

    @property
    def patients_needed(self) -> int:
        """Labelled patients that the estimators take to learn from; 1 where none learns anything."""
        own = [self.estimator_name] if self.estimator_name is not None else []
        learning = [*own, *(self.pseudo_labels.learning if self.pseudo_labels else ())]
        return max((_PATIENTS_NEEDED[estimator_entry(name).learns] for name in learning), default=1)

    @property
    def estimator_name(self) -> str | None:
        """The estimator that the strategy ranks by, None for a strategy that needs no scores."""
        return self.resolved_strategy[1]

    @property
    def uses_features(self) -> bool:
        """Whether a strategy of the campaign looks at features of images."""
        fallback = self.trial.fallback
        chosen = [self.resolved_strategy[0], *([resolve(fallback)[0]] if fallback else [])]
        return any(s.needs_features or (isinstance(s, Guard) and s.uses_features) for s in chosen)

    @property
    def resolved_strategy(self) -> tuple[Strategy, str | None]:
        """The strategy with its options, and the estimator that it ranks by."""
        return resolve(self.strategy, self.estimator, self.strategy_options)

    @property
    def estimator_names(self) -> tuple[str, ...]:
        """All estimators that score the pool: the strategy's, the filter's of pseudo-labels, its rivals."""
        own = [self.estimator_name] if self.estimator_name is not None else []
        return tuple(
            dict.fromkeys([*own, *(self.pseudo_labels.estimator_names if self.pseudo_labels else ())])
        )


def load_config(path: Path, overrides: Iterable[str] = ()) -> ActiveLearningConfig:
    """Read a YAML file and apply `key=value` overrides with dotted keys.

    Raises:
        ConfigError: with one line per mistake, each with its dotted key.
    """
    values = read_values(path, overrides)
    stem = path.stem
    strategy, seed = values.get("strategy", "quality"), values.get("seed", 0)
    estimator = f"-{values['estimator']}" if values.get("estimator") else ""
    unit = f"-by-{values['unit']}" if values.get("unit", "case") != "case" else ""
    values.setdefault("name", f"{stem}-{strategy}{estimator}{unit}-seed{seed}")
    values.setdefault("experiment", stem)
    return validated(ActiveLearningConfig, values, path)


def read_values(path: Path, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """What a YAML file holds, with `key=value` overrides applied.

    Raises:
        ConfigError: for a file that is missing or no YAML, or an override of another form.
    """
    values = _read_yaml(path)
    for override in overrides:
        _set(values, override)
    return values


def validated(model: type[AnyModel], values: Mapping[str, Any], path: Path) -> AnyModel:
    """The values as a model.

    Raises:
        ConfigError: with one line per mistake, each with its dotted key.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_all_mistakes(path, error)) from error


def as_dict(config: BaseModel) -> dict[str, Any]:
    """The configuration as plain JSON values."""
    values: dict[str, Any] = config.model_dump(mode="json")
    return values


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values under dotted keys.

    >>> flatten({"data": {"root": "x"}, "seed": 1})
    {'data.root': 'x', 'seed': 1}
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def config_sha256(values: Mapping[str, Any]) -> str:
    """Hash of what a configuration computes; where its data and its campaign lie does not count."""
    decisive = {key: value for key, value in flatten(values).items() if key not in WHERE_AND_HOW}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Dotted keys, with both values, in which two configurations compute different things."""
    was, now = flatten(old), flatten(new)
    keys = sorted((was.keys() | now.keys()) - WHERE_AND_HOW)
    return [f"{key}: {was.get(key)} -> {now.get(key)}" for key in keys if was.get(key) != now.get(key)]


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(f"The config file {path} does not exist; see configs/ for examples")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"The config file {path} is not valid YAML: {' '.join(str(error).split())}"
        ) from error
    if not isinstance(values, dict):
        raise ConfigError(f"The config file {path} holds {type(values).__name__}, expected keys and values")
    return values


def parse_override(override: str) -> tuple[str, Any]:
    """The dotted key and the value of `key=value`.

    Raises:
        ConfigError: for text of another form, or a value that is no YAML.
    """
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(
            f"--set {override!r} is not of the form key=value, for example --set data.root=scans"
        )
    try:
        return key, yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override!r}: the value is not valid YAML") from error


def _set(values: dict[str, Any], override: str) -> None:
    key, value = parse_override(override)
    try:
        set_value(values, key, value)
    except ConfigError as error:
        raise ConfigError(f"--set {override!r}: {error}") from error


def set_value(values: dict[str, Any], key: str, value: object) -> None:
    """Put a value under a dotted key.

    Raises:
        ConfigError: where a part of the key holds a value.
    """
    *parents, last = key.split(".")
    place = values
    for parent in parents:
        if not isinstance(place.setdefault(parent, {}), dict):
            raise ConfigError(f"{parent!r} holds a value, so nothing can be set below it")
        place = place[parent]
    place[last] = value


def _place(location: tuple[str | int, ...]) -> list[str]:
    """Keys as the file has them, without the family that pydantic adds."""
    after = ("", *location)
    return [
        str(part)
        for before, part in zip(after, location, strict=False)
        if not (before == "segmenter" and part in FAMILY_TAGS)
    ]


def _all_mistakes(path: Path, error: ValidationError) -> str:
    lines = []
    for mistake in error.errors():
        key = ".".join(_place(mistake["loc"])) or "(whole file)"
        message = mistake["msg"].removeprefix("Value error, ")
        if mistake["type"] in {"extra_forbidden", "unexpected_keyword_argument"}:
            message = "unknown key; remove it or correct its spelling"
        elif mistake["type"] == "union_tag_invalid":
            message = (
                f"unknown family {mistake['ctx']['tag']!r}; expected one of {', '.join(sorted(FAMILY_TAGS))}"
            )
        lines.append(f"  {key}: {message}")
    count = "1 mistake" if len(lines) == 1 else f"{len(lines)} mistakes"
    return f"The config {path} has {count}:\n" + "\n".join(lines)
