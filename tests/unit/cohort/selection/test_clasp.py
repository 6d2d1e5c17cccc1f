from collections.abc import Mapping
from math import nan

import numpy as np

from cohort.budget import Budget, Cost
from cohort.selection import Candidate, select
from cohort.selection.clasp import Clasp
from cohort.selection.power import Schedule

SURE = Schedule(start=1e6, end=1e6)


def pool(scores: Mapping[str, Mapping[str, float]]) -> list[Candidate]:
    return [
        Candidate(
            case_id=case_id,
            patient_id="p",
            structures=tuple(s),
            scores=s,
            cost=Cost(cases=1.0, structures=1.0),
        )
        for case_id, s in scores.items()
    ]


THREE = {
    "bad_liver": {"liver": 0.1, "aorta": 0.9, "spleen": 0.9},
    "bad_aorta": {"liver": 0.95, "aorta": 0.6, "spleen": 0.95},
    "bad_spleen": {"liver": 0.95, "aorta": 0.95, "spleen": 0.6},
    **{f"middling{n}": {"liver": 0.5, "aorta": 0.8, "spleen": 0.8} for n in range(6)},
}


def taken(strategy: Clasp, scores: Mapping[str, Mapping[str, float]], count: int, seed: int = 0) -> set[str]:
    budget = Budget(currency="cases", per_round=float(count))
    return set(select(strategy, pool(scores), budget, round=0, seed=seed).selected)


def test_every_structure_names_its_worst() -> None:
    found = taken(Clasp(share=1.0, schedule=SURE), THREE, 3)
    assert found == {"bad_liver", "bad_aorta", "bad_spleen"}


def test_without_turns_of_structures_the_mean_decides() -> None:
    assert "bad_aorta" not in taken(Clasp(share=0.0, schedule=SURE), THREE, 7)


def test_turns_are_shared() -> None:
    for seed in range(10):
        found = taken(Clasp(share=0.5, schedule=SURE), THREE, 2, seed)
        assert len(found & {"bad_liver", "bad_aorta", "bad_spleen"}) >= 1


def test_which_structure_begins_is_drawn() -> None:
    first = {frozenset(taken(Clasp(share=1.0, schedule=SURE), THREE, 1, seed)) for seed in range(20)}
    assert len(first) == 3


def test_an_empty_mask_is_as_bad_as_the_worst_of_its_structure() -> None:
    scores = {"missed": {"aorta": nan}, "fine": {"aorta": 0.9}, "bad": {"aorta": 0.2}}
    assert taken(Clasp(share=1.0, schedule=SURE), scores, 2) == {"missed", "bad"}


def test_a_structure_that_was_never_found_has_no_turn() -> None:
    scores = {name: {**found, "aorta": nan} for name, found in THREE.items()}
    assert taken(Clasp(share=1.0, schedule=SURE), scores, 2) == {"bad_liver", "bad_spleen"}


def test_single_structures_of_cases() -> None:
    parts = [
        Candidate(
            case_id="a",
            patient_id="a",
            part=name,
            structures=(name,),
            scores={name: quality},
            cost=Cost(structures=1.0),
        )
        for name, quality in (("liver", 0.1), ("aorta", 0.8), ("spleen", 0.9))
    ]
    budget = Budget(currency="structures", per_round=2.0)
    selection = select(Clasp(schedule=SURE), parts, budget, round=0, seed=0)
    assert selection.selected == ("a",)
    assert len(selection.requests[0].structures) == 2


def test_everybody_is_named_once() -> None:
    priorities = Clasp().priorities(pool(THREE), np.random.default_rng(0))
    assert sorted(priorities.tolist()) == [-float(turn) for turn in range(9)][::-1]
