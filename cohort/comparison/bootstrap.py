"""Resampling of seeds and held-out cases at once, the same for all arms that are compared."""

from dataclasses import dataclass

import numpy as np

from cohort.comparison.runs import Values
from cohort.errors import ConfigError
from cohort.seeds import generator

DRAWS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Resample:
    """How often each seed and each held-out case counts in each draw.

    All seeds are measured on the same held-out cases, so a draw takes one sample of cases for all of them:
    what is peculiar to these cases does not average out over seeds.

    Args:
        seeds: (D, S) whole numbers that add up to S.
        cases: (D, N) whole numbers that add up to N.
    """

    seeds: Values
    cases: Values

    def over_seeds(self, values: Values) -> Values:
        """Mean over the drawn seeds: (D, S, ...) -> (D, ...)."""
        shares = self.seeds / self.seeds.sum(axis=1, keepdims=True)
        found: Values = np.einsum("ds,ds...->d...", shares, values)
        return found


def resample(seeds: int, cases: int, *, seed: int = 0, draws: int = DRAWS) -> Resample:
    """Draw with replacement.

    Args:
        seeds: number of seeds, S.
        cases: number of held-out cases, N.
        seed: of the draws.
        draws: D.

    Raises:
        ConfigError: where there is nothing to draw from.
    """
    if seeds < 1 or cases < 1 or draws < 1:
        raise ConfigError(f"Nothing can be drawn {draws} times from {seeds} seeds and {cases} cases")
    rng = generator(seed, "hierarchical bootstrap", seeds, cases)
    return Resample(seeds=_counts(rng, draws, seeds), cases=_counts(rng, draws, cases))


def interval(values: Values, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of draws; one end is infinite where that many draws are.

    Args:
        values: (D,), infinite where a draw is censored; NaN is left out.
        level: of the interval.
    """
    known = np.sort(values[~np.isnan(values)])
    if not len(known):
        return float("nan"), float("nan")
    tail = (1.0 - level) / 2.0
    places = np.array([tail, 1.0 - tail]) * (len(known) - 1)
    return float(known[int(np.floor(places[0]))]), float(known[int(np.ceil(places[1]))])


def _counts(rng: np.random.Generator, draws: int, number: int) -> Values:
    drawn = rng.integers(number, size=(draws, number))
    counts = np.zeros((draws, number))
    np.add.at(counts, (np.arange(draws)[:, None], drawn), 1.0)
    return counts
