"""What is labelled in a generated case."""

from collections.abc import Mapping
from types import MappingProxyType

from cohort.case import Structure

STRUCTURES: tuple[Structure, ...] = tuple(
    Structure(name=name, label=label)
    for label, name in enumerate(
        (
            "liver",
            "spleen",
            "kidney_right",
            "kidney_left",
            "stomach",
            "pancreas",
            "aorta",
            "vertebrae",
        ),
        start=1,
    )
)
"""In ascending order of label; names are spelled as in TotalSegmentator."""

LABELS: Mapping[str, int] = MappingProxyType({s.name: s.label for s in STRUCTURES})
