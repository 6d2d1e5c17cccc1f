"""Groups of masks of alike size, so that a filter takes its fraction of small and of large ones."""

from collections.abc import Mapping, Sequence

from cohort.errors import SelectionError
from cohort.records import QualityScore
from cohort.seeds import derive_seed

Sizes = Mapping[tuple[str, str], float]
"""(case id, structure) -> predicted volume, in any unit."""


def by_size(
    scores: Sequence[QualityScore], sizes: Sizes, number: int
) -> tuple[tuple[QualityScore, ...], ...]:
    """Divide the masks of each structure by their size into groups of as many masks, or nearly so.

    Predicted quality goes up with the size of a mask, often more than true quality does. The best of all are
    then the large ones, and a student that learns from these knows the small ones no better.

    Args:
        scores: of masks, each case and structure once.
        sizes: of these masks.
        number: of groups, 1 or more.

    Returns:
        The groups, smallest masks first, each with masks of every structure that has enough of them.

    Raises:
        SelectionError: for a mask whose size is not known.
    """
    unknown = [f"{s.case_id} ({s.structure})" for s in scores if (s.case_id, s.structure) not in sizes]
    if unknown:
        raise SelectionError(f"The size of the mask of {unknown[0]} is not known ({len(unknown)} such masks)")
    groups: list[list[QualityScore]] = [[] for _ in range(number)]
    for name in sorted({score.structure for score in scores}):
        own = sorted(
            (score for score in scores if score.structure == name),
            key=lambda s: (sizes[s.case_id, s.structure], derive_seed(0, s.case_id, s.structure)),
        )
        for place, score in enumerate(own):
            groups[place * number // len(own)].append(score)
    return tuple(tuple(group) for group in groups)
