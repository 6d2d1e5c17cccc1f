"""What a round has taken so far, and what it has spent."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from cohort.budget import Budget, Cost
from cohort.selection.base import Candidate, Key


@dataclass(slots=True, kw_only=True)
class Basket:
    """Candidates of a round, within its budget.

    Args:
        budget: of the round; None affords everything.
        taken: key -> what it costs beside those that were taken before.
        spent: in the currency of the budget.
    """

    budget: Budget | None
    taken: dict[Key, Cost] = field(default_factory=dict)
    spent: float = 0.0
    _opened: set[str] = field(default_factory=set)

    @classmethod
    def filled(cls, order: Iterable[Candidate], budget: Budget | None) -> "Basket":
        """What a budget affords in an order: one that no longer fits is skipped."""
        basket = cls(budget=budget)
        for candidate in order:
            if basket.affords(candidate):
                basket.take(candidate)
        return basket

    def cost(self, candidate: Candidate) -> Cost:
        """What a candidate costs now: opening a case is paid once."""
        again = candidate.further if candidate.case_id in self._opened else None
        return again or candidate.cost

    def amount(self, candidate: Candidate) -> float:
        """That in the currency of the budget."""
        return self.budget.amount(self.cost(candidate)) if self.budget is not None else 0.0

    def affords(self, candidate: Candidate) -> bool:
        """Whether the rest of the budget pays for a candidate."""
        return self.budget is None or self.budget.fits(self.spent + self.amount(candidate))

    def take(self, candidate: Candidate) -> None:
        """Put a candidate in."""
        amount = self.amount(candidate)
        self.taken[candidate.key] = self.cost(candidate)
        self._opened.add(candidate.case_id)
        self.spent += amount
