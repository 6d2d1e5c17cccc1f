"""Which predicted masks become pseudo-labels: filters behind one protocol."""

from cohort.filtering.base import Filter, Verdict, filter_masks
from cohort.filtering.registry import FILTERS, make_filter

__all__ = ["FILTERS", "Filter", "Verdict", "filter_masks", "make_filter"]
