"""What an annotation costs: cases, structures, slices, foreground voxels, minutes."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from cohort.case import Structure
from cohort.errors import ConfigError
from cohort.records import Prediction
from cohort.slabs import Slab, cropped
from cohort.volume import Array

CURRENCIES = ("cases", "structures", "slices", "foreground_voxels", "minutes")
"""What a budget can be counted in."""

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What annotating costs, in every currency at once.

    Args:
        cases: number of cases opened.
        structures: number of structures contoured, summed over cases; one that turned out to be absent
            counts, since someone looked for it.
        slices: axial slices (first array axis) with foreground, summed over structures.
        foreground_voxels: voxels of all contoured structures.
        minutes: time of the annotator.
    """

    cases: float = 0.0
    structures: float = 0.0
    slices: float = 0.0
    foreground_voxels: float = 0.0
    minutes: float = 0.0

    def __post_init__(self) -> None:
        for currency, amount in self.as_dict().items():
            if not 0.0 <= amount < math.inf:
                raise ConfigError(f"A cost of {amount} {currency} makes no sense; expected 0 or more")

    def __add__(self, other: "Cost") -> "Cost":
        theirs = other.as_dict()
        return Cost(**{name: amount + theirs[name] for name, amount in self.as_dict().items()})

    @classmethod
    def zero(cls) -> "Cost":
        """The cost of nothing."""
        return cls()

    @classmethod
    def total(cls, costs: Iterable["Cost"]) -> "Cost":
        """Sum of many costs, rounded once, so that their order does not matter."""
        amounts = [cost.as_dict() for cost in costs]
        return cls(**{name: math.fsum(amount[name] for amount in amounts) for name in CURRENCIES})

    def as_dict(self) -> dict[str, float]:
        """Currency -> amount."""
        return {
            "cases": self.cases,
            "structures": self.structures,
            "slices": self.slices,
            "foreground_voxels": self.foreground_voxels,
            "minutes": self.minutes,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CostModel:
    """How many minutes an annotator is expected to take where nobody kept the time."""

    minutes_per_case: float = 2.0
    minutes_per_structure: float = 1.0
    minutes_per_slice: float = 0.2

    def __post_init__(self) -> None:
        for name in ("minutes_per_case", "minutes_per_structure", "minutes_per_slice"):
            value = getattr(self, name)
            if not 0.0 <= value < math.inf:
                raise ConfigError(f"{name} is {value}; expected a number of minutes, 0 or more")

    def cost(
        self, *, structures: int, slices: int, foreground_voxels: int, minutes: float | None = None
    ) -> Cost:
        """Cost of one case. `minutes` is what the annotator took, None to estimate it.

        A case in which no structure is asked for is not opened and costs nothing.
        """
        if structures == 0:
            return Cost.zero()
        estimated = (
            self.minutes_per_case + self.minutes_per_structure * structures + self.minutes_per_slice * slices
        )
        return Cost(
            cases=1.0,
            structures=float(structures),
            slices=float(slices),
            foreground_voxels=float(foreground_voxels),
            minutes=estimated if minutes is None else minutes,
        )


def annotation_cost(
    label_map: Array,
    structures: Sequence[Structure],
    model: CostModel,
    *,
    minutes: float | None = None,
    slabs: Sequence[Slab] = (),
) -> Cost:
    """True cost of an annotation that is back.

    Args:
        label_map: (D, H, W) whole numbers.
        structures: the annotated ones; other labels in the map cost nothing.
        model: estimates the minutes.
        minutes: what the annotator took, None to have the model estimate it.
        slabs: that were annotated; none: the whole volume.

    Returns:
        The cost of this one case. A structure without voxels has no slices, but counts as a structure. In
        several slabs it counts once for each, since it is looked for in each.
    """
    slices = voxels = 0
    for structure in structures:
        per_slice = np.count_nonzero(cropped(label_map, slabs) == structure.label, axis=(1, 2))
        slices += int(np.count_nonzero(per_slice))
        voxels += int(per_slice.sum())
    asked = len(structures) * max(1, len(slabs))
    return model.cost(structures=asked, slices=slices, foreground_voxels=voxels, minutes=minutes)


def predicted_cost(prediction: Prediction, structures: Sequence[Structure], model: CostModel) -> Cost:
    """Expected cost of annotating a case, from the sizes of its predicted structures.

    Args:
        prediction: of the case; a structure that it did not find has no slices and no voxels.
        structures: those to annotate.
        model: estimates the minutes.
    """
    return model.cost(
        structures=len(structures),
        slices=sum(prediction.slices.get(s.name, 0) for s in structures),
        foreground_voxels=sum(prediction.voxels.get(s.name, 0) for s in structures),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What may be spent in a round, in one currency.

    Args:
        currency: one of `CURRENCIES`.
        per_round: amount, above 0.
    """

    currency: str
    per_round: float

    def __post_init__(self) -> None:
        if self.currency not in CURRENCIES:
            raise ConfigError(
                f"Unknown budget currency {self.currency!r}; expected one of {', '.join(CURRENCIES)}"
            )
        if not 0.0 < self.per_round < math.inf:
            raise ConfigError(f"A budget of {self.per_round} {self.currency} a round buys nothing; raise it")

    def amount(self, cost: Cost) -> float:
        """What a cost is in the currency of the budget."""
        return float(getattr(cost, self.currency))

    def affords(self, cost: Cost, *, spent: Cost | None = None) -> bool:
        """Whether a round that has spent `spent` (default: nothing) can pay `cost` too."""
        before = 0.0 if spent is None else self.amount(spent)
        return self.fits(before + self.amount(cost))

    def fits(self, total: float) -> bool:
        """Whether a total in the budget's currency is within a round; rounding errors are forgiven."""
        return total <= self.per_round * (1.0 + _ROUNDING)
