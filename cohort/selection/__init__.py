"""Which cases to annotate next: strategies behind one protocol."""

from cohort.selection.base import Candidate, Ranked, Selection, Strategy, select
from cohort.selection.registry import PRESETS, STRATEGIES, resolve

__all__ = ["PRESETS", "STRATEGIES", "Candidate", "Ranked", "Selection", "Strategy", "resolve", "select"]
