import dataclasses
from collections.abc import Callable

import pytest

from cohort.case import Dataset
from cohort.errors import ConfigError, DataError, SelectionError
from cohort.pool import Pool, check_patients, choose_held_out, choose_start

Make = Callable[..., Dataset]
ALONE = {f"c{n:02d}": f"p{n:02d}" for n in range(20)}
PAIRS = {f"c{n:02d}": f"p{n // 2:02d}" for n in range(20)}


def test_a_start_puts_every_other_case_into_the_unlabelled(make_dataset: Make) -> None:
    pool = Pool.start(make_dataset(ALONE), labelled=["c00"], held_out=["c01", "c02"])
    assert pool.labelled == {"c00"}
    assert pool.held_out == {"c01", "c02"}
    assert pool.unlabelled == ALONE.keys() - {"c00", "c01", "c02"}
    assert pool.case_ids == ALONE.keys()


def test_a_start_may_name_the_unlabelled(make_dataset: Make) -> None:
    pool = Pool.start(make_dataset(ALONE), labelled=["c00"], held_out=[], unlabelled=["c05"])
    assert pool.case_ids == {"c00", "c05"}


def test_unknown_cases_are_refused(make_dataset: Make) -> None:
    with pytest.raises(SelectionError, match=r"Case '\.\./c00' is not in the data set 'Tiny'"):
        Pool.start(make_dataset(ALONE), labelled=["../c00"], held_out=[])


@pytest.mark.parametrize(
    ("first", "second"),
    [("labelled", "unlabelled"), ("labelled", "held_out"), ("pseudo_labelled", "unlabelled")],
)
def test_no_case_is_in_two_parts(first: str, second: str) -> None:
    with pytest.raises(SelectionError, match=r"Case 'a' is both .* and .*1 such cases"):
        Pool(**{first: frozenset({"a", "b"}), second: frozenset({"a"})})


def test_annotating_moves_cases(make_dataset: Make) -> None:
    pool = Pool.start(make_dataset(ALONE), labelled=["c00"], held_out=["c01"])
    later = pool.pseudo_label(["c02", "c03"]).annotate(["c03", "c04"])
    assert later.labelled == {"c00", "c03", "c04"}
    assert later.pseudo_labelled == {"c02"}
    assert later.candidates == pool.unlabelled - {"c03", "c04"}
    assert later.held_out == pool.held_out
    assert pool.labelled == {"c00"}, "the pool itself does not change"


def test_new_pseudo_labels_withdraw_the_old(make_dataset: Make) -> None:
    pool = Pool.start(make_dataset(ALONE), labelled=["c00"], held_out=["c01"]).pseudo_label(["c02", "c03"])
    later = pool.pseudo_label(["c03", "c04"])
    assert later.pseudo_labelled == {"c03", "c04"}
    assert "c02" in later.unlabelled


@pytest.mark.parametrize(
    ("case_id", "place"), [("c00", "labelled"), ("c01", "held out"), ("zz", "not in the pool")]
)
def test_only_candidates_can_be_labelled(make_dataset: Make, case_id: str, place: str) -> None:
    pool = Pool.start(make_dataset(ALONE), labelled=["c00"], held_out=["c01"])
    with pytest.raises(SelectionError, match=f"'{case_id}' cannot be annotated: it is {place}"):
        pool.annotate([case_id])
    with pytest.raises(SelectionError, match=f"'{case_id}' cannot be pseudo-labelled: it is {place}"):
        pool.pseudo_label([case_id])


def test_a_patient_on_both_sides_is_refused(make_dataset: Make) -> None:
    dataset = make_dataset(PAIRS)
    message = r"Patient 'p01' is both held out \('c03'\) and not \('c02'\)"
    with pytest.raises(DataError, match=message):
        Pool.start(dataset, labelled=["c02"], held_out=["c03"])
    with pytest.raises(DataError, match=message):
        Pool.start(dataset, labelled=["c00"], held_out=["c03"])
    with pytest.raises(DataError, match=message):
        check_patients(Pool(unlabelled=frozenset({"c02"}), held_out=frozenset({"c03"})), dataset)
    check_patients(Pool(labelled=frozenset({"c00"}), held_out=frozenset({"c02", "c03"})), dataset)


@pytest.mark.parametrize("wanted", [{"count": 5}, {"fraction": 0.25}, {"count": 5, "fraction": 0.9}])
def test_as_many_are_held_out_as_wanted(make_dataset: Make, wanted: dict[str, float]) -> None:
    held_out = choose_held_out(make_dataset(ALONE), **wanted, seed=0)  # type: ignore[arg-type]
    assert len(held_out) == len(set(held_out)) == 5


def test_patients_are_held_out_whole(make_dataset: Make) -> None:
    dataset = make_dataset(PAIRS)
    held_out = choose_held_out(dataset, count=5, seed=0)
    assert len(held_out) == 6
    Pool.start(dataset, labelled=[], held_out=held_out)


def test_the_choice_depends_on_the_seed_and_not_on_the_order(make_dataset: Make) -> None:
    dataset = make_dataset(ALONE)
    turned = dataclasses.replace(dataset, cases=dataset.cases[::-1])
    choices = {choose_held_out(dataset, count=5, seed=seed) for seed in range(5)}
    assert len(choices) == 5
    assert choose_held_out(turned, count=5, seed=3) == choose_held_out(dataset, count=5, seed=3)
    starts = {choose_start(dataset, held_out=["c01"], count=4, seed=seed) for seed in range(5)}
    assert len(starts) == 5
    assert choose_start(turned, held_out=["c01"], count=4, seed=3) == choose_start(
        dataset, held_out=["c01"], count=4, seed=3
    )


def test_the_data_sets_own_list_is_taken_in_its_order(make_dataset: Make) -> None:
    dataset = make_dataset(ALONE, held_out=("c09", "c02", "c05"))
    assert choose_held_out(dataset, seed=0) == ("c09", "c02", "c05")
    assert choose_held_out(dataset, count=2, seed=0) == ("c09", "c02")
    assert choose_held_out(dataset, fraction=0.5, seed=0) == ("c09", "c02", "c05")
    with pytest.raises(ConfigError, match="4 cases are to be held out, but only 3"):
        choose_held_out(dataset, count=4, seed=0)


def test_only_cases_with_a_reference_are_held_out_or_start(make_dataset: Make) -> None:
    unlabelled = tuple(f"c{n:02d}" for n in range(1, 17))
    dataset = make_dataset(PAIRS, unlabelled=unlabelled)  # c00 has one, its patient's c01 has none
    assert set(choose_held_out(dataset, count=2, seed=1)) == {"c18", "c19"}
    assert set(choose_start(dataset, held_out=["c18", "c19"], count=2, seed=1)) == {"c00", "c17"}
    with pytest.raises(ConfigError, match="5 cases are to be held out, but only 2"):
        choose_held_out(dataset, count=5, seed=1)


@pytest.mark.parametrize("wanted", [{"count": 20}, {"fraction": 0.99}])
def test_a_share_that_leaves_nothing_to_learn_from_is_refused(
    make_dataset: Make, wanted: dict[str, float]
) -> None:
    with pytest.raises(ConfigError, match="leaves nothing to learn from"):
        choose_held_out(make_dataset(ALONE), **wanted, seed=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_a_fraction_that_is_none_is_refused(make_dataset: Make, fraction: float) -> None:
    with pytest.raises(ConfigError, match="held-out fraction is"):
        choose_held_out(make_dataset(ALONE), fraction=fraction, seed=0)


@pytest.mark.parametrize("wanted", [{"count": 0}, {"fraction": 0.01}, {}])
def test_a_share_that_leaves_nothing_to_evaluate_on_is_refused(
    make_dataset: Make, wanted: dict[str, float]
) -> None:
    with pytest.raises(ConfigError, match="leaves nothing to evaluate on"):
        choose_held_out(make_dataset(ALONE), **wanted, seed=0)  # type: ignore[arg-type]


def test_the_last_patient_may_not_take_all_that_is_left(make_dataset: Make) -> None:
    dataset = make_dataset(dict.fromkeys(ALONE, "the only patient"))
    with pytest.raises(ConfigError, match=r"takes all 20 cases .* leaves nothing to learn from"):
        choose_held_out(dataset, count=2, seed=0)


def test_a_larger_start_contains_the_smaller_one_and_nothing_held_out(make_dataset: Make) -> None:
    dataset = make_dataset(PAIRS)
    small = choose_start(dataset, held_out=["c00"], count=4, seed=2)
    large = choose_start(dataset, held_out=["c00"], count=8, seed=2)
    assert large[:4] == small
    everyone = choose_start(dataset, held_out=["c00"], count=18, seed=2)
    assert set(everyone) == PAIRS.keys() - {"c00", "c01"}, "the other case of its patient stays out too"


@pytest.mark.parametrize(
    ("count", "message"), [(0, "expected 1 or more"), (20, "needs 20 cases, but only 19")]
)
def test_a_start_that_cannot_be_is_refused(make_dataset: Make, count: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose_start(make_dataset(ALONE), held_out=["c00"], count=count, seed=0)
