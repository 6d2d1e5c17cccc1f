import math
from dataclasses import replace

import pytest

from cohort.errors import SelectionError
from cohort.filtering import filter_masks
from cohort.filtering.fraction import TopFraction
from cohort.filtering.strata import by_size
from cohort.records import EMPTY_MASK, QualityScore


def score(number: int, structure: str = "liver", raw: float | None = None) -> QualityScore:
    """A mask whose predicted quality goes up with its size."""
    value = number / 100.0 if raw is None else raw
    return QualityScore(case_id=f"c{number:02d}", structure=structure, raw=value, estimator="sentinel")


SCORES = [score(number) for number in range(12)]
SIZES = {(each.case_id, each.structure): 100.0 + 10.0 * number for number, each in enumerate(SCORES)}


def test_groups_are_of_one_size_and_as_many() -> None:
    groups = by_size(SCORES[::-1], SIZES, 3)
    assert [[each.case_id for each in group] for group in groups] == [
        [f"c{number:02d}" for number in range(first, first + 4)] for first in (0, 4, 8)
    ]


def test_more_groups_than_masks_leave_some_empty() -> None:
    assert [len(group) for group in by_size(SCORES[:2], SIZES, 4)] == [1, 0, 1, 0]


def test_every_structure_is_divided_on_its_own() -> None:
    """The largest spleen is smaller than the smallest liver, and is in the last group all the same."""
    spleens = [score(number, "spleen") for number in range(4)]
    sizes = SIZES | {(each.case_id, "spleen"): float(number) for number, each in enumerate(spleens)}
    last = by_size([*SCORES, *spleens], sizes, 4)[-1]
    assert {(each.case_id, each.structure) for each in last} == {
        ("c09", "liver"),
        ("c10", "liver"),
        ("c11", "liver"),
        ("c03", "spleen"),
    }


def test_the_best_of_each_size_are_kept() -> None:
    empty = replace(score(99, raw=math.nan), case_id="e", reason=EMPTY_MASK)
    rule = TopFraction(keep=0.5)

    def kept(strata: int) -> list[str]:
        verdicts = filter_masks(rule, [*SCORES, empty], round=0, seed=0, strata=strata, sizes=SIZES)
        return [verdict.case_id for verdict in verdicts if verdict.kept]

    assert kept(1) == [f"c{number:02d}" for number in range(6, 12)]
    assert kept(3) == ["c02", "c03", "c06", "c07", "c10", "c11"]


def test_the_order_of_the_masks_does_not_matter() -> None:
    same = [score(number, raw=0.5) for number in range(12)]
    alike = dict.fromkeys(SIZES, 1.0)
    found = [
        filter_masks(TopFraction(keep=0.5), masks, round=0, seed=3, strata=4, sizes=alike)
        for masks in (same, same[::-1])
    ]
    assert found[0] == found[1]


def test_a_mask_of_unknown_size_is_refused() -> None:
    with pytest.raises(SelectionError, match=r"size of the mask of c11 \(liver\) is not known"):
        filter_masks(
            TopFraction(keep=0.5), SCORES, round=0, seed=0, strata=2, sizes=dict(list(SIZES.items())[:-1])
        )
