import math

from hypothesis import given
from hypothesis import strategies as st

from cohort.filtering import FILTERS, filter_masks, make_filter
from cohort.filtering.outcome import outcome
from cohort.filtering.registry import FilterSettings
from cohort.records import EMPTY_MASK, QualityScore

VALUES = st.one_of(st.just(math.nan), st.floats(0.0, 1.0), st.sampled_from([0.0, 0.5, 1.0]))
FRACTIONS = st.floats(0.01, 1.0)
KINDS = st.sampled_from(sorted(FILTERS))
SEEDS = st.integers(0, 2**32)


@st.composite
def masks(draw: st.DrawFn) -> list[QualityScore]:
    ids = draw(st.lists(st.integers(0, 999), unique=True, max_size=20))
    found = []
    for number in ids:
        for structure in ("liver", "spleen"):
            value = draw(VALUES)
            found.append(
                QualityScore(
                    case_id=f"c{number}",
                    structure=structure,
                    raw=value,
                    predicted_dsc=value,
                    lower=value,
                    estimator="test",
                    reason=EMPTY_MASK if math.isnan(value) else "",
                )
            )
    return found


@given(masks(), st.sampled_from(["top_fraction", "random"]), FRACTIONS, SEEDS)
def test_the_fraction_that_was_asked_for_is_kept_of_each_structure(
    scores: list[QualityScore], kind: str, keep: float, seed: int
) -> None:
    verdicts = filter_masks(make_filter(FilterSettings(kind=kind, keep=keep)), scores, round=0, seed=seed)
    for structure in ("liver", "spleen"):
        masks = sum(s.structure == structure and not s.missing for s in scores)
        kept = sum(v.kept for v in verdicts if v.structure == structure)
        assert kept == (max(1, math.floor(keep * masks + 0.5)) if masks else 0)


@given(masks(), FRACTIONS, FRACTIONS, st.sampled_from(["structure", "case", "all"]), SEEDS)
def test_a_larger_fraction_keeps_all_that_a_smaller_one_does(
    scores: list[QualityScore], one: float, other: float, per: str, seed: int
) -> None:
    small, large = (
        {
            (v.case_id, v.structure)
            for v in filter_masks(
                make_filter(FilterSettings(keep=keep, per=per)),  # type: ignore[arg-type]
                scores,
                round=0,
                seed=seed,
            )
            if v.kept
        }
        for keep in sorted((one, other))
    )
    assert small <= large


@given(masks(), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_a_higher_threshold_keeps_no_more(scores: list[QualityScore], one: float, other: float) -> None:
    low, high = (
        sum(
            v.kept
            for v in filter_masks(
                make_filter(FilterSettings(kind="threshold", minimum=m)), scores, round=0, seed=0
            )
        )
        for m in sorted((one, other))
    )
    assert high <= low


@given(masks(), KINDS, SEEDS, st.randoms(use_true_random=False))
def test_the_order_of_the_masks_does_not_matter(
    scores: list[QualityScore], kind: str, seed: int, random: object
) -> None:
    shuffled = list(scores)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    rule = make_filter(FilterSettings(kind=kind))
    expected = [(v.case_id, v.weight) for v in filter_masks(rule, scores, round=1, seed=seed)]
    assert [(v.case_id, v.weight) for v in filter_masks(rule, shuffled, round=1, seed=seed)] == expected


@given(masks(), KINDS, st.floats(1.0, 3.0))
def test_no_structure_is_kept_much_more_often_than_another(
    scores: list[QualityScore], kind: str, ratio: float
) -> None:
    verdicts = filter_masks(make_filter(FilterSettings(kind=kind, balance=ratio)), scores, round=0, seed=0)
    counts = [sum(v.kept for v in verdicts if v.structure == name) for name in ("liver", "spleen")]
    counts = [count for count in counts if count]
    assert not counts or max(counts) <= ratio * min(counts)


@given(masks(), KINDS)
def test_weights_by_quality_keep_what_the_plain_filter_keeps(scores: list[QualityScore], kind: str) -> None:
    plain = filter_masks(make_filter(FilterSettings(kind=kind)), scores, round=0, seed=0)
    weighted = filter_masks(
        make_filter(FilterSettings(kind=kind, weights="predicted_dsc")), scores, round=0, seed=0
    )
    assert [v.kept for v in weighted] == [v.kept for v in plain]
    assert all(0.1 <= v.weight <= 1.0 for v in weighted if v.kept)


@given(masks(), KINDS)
def test_shares_are_consistent(scores: list[QualityScore], kind: str) -> None:
    verdicts = filter_masks(make_filter(FilterSettings(kind=kind)), scores, round=0, seed=0)
    dscs = {(s.case_id, s.structure): s.raw for s in scores if not s.missing}
    found = outcome(verdicts, dscs, good_dsc=0.5)
    assert found["kept"] <= found["masks"]  # type: ignore[operator]
    assert found["measured"] == found["masks"]
    for name in ("dsc", "dsc_kept", "good", "precision", "recall", "kept_fraction"):
        assert found[name] is None or 0.0 <= found[name] <= 1.0  # type: ignore[operator]
