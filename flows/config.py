"""The YAML of an active-learning campaign as a pydantic model: all mistakes are told at once."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from cohort.selection import Strategy, resolve
from cohort.selection.base import Guard
from cohort.selection.per_cost import Deficit
from cohort.selection.wrapper import Wrapper
from flows.config_files import read_values, validated
from flows.data_config import DataModel
from flows.filter_config import PseudoLabelsModel
from flows.network_config import SegmenterModel, SentinelModel
from flows.requests import Unit
from flows.round_config import (
    AnnotatorModel,
    BudgetModel,
    CrossFittingModel,
    EvaluationModel,
    StartModel,
    TrialModel,
)
from flows.strict_model import CampaignName, Configured
from sentinel.estimators.registry import estimator_entry

_PATIENTS_NEEDED = {"nothing": 1, "references": 1, "sentinel": 2, "fused": 3}


def _known_strategy(value: str) -> str:
    resolve(value)
    return value


def _known_estimator(value: str | None) -> str | None:
    if value is not None:
        estimator_entry(value)
    return value


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
    sentinel: SentinelModel = SentinelModel()
    trial: TrialModel = TrialModel()
    evaluation: EvaluationModel = EvaluationModel()
    annotator: AnnotatorModel = AnnotatorModel()
    pseudo_labels: PseudoLabelsModel | None = None

    @field_validator("pseudo_labels", mode="before")
    @classmethod
    def _measures_none_of_them(cls, given: object) -> object:
        """A file's own values; a semi-supervised training, which measures them, hands over the model."""
        if not isinstance(given, Mapping):
            return given
        default = PseudoLabelsModel().good_dsc
        if given.get("rivals") or given.get("good_dsc", default) != default:
            raise ValueError(
                "rivals and good_dsc cannot be set in a campaign that annotates, which measures nothing of "
                "its pseudo-labels; remove them, or run sentinel-loop semi-supervised"
            )
        return given

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
        self._gain_is_a_dsc()
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

    def _gain_is_a_dsc(self) -> None:
        strategy, estimator = self.resolved_strategy
        while isinstance(strategy, Wrapper):
            strategy = strategy.inner
        if isinstance(strategy, Deficit) and "predicted_dsc" not in estimator_entry(str(estimator)).gives:
            raise ValueError(
                f"strategy is {self.strategy!r}, which reads how much DSC a mask lacks, but the estimator "
                f"{estimator!r} only ranks; take sentinel or fused"
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
    def reads_references(self) -> bool:
        """Whether an estimator needs the references of the pool."""
        return any(estimator_entry(name).reads_references for name in self.estimator_names)

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
