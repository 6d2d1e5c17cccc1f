from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from cohort.case import Case, Dataset, Structure
from cohort.errors import ConfigError
from cohort.pool import Pool, choose_held_out, choose_start

LIVER = Structure(name="liver", label=1)


@st.composite
def datasets(draw: st.DrawFn) -> Dataset:
    """Cases of few patients, so that patients share; some have no reference."""
    patients = draw(st.lists(st.integers(0, 8), min_size=2, max_size=20))
    referenced = draw(st.lists(st.booleans(), min_size=len(patients), max_size=len(patients)))
    cases = [
        Case(
            case_id=f"c{n:02d}",
            patient_id=f"p{patient}",
            image=Path(f"{n}.nii.gz"),
            reference=Path(f"{n}_label.nii.gz") if has else None,
            annotated={"liver": 1.0} if has else {},
        )
        for n, (patient, has) in enumerate(zip(patients, referenced, strict=True))
    ]
    return Dataset(name="D", structures=(LIVER,), cases=tuple(cases), patients_known=True)


def assert_whole(pool: Pool, dataset: Dataset) -> None:
    parts = [pool.labelled, pool.pseudo_labelled, pool.unlabelled, pool.held_out]
    assert sum(map(len, parts)) == len(frozenset().union(*parts)) == len(dataset.cases)
    patients = {case.case_id: case.patient_id for case in dataset.cases}
    held_out = {patients[case_id] for case_id in pool.held_out}
    assert held_out.isdisjoint(patients[case_id] for case_id in pool.case_ids - pool.held_out)


@given(datasets(), st.integers(1, 20), st.integers(1, 20), st.integers(0, 99), st.data())
def test_a_campaign_keeps_its_pools_apart(
    dataset: Dataset, held_out_count: int, start_count: int, seed: int, data: st.DataObject
) -> None:
    try:
        held_out = choose_held_out(dataset, count=held_out_count, seed=seed)
        start = choose_start(dataset, held_out=held_out, count=start_count, seed=seed)
    except ConfigError:
        return
    assert len(held_out) >= held_out_count
    assert len(start) == start_count
    pool = Pool.start(dataset, labelled=start, held_out=held_out)
    assert_whole(pool, dataset)
    for _ in range(3):
        candidates = sorted(pool.candidates)
        if not candidates:
            break
        some = st.lists(st.sampled_from(candidates), unique=True)
        pool = pool.pseudo_label(data.draw(some)).annotate(data.draw(some))
        assert_whole(pool, dataset)
        assert pool.held_out == frozenset(held_out)
        assert frozenset(start) <= pool.labelled


@given(datasets(), st.integers(1, 10), st.integers(0, 99), st.randoms(use_true_random=False))
def test_choices_do_not_depend_on_the_order_of_the_cases(
    dataset: Dataset, count: int, seed: int, random: object
) -> None:
    cases = list(dataset.cases)
    random.shuffle(cases)  # type: ignore[attr-defined]
    shuffled = Dataset(name="D", structures=(LIVER,), cases=tuple(cases), patients_known=True)
    outcomes = []
    for one in (dataset, shuffled):
        try:
            held_out = choose_held_out(one, count=count, seed=seed)
            outcomes.append((held_out, choose_start(one, held_out=held_out, count=2, seed=seed)))
        except ConfigError as error:
            outcomes.append((str(error), ""))
    assert outcomes[0] == outcomes[1]
