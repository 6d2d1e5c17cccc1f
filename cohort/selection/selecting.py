"""From priorities to a selection that a budget affords."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from cohort.annotation import Request
from cohort.budget import Budget, Cost
from cohort.errors import SelectionError
from cohort.seeds import generator
from cohort.selection.base import (
    Candidate,
    Features,
    Guard,
    Judged,
    Key,
    Priorities,
    Ranked,
    RoundContext,
    Selection,
    Strategy,
)
from cohort.selection.basket import Basket
from cohort.selection.draws import order_of


def select(
    strategy: Strategy,
    candidates: Sequence[Candidate],
    budget: Budget,
    *,
    round: int,
    seed: int,
    rounds: int = 1,
    labelled: Mapping[str, Features] | None = None,
) -> Selection:
    """Rank the candidates and take the first ones that the budget affords.

    The order of the candidates does not matter, and ties are broken by a seeded hash of the case id (and
    part). Candidates are taken in rank order; one that no longer fits is skipped, and a cheaper one further
    down may still be taken. What a guard holds back comes after all others. The selection can be empty: the
    caller decides what that means. Parts of one case become one request.

    Args:
        strategy: gives the priorities.
        candidates: each case, or part of a case, once.
        budget: of this round.
        round: from 0; together with `seed` it fixes every draw.
        seed: of the campaign.
        rounds: how many rounds of the campaign select.
        labelled: case id -> (F,) features of the labelled cases.

    Raises:
        SelectionError: if a candidate comes twice, scores or features are missing that the strategy needs,
            or a priority is not finite.
    """
    pool = sorted(candidates, key=lambda candidate: candidate.key)
    _check(pool, strategy)
    context = RoundContext(
        round=round,
        rounds=rounds,
        wanted=affordable(pool, budget),
        budget=budget,
        seed=seed,
        labelled=labelled or {},
    )
    judged = _judged(strategy, pool, generator(seed, "selection", round), context)
    _check_priorities(judged.priorities, pool, strategy)
    places = order_of(judged.priorities, pool, context)
    order = [pool[place] for place in places]
    taken = _take(order, budget, judged)
    priorities = judged.priorities.tolist()
    return Selection(
        round=round,
        strategy=strategy.name,
        seed=seed,
        ranked=tuple(
            Ranked(c.case_id, priorities[place], rank, c.part, c.key in taken, judged.held.get(c.key, ""))
            for rank, (place, c) in enumerate(zip(places, order, strict=True))
        ),
        requests=_requests(c for c in order if c.key in taken),
        predicted_cost=Cost.total(taken.values()),
    )


def affordable(pool: Sequence[Candidate], budget: Budget) -> int:
    """How many candidates a budget affords at most: the cheapest ones first."""
    amounts = sorted(min(budget.amount(c.cost), budget.amount(c.further or c.cost)) for c in pool)
    total = np.cumsum(amounts)
    return int(sum(budget.fits(amount) for amount in total.tolist())) if amounts else 0


def _judged(
    strategy: Strategy, pool: Sequence[Candidate], rng: np.random.Generator, context: RoundContext
) -> Judged:
    if isinstance(strategy, Guard):
        return strategy.judged(pool, rng, context)
    return Judged(strategy.priorities(pool, rng, context), {})


def _take(order: Sequence[Candidate], budget: Budget, judged: Judged) -> dict[Key, Cost]:
    """What the budget affords: what a guard holds back comes after all others, so that no budget is left."""
    first = [c for c in order if c.key not in judged.held]
    last = [c for c in order if c.key in judged.held and c.key not in judged.refused]
    return Basket.filled((*first, *last), budget).taken


def _requests(taken: Iterable[Candidate]) -> tuple[Request, ...]:
    wanted: dict[str, list[Candidate]] = {}
    for candidate in taken:
        wanted.setdefault(candidate.case_id, []).append(candidate)
    return tuple(
        Request(
            case_id=case_id,
            structures=tuple(dict.fromkeys(name for part in parts for name in part.structures)),
            slabs=tuple(sorted(part.slab for part in parts if part.slab is not None)),
        )
        for case_id, parts in wanted.items()
    )


def _check(pool: Sequence[Candidate], strategy: Strategy) -> None:
    twice = [key for key, count in Counter(c.key for c in pool).items() if count > 1]
    if twice:
        raise SelectionError(
            f"Candidate {' / '.join(twice[0])} comes twice; a selection needs every candidate once"
        )
    for candidate in pool:
        if not candidate.structures:
            raise SelectionError(
                f"Candidate {candidate.case_id} names no structure to annotate; leave it out of the pool"
            )
        if strategy.needs_scores and not candidate.scores:
            raise SelectionError(
                f"Strategy {strategy.name!r} needs quality scores, but {candidate.case_id} has none; "
                "score the predictions with an estimator first"
            )
        if strategy.needs_features and candidate.features is None:
            raise SelectionError(
                f"Strategy {strategy.name!r} needs features, but {candidate.case_id} has none; "
                "compute them from the images first"
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
