"""The parts of a YAML that say how a campaign's rounds go: budget, annotator, estimator, evaluation."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from cohort.budget import CURRENCIES, Budget, CostModel
from cohort.selection import resolve
from flows.strict_model import Model


def known_currency(value: str) -> str:
    """Refuse a currency that budgets are not counted in."""
    if value not in CURRENCIES:
        raise ValueError(f"unknown currency {value!r}; expected one of {', '.join(CURRENCIES)}")
    return value


def _known_fallback(value: str | None) -> str | None:
    if value is not None and resolve(value)[1] is not None:
        raise ValueError(f"{value!r} needs an estimator itself; take one that needs none, such as random")
    return value


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
