"""The part of a YAML that says which predicted masks become pseudo-labels."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from cohort.filtering import Filter, make_filter
from cohort.filtering.fraction import Unit
from cohort.filtering.registry import FilterSettings
from flows.strict_model import Model
from sentinel.estimators.registry import estimator_entry


def _known_estimators(values: tuple[str, ...]) -> tuple[str, ...]:
    for name in values:
        estimator_entry(name)
    return values


class FilterModel(Model):
    """Which masks are kept, and who judges them.

    `size_strata` takes the fraction of each of so many groups of masks of alike predicted size.
    `estimator` is not used by the kinds `random` and `unfiltered`. `sentinel` names a trained sentinel's file
    to judge with, in place of one that learns from the labelled cases.
    """

    kind: str = "top_fraction"
    estimator: str = "sentinel"
    sentinel: Path | None = None
    keep: float = 0.5
    per: Unit = "structure"
    size_strata: PositiveInt = 1
    minimum: float = 0.8
    balance: float | None = None
    weights: Literal["none", "predicted_dsc", "rank"] = "none"
    lowest_weight: float = 0.1
    keep_absent: bool = False

    @model_validator(mode="after")
    def _makes_sense(self) -> "FilterModel":
        estimator_entry(self.estimator)
        if self.size_strata > 1 and (self.kind != "top_fraction" or self.per != "structure"):
            raise ValueError(
                "filter.size_strata is for filter.kind top_fraction with filter.per structure: the best of "
                "each size are kept; leave it out, or change these"
            )
        needs = self.rule.needs
        if self.keep_absent and self.reads_references:
            raise ValueError(
                f"filter.keep_absent is true, but {self.estimator!r} names the empty masks that are wrong, "
                "not those that are right; leave keep_absent out, or take another estimator"
            )
        if self.sentinel is not None and self.estimator != "sentinel":
            raise ValueError(
                f"filter.sentinel names a sentinel, but filter.estimator is {self.estimator!r}; remove one"
            )
        if needs == "nothing" or needs == "raw":
            return self
        given = estimator_entry(self.estimator).gives | ({"lower"} if self.sentinel else set())
        if needs not in given:
            raise ValueError(_cannot(self.estimator, needs, bool(given)))
        return self

    @property
    def rule(self) -> Filter:
        """The filter."""
        return make_filter(
            FilterSettings(
                kind=self.kind,
                keep=self.keep,
                per=self.per,
                minimum=self.minimum,
                balance=self.balance,
                weights=self.weights,
                lowest_weight=self.lowest_weight,
            )
        )

    @property
    def estimator_name(self) -> str | None:
        """Who judges the masks; None where nobody has to."""
        return None if self.rule.needs == "nothing" else self.estimator

    @property
    def arm(self) -> str:
        """What tells it from other filters in the name of a campaign."""
        if self.estimator_name is None:
            return self.kind  # weights need an estimator
        name = self.estimator if self.kind == "top_fraction" else f"{self.estimator}-{self.kind}"
        name = name if self.size_strata == 1 else f"{name}-of-each-size"
        return name if self.weights == "none" else f"{name}-weighted"

    @property
    def reads_references(self) -> bool:
        """Whether it is an upper bound, which nobody without references can use."""
        return self.estimator_name is not None and estimator_entry(self.estimator).reads_references


class PseudoLabelsModel(Model):
    """Pseudo-labels beside annotations: which ones, and what else is measured of them.

    `good_dsc` is the DSC above which a kept mask counts as good, where references tell. `rivals` are other
    estimators that judge the same masks for comparison; their cost is measured too. Both are a
    semi-supervised training's own: a campaign that annotates measures nothing of its pseudo-labels.
    """

    filter: FilterModel = FilterModel()
    good_dsc: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.8
    rivals: Annotated[tuple[str, ...], AfterValidator(_known_estimators)] = ()

    @property
    def estimator_names(self) -> tuple[str, ...]:
        """All that judge masks: the filter's own first, then its rivals."""
        own = self.filter.estimator_name
        return tuple(dict.fromkeys([*([own] if own else []), *self.rivals]))

    @property
    def learning(self) -> tuple[str, ...]:
        """Those that have to learn from the labelled cases first."""
        ready = {"sentinel"} if self.filter.sentinel is not None else set[str]()
        return tuple(
            name
            for name in self.estimator_names
            if name not in ready and estimator_entry(name).learns in ("sentinel", "fused")
        )


def _cannot(estimator: str, needs: str, predicts: bool) -> str:
    if needs == "lower" and predicts:
        return (
            f"filter.kind reads the lower bound of the DSC, but the estimator {estimator!r} has none in a "
            "campaign, where nothing is left to calibrate it on; take 'fused', or name a calibrated sentinel "
            "with filter.sentinel"
        )
    return (
        f"the filter reads the predicted DSC, but the estimator {estimator!r} is not calibrated to DSC and "
        "only ranks; take filter.kind top_fraction (and weights none or rank), or the estimator sentinel or "
        "fused"
    )
