from collections import Counter
from dataclasses import replace

import numpy as np

from cohort.budget import Budget, Cost
from cohort.selection import Candidate, select
from cohort.selection.quality import Quality
from cohort.selection.stratified import Stratified, strata
from cohort.slabs import Slab


def candidate(case_id: str, quality: float = 0.5, part: str = "", **volumes_ml: float) -> Candidate:
    return Candidate(
        case_id=case_id,
        patient_id=case_id,
        part=part,
        structures=("liver", "spleen"),
        scores={"liver": quality},
        volumes_ml=volumes_ml,
        cost=Cost(cases=1.0),
    )


def pool_of_two_kinds() -> list[Candidate]:
    both = [candidate(f"both{n}", liver=1000.0, spleen=200.0) for n in range(90)]
    return both + [candidate(f"liver{n}", liver=1000.0, spleen=0.0) for n in range(30)]


def test_strata_are_patterns_of_structures_and_sizes() -> None:
    pool = [candidate(f"c{n}", liver=volume) for n, volume in enumerate((10.0, 20.0, 500.0, 600.0))]
    assert strata(pool, sizes=2, rare=0.0) == [
        ("0", "case", "liver"),
        ("0", "case", "liver"),
        ("1", "case", "liver"),
        ("1", "case", "liver"),
    ]
    assert len(set(strata(pool, sizes=1, rare=0.0))) == 1


def test_an_empty_mask_makes_another_pattern() -> None:
    found = strata([candidate("a", liver=1.0, spleen=0.0), candidate("b", liver=1.0)], sizes=1, rare=0.0)
    assert found == [("0", "case", "liver")] * 2
    assert strata([candidate("a", liver=0.0)], sizes=1, rare=0.0) == [("0", "case")]


def test_rare_patterns_are_one() -> None:
    pool = [candidate(f"c{n}", liver=1.0) for n in range(18)]
    pool += [candidate("x", spleen=1.0), candidate("y")]
    found = strata(pool, sizes=1, rare=0.1)
    assert Counter(found) == {("0", "case", "liver"): 18, ("0", "rare"): 2}


def test_structures_of_a_case_are_strata_of_their_own() -> None:
    pool = [candidate("a", part="liver", liver=5.0), candidate("a", part="spleen", spleen=5.0)]
    assert len(set(strata(pool, sizes=1, rare=0.0))) == 2


def test_a_draw_has_each_stratums_share() -> None:
    for seed in range(20):
        budget = Budget(currency="cases", per_round=12.0)
        taken = select(Stratified(sizes=1), pool_of_two_kinds(), budget, round=0, seed=seed).selected
        assert sum(case_id.startswith("liver") for case_id in taken) == 3


def test_equal_allocation_takes_as_many_of_each() -> None:
    budget = Budget(currency="cases", per_round=12.0)
    strategy = Stratified(sizes=1, allocation="equal")
    taken = select(strategy, pool_of_two_kinds(), budget, round=0, seed=0).selected
    assert sum(case_id.startswith("liver") for case_id in taken) == 6


def test_every_case_of_a_stratum_is_as_likely() -> None:
    counts: Counter[str] = Counter()
    pool = [candidate(f"c{n}", liver=1.0) for n in range(6)]
    for seed in range(600):
        counts.update(
            select(Stratified(), pool, Budget(currency="cases", per_round=1.0), round=0, seed=seed).selected
        )
    assert len(counts) == 6
    assert min(counts.values()) > 60


def test_the_inner_strategy_decides_within_a_stratum() -> None:
    pool = [candidate(f"both{n}", n / 10, liver=1.0, spleen=1.0) for n in range(4)]
    pool += [candidate(f"liver{n}", n / 10, liver=1.0) for n in range(4)]
    strategy = Stratified(inner=Quality(), sizes=1)
    budget = Budget(currency="cases", per_round=4.0)
    assert set(select(strategy, pool, budget, round=0, seed=0).selected) == {
        "both0",
        "both1",
        "liver0",
        "liver1",
    }


def test_no_candidates() -> None:
    assert Stratified().priorities([], np.random.default_rng(0)).shape == (0,)


def test_slabs_are_alike_wherever_they_lie() -> None:
    pool = [
        replace(candidate("a", part=slab.name, liver=5.0), slab=slab)
        for slab in (Slab(first=0, last=3), Slab(first=4, last=7))
    ]
    assert strata(pool, sizes=1, rare=0.0) == [("0", "slab", "liver")] * 2
