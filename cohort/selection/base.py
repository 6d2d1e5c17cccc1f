"""What a strategy sees, what it answers, and how its priorities become a selection within a budget."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from cohort.budget import Budget, Cost
from cohort.errors import SelectionError
from cohort.seeds import derive_seed, generator

Priorities = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An unlabelled case as a strategy sees it: no reference, nothing of what was annotated in it.

    Args:
        case_id: of the case.
        patient_id: of its patient.
        scores: structure -> raw quality of the predicted mask, HIGHER is a BETTER mask; NaN where there is
            nothing to score (an empty mask). A structure that is not named was not asked about.
        missing: structure -> why it has no score.
        cost: what annotating the case is expected to cost.
    """

    case_id: str
    patient_id: str
    scores: Mapping[str, float] = field(default_factory=dict, hash=False)
    missing: Mapping[str, str] = field(default_factory=dict, hash=False)
    cost: Cost


class Strategy(Protocol):
    """Turns candidates into priorities. HIGHER is annotated SOONER."""

    @property
    def name(self) -> str:
        """Name in the registry."""

    @property
    def needs_scores(self) -> bool:
        """Whether candidates must come with quality scores."""

    def priorities(self, candidates: Sequence[Candidate], rng: np.random.Generator) -> Priorities:
        """One finite number per candidate, in their order; the same candidates and draws give the same."""


class Ranked(NamedTuple):
    """A case's place in the order of annotation.

    Args:
        case_id: of the case.
        priority: the strategy's number, higher is sooner.
        rank: 0 is first.
    """

    case_id: str
    priority: float
    rank: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The cases to annotate in a round, and how every candidate ranked.

    Args:
        round: from 0.
        strategy: its name.
        seed: of the campaign.
        ranked: all candidates, first to annotate first.
        selected: case ids in rank order; may be empty.
        predicted_cost: sum over the selected cases.
    """

    round: int
    strategy: str
    seed: int
    ranked: tuple[Ranked, ...]
    selected: tuple[str, ...]
    predicted_cost: Cost


def select(
    strategy: Strategy, candidates: Sequence[Candidate], budget: Budget, *, round: int, seed: int
) -> Selection:
    """Rank the candidates and take the first ones that the budget affords.

    The order of the candidates does not matter, and ties are broken by a seeded hash of the case id. Cases
    are taken in rank order; a case that no longer fits is skipped, and a cheaper one further down may still
    be taken. So the selection can be empty: the caller decides what that means.

    Args:
        strategy: gives the priorities.
        candidates: each case once.
        budget: of this round.
        round: from 0; together with `seed` it fixes every draw.
        seed: of the campaign.

    Raises:
        SelectionError: if a case comes twice, scores are missing that the strategy needs, or a priority is
            not finite.
    """
    pool = sorted(candidates, key=lambda candidate: candidate.case_id)
    _check(pool, strategy)
    priorities = strategy.priorities(pool, generator(seed, "selection", round))
    _check_priorities(priorities, pool, strategy)
    ties = np.array([derive_seed(seed, "tie", round, c.case_id) for c in pool], dtype=np.int64)
    order = [pool[i] for i in np.lexsort((ties, -priorities))]
    by_id = dict(zip((c.case_id for c in pool), priorities.tolist(), strict=True))
    taken = _take(order, budget)
    return Selection(
        round=round,
        strategy=strategy.name,
        seed=seed,
        ranked=tuple(Ranked(c.case_id, by_id[c.case_id], rank) for rank, c in enumerate(order)),
        selected=tuple(c.case_id for c in taken),
        predicted_cost=Cost.total(c.cost for c in taken),
    )


def _take(order: Sequence[Candidate], budget: Budget) -> list[Candidate]:
    taken: list[Candidate] = []
    total = 0.0
    for candidate in order:
        amount = budget.amount(candidate.cost)
        if budget.fits(total + amount):
            taken.append(candidate)
            total += amount
    return taken


def _check(pool: Sequence[Candidate], strategy: Strategy) -> None:
    twice = [case_id for case_id, count in Counter(c.case_id for c in pool).items() if count > 1]
    if twice:
        raise SelectionError(f"Candidate {twice[0]} comes twice; a selection needs every case once")
    if strategy.needs_scores:
        for candidate in pool:
            if not candidate.scores:
                raise SelectionError(
                    f"Strategy {strategy.name!r} needs quality scores, but {candidate.case_id} has none; "
                    "score the predictions with an estimator first"
                )


def _check_priorities(priorities: Priorities, pool: Sequence[Candidate], strategy: Strategy) -> None:
    if priorities.shape != (len(pool),):
        raise SelectionError(
            f"Strategy {strategy.name!r} gave priorities of shape {priorities.shape} for {len(pool)} "
            "candidates; expected one number each"
        )
    for candidate, priority in zip(pool, priorities.tolist(), strict=True):
        if not math.isfinite(priority):
            raise SelectionError(
                f"Strategy {strategy.name!r} gave case {candidate.case_id} the priority {priority}; "
                "expected a finite number: look at the scores of that case"
            )
