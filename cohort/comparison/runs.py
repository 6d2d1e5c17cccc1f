"""What the runs of an arm measured on the held-out cases, as arrays."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cohort.errors import ConfigError

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmRuns:
    """The finished runs of one arm.

    Args:
        arm: name.
        seeds: (S,) of the runs.
        cases: (N,) ids of the held-out cases, the same for every seed and arm.
        structures: (K,) names.
        spent: currency -> (S, R), what the annotations before each round's training cost in all.
        dsc: (S, R, N, K) in [0, 1], NaN where a case cannot measure a structure; NSD where that is compared.
    """

    arm: str
    seeds: tuple[int, ...]
    cases: tuple[str, ...]
    structures: tuple[str, ...]
    spent: Mapping[str, Values]
    dsc: Values

    def __post_init__(self) -> None:
        expected = (len(self.seeds), self.rounds, len(self.cases), len(self.structures))
        if self.dsc.ndim != 4 or self.dsc.shape != expected:
            raise ConfigError(f"DSC of the arm {self.arm!r} has shape {self.dsc.shape}, expected {expected}")
        for currency, spent in self.spent.items():
            if spent.shape != expected[:2] or bool((np.diff(spent, axis=1) < 0.0).any()):
                raise ConfigError(
                    f"The {currency} that the arm {self.arm!r} spent must grow over {expected[:2]} seeds and "
                    f"rounds; found {spent.tolist()}"
                )

    @property
    def rounds(self) -> int:
        """Measured rounds of each run."""
        return int(self.dsc.shape[1]) if self.dsc.ndim > 1 else 0

    def of_seeds(self, seeds: Sequence[int]) -> "ArmRuns":
        """The runs of some seeds, in their order."""
        places = [self.seeds.index(seed) for seed in seeds]
        spent = {currency: values[places] for currency, values in self.spent.items()}
        return replace(self, seeds=tuple(seeds), spent=spent, dsc=self.dsc[places])

    def of_cases(self, cases: Iterable[str]) -> "ArmRuns":
        """The same runs measured on some of the held-out cases, in the order of `self.cases`."""
        wanted = set(cases)
        places = [place for place, case_id in enumerate(self.cases) if case_id in wanted]
        return replace(self, cases=tuple(self.cases[place] for place in places), dsc=self.dsc[:, :, places])

    def named(self, arm: str) -> "ArmRuns":
        """The same runs under another name."""
        return replace(self, arm=arm)

    def of_round(self, number: int) -> "ArmRuns":
        """The same runs with one of their rounds alone; a negative number counts from the end."""
        one = [range(self.rounds)[number]]
        spent = {currency: values[:, one] for currency, values in self.spent.items()}
        return replace(self, spent=spent, dsc=self.dsc[:, one])

    def curves(self) -> Values:
        """(S, R) mean over structures of the mean over cases, as a round's result has it."""
        counts: Values = np.ones((1, len(self.cases)))
        (curves,) = weighted_curves(self.dsc, counts)
        return np.asarray(curves)

    def per_structure(self) -> Values:
        """(S, R, K) mean over cases; NaN for a structure that no held-out case can measure."""
        known = ~np.isnan(self.dsc)
        counted = known.sum(axis=2)
        total = np.where(known, self.dsc, 0.0).sum(axis=2)
        mean: Values = np.where(counted > 0, total / np.maximum(counted, 1), np.nan)
        return mean


def weighted_curves(dsc: Values, counts: Values) -> Values:
    """Mean over structures of the mean over cases, with cases counted several times or not at all.

    Args:
        dsc: (S, R, N, K), NaN where not measured.
        counts: (D, N) how often each case counts.

    Returns:
        (D, S, R); a structure that no case measures is left out of the mean, NaN where none is left. NaN too
        where a structure is measured, but in no case that counts: a mean over the others would be another
        quantity.
    """
    seeds, rounds, cases, structures = dsc.shape
    flat = np.moveaxis(dsc, 2, 0).reshape(cases, -1)
    known = ~np.isnan(flat)
    total = counts @ np.where(known, flat, 0.0)
    counted = counts @ known.astype(np.float64)
    mean = np.where(counted > 0.0, total / np.maximum(counted, 1.0), np.nan)
    per_structure = mean.reshape(len(counts), seeds, rounds, structures)
    measured = known.any(axis=0).reshape(seeds, rounds, structures)
    number = measured.sum(axis=2)
    summed = np.where(measured, per_structure, 0.0).sum(axis=3)
    found: Values = np.where(number > 0, summed / np.maximum(number, 1), np.nan)
    return found
