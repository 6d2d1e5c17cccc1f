"""Which cases to annotate next: strategies behind one protocol."""

from cohort.selection.base import Candidate, Ranked, RoundContext, Selection, Strategy
from cohort.selection.registry import PRESETS, STRATEGIES, resolve
from cohort.selection.selecting import select

__all__ = [
    "PRESETS",
    "STRATEGIES",
    "Candidate",
    "Ranked",
    "RoundContext",
    "Selection",
    "Strategy",
    "resolve",
    "select",
]
