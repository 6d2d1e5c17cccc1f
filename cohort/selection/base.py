"""What a strategy sees, what it answers, and how its priorities become a selection within a budget."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from cohort.annotation import Request
from cohort.budget import Budget, Cost
from cohort.seeds import derive_seed
from cohort.slabs import Slab

Priorities = NDArray[np.float64]
Features = NDArray[np.float32]
Key = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What may be annotated, as a strategy sees it: no reference, nothing of what was annotated in it.

    Args:
        case_id: of the case.
        patient_id: of its patient.
        part: the structure or the name of the slab, where one of a case is the unit of selection; "" for the
            whole case.
        structures: those that would be annotated.
        scores: structure -> raw quality of the predicted mask, HIGHER is a BETTER mask; NaN where there is
            nothing to score (an empty mask). A structure that is not named was not asked about.
        missing: structure -> why it has no score.
        volumes_ml: structure -> predicted volume, 0 where the mask is empty.
        features: (F,) of the image, at distances that mean how alike two cases are; None where unknown.
        broken: why the scan cannot be used, "" for one that can.
        cost: what annotating it is expected to cost.
        further: what it costs in a round that annotates another part of the case already; None: the same.
        slab: slices that would be annotated; None for the whole case.
        identity: hash of its key, made from it.
    """

    case_id: str
    patient_id: str
    part: str = ""
    structures: tuple[str, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict, hash=False)
    missing: Mapping[str, str] = field(default_factory=dict, hash=False)
    volumes_ml: Mapping[str, float] = field(default_factory=dict, hash=False)
    features: Features | None = field(default=None, compare=False)
    broken: str = ""
    cost: Cost
    further: Cost | None = None
    slab: Slab | None = None
    identity: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "identity", derive_seed(0, *self.key))

    @property
    def key(self) -> Key:
        """What tells it from the others: the case, and its part."""
        return (self.case_id, self.part) if self.part else (self.case_id,)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RoundContext:
    """When a selection is made, and beside what.

    Args:
        round: from 0.
        rounds: how many rounds of the campaign select.
        wanted: how many candidates the budget affords at most.
        budget: of the round, None where nothing limits it.
        seed: of the campaign.
        labelled: case id -> (F,) features of the labelled cases; empty where unknown.
    """

    round: int = 0
    rounds: int = 1
    wanted: int = 1
    budget: Budget | None = None
    seed: int = 0
    labelled: Mapping[str, Features] = field(default_factory=dict)

    @property
    def progress(self) -> float:
        """0 in the first round that selects, 1 in the last one."""
        return min(self.round / (self.rounds - 1), 1.0) if self.rounds > 1 else 0.0

    @property
    def labelled_features(self) -> Features | None:
        """(N, F) in the order of the ids, None where there are none."""
        rows = [self.labelled[case_id] for case_id in sorted(self.labelled)]
        return np.array(rows, dtype=np.float32) if rows else None


FIRST_ROUND = RoundContext()


class Strategy(Protocol):
    """Turns candidates into priorities. HIGHER is annotated SOONER."""

    @property
    def name(self) -> str:
        """Name in the registry, or of what it wraps."""

    @property
    def needs_scores(self) -> bool:
        """Whether candidates must come with quality scores."""

    @property
    def needs_features(self) -> bool:
        """Whether candidates must come with features."""

    def priorities(
        self,
        candidates: Sequence[Candidate],
        rng: np.random.Generator,
        context: RoundContext = FIRST_ROUND,
    ) -> Priorities:
        """One finite number per candidate, in their order; the same candidates and draws give the same."""


class Judged(NamedTuple):
    """Priorities, and what a guard held back.

    Args:
        priorities: one per candidate.
        held: key -> why the candidate waits: it comes after all others.
        refused: keys among the held that are never taken.
    """

    priorities: Priorities
    held: Mapping[Key, str]
    refused: frozenset[Key] = frozenset()


@runtime_checkable
class Guard(Protocol):
    """A strategy that holds candidates back."""

    @property
    def uses_features(self) -> bool:
        """Whether it looks at features where there are any."""

    def judged(
        self, candidates: Sequence[Candidate], rng: np.random.Generator, context: RoundContext
    ) -> Judged:
        """The priorities of what it wraps, and what waits."""


class Ranked(NamedTuple):
    """A candidate's place in the order of annotation.

    Args:
        case_id: of the case.
        priority: the strategy's number, higher is sooner.
        rank: 0 is first.
        part: the structure or slab where that is the unit, else "".
        selected: whether the budget took it.
        guard: why it waited, "" where it did not; it may have been selected all the same, with what the
            others left of the budget.
    """

    case_id: str
    priority: float
    rank: int
    part: str = ""
    selected: bool = False
    guard: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What to annotate in a round, and how every candidate ranked.

    Args:
        round: from 0.
        strategy: its name.
        seed: of the campaign.
        ranked: all candidates, first to annotate first.
        requests: one for each selected case, in rank order of the first of its parts; may be empty.
        predicted_cost: sum over what was selected.
    """

    round: int
    strategy: str
    seed: int
    ranked: tuple[Ranked, ...]
    requests: tuple[Request, ...]
    predicted_cost: Cost

    @property
    def selected(self) -> tuple[str, ...]:
        """Ids of the selected cases, in rank order."""
        return tuple(request.case_id for request in self.requests)

    @property
    def held_back(self) -> Mapping[Key, str]:
        """What a guard held back, and the budget did not reach after all -> why."""
        return {
            (r.case_id, r.part) if r.part else (r.case_id,): r.guard
            for r in self.ranked
            if r.guard and not r.selected
        }
