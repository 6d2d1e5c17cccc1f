from pathlib import Path

import numpy as np
import pytest

from cohort.budget import CURRENCIES, Budget, Cost, CostModel, annotation_cost, predicted_cost
from cohort.case import Structure
from cohort.errors import ConfigError
from cohort.records import Prediction
from cohort.slabs import Slab

MODEL = CostModel(minutes_per_case=2.0, minutes_per_structure=1.0, minutes_per_slice=0.5)
LIVER, SPLEEN = Structure(name="liver", label=1), Structure(name="spleen", label=2)


@pytest.fixture
def label_map() -> np.ndarray:
    labels = np.zeros((8, 12, 16), dtype=np.uint8)
    labels[1:4, 2:4, 5:10] = 1  # 3 slices of 10 voxels
    labels[3:8:2, 6, 7] = 2  # 3 slices of 1 voxel
    labels[0] = 9
    return labels


def test_slices_are_counted_along_the_first_axis_for_each_structure(label_map: np.ndarray) -> None:
    cost = annotation_cost(label_map, [LIVER, SPLEEN], MODEL)
    assert cost.as_dict() == {
        "cases": 1.0,
        "structures": 2.0,
        "slices": 6.0,
        "foreground_voxels": 33.0,
        "minutes": 2.0 + 2.0 + 3.0,
    }


def test_only_annotated_structures_cost(label_map: np.ndarray) -> None:
    cost = annotation_cost(label_map, [SPLEEN], MODEL)
    assert (cost.structures, cost.slices, cost.foreground_voxels) == (1.0, 3.0, 3.0)


def test_minutes_that_were_kept_replace_the_model(label_map: np.ndarray) -> None:
    assert annotation_cost(label_map, [LIVER], MODEL, minutes=11.5).minutes == 11.5


def test_a_structure_that_is_absent_was_looked_for() -> None:
    cost = annotation_cost(np.zeros((8, 12, 16), dtype=np.uint8), [LIVER], MODEL)
    assert cost == Cost(cases=1.0, structures=1.0, minutes=3.0)


def test_a_case_without_structures_costs_nothing(label_map: np.ndarray) -> None:
    assert annotation_cost(label_map, [], MODEL) == Cost.zero()


def test_the_predicted_cost_counts_what_was_predicted() -> None:
    prediction = Prediction(
        case_id="a",
        mask=Path("m.nii.gz"),
        checkpoint_sha256="0",
        voxels={"liver": 30, "aorta": 5},
        slices={"liver": 3, "aorta": 5},
    )
    cost = predicted_cost(prediction, [LIVER, SPLEEN], MODEL)
    assert cost == Cost(cases=1.0, structures=2.0, slices=3.0, foreground_voxels=30.0, minutes=5.5)


def test_a_perfect_prediction_is_charged_like_the_annotation(label_map: np.ndarray) -> None:
    structures = [LIVER, SPLEEN]
    masks = {s.name: label_map == s.label for s in structures}
    prediction = Prediction(
        case_id="a",
        mask=Path("m.nii.gz"),
        checkpoint_sha256="0",
        voxels={name: int(mask.sum()) for name, mask in masks.items()},
        slices={name: int(mask.any(axis=(1, 2)).sum()) for name, mask in masks.items()},
    )
    assert predicted_cost(prediction, structures, MODEL) == annotation_cost(label_map, structures, MODEL)


def test_costs_add_up_in_every_currency() -> None:
    one = Cost(cases=1, structures=2, slices=3, foreground_voxels=4, minutes=5)
    assert tuple(one.as_dict()) == CURRENCIES
    assert (one + one + Cost.zero()).as_dict() == {name: 2 * n for name, n in one.as_dict().items()}


def test_a_total_does_not_depend_on_the_order() -> None:
    costs = [Cost(cases=1.0, minutes=minutes) for minutes in (0.1, 1e16, 0.2, 3.0, 0.7)]
    assert Cost.total(costs) == Cost.total(costs[::-1]) == Cost.total(iter(costs))
    assert Cost.total(costs).cases == 5.0
    assert Cost.total([]) == Cost.zero()


@pytest.mark.parametrize("amount", [-1.0, float("nan"), float("inf")])
def test_a_cost_is_a_number_from_0(amount: float) -> None:
    with pytest.raises(ConfigError, match="slices makes no sense"):
        Cost(slices=amount)
    with pytest.raises(ConfigError, match="minutes_per_slice is"):
        CostModel(minutes_per_slice=amount)


@pytest.mark.parametrize("currency", CURRENCIES)
def test_a_budget_looks_at_its_own_currency(currency: str) -> None:
    budget = Budget(currency=currency, per_round=3.0)
    dear = Cost(**{name: 1.0 if name == currency else 1000.0 for name in CURRENCIES})
    assert budget.affords(dear + dear + dear)
    assert not budget.affords(dear + dear + dear + dear)
    assert budget.affords(dear, spent=dear + dear)
    assert not budget.affords(dear, spent=dear + dear + dear)


def test_a_budget_forgives_rounding() -> None:
    assert Budget(currency="minutes", per_round=0.3).affords(Cost(minutes=0.1), spent=Cost(minutes=0.2))


def test_a_budget_in_no_currency_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="Unknown budget currency 'euros'; expected one of cases, structures"
    ):
        Budget(currency="euros", per_round=1.0)


@pytest.mark.parametrize("per_round", [0.0, -1.0, float("nan"), float("inf")])
def test_a_budget_must_buy_something(per_round: float) -> None:
    with pytest.raises(ConfigError, match="buys nothing"):
        Budget(currency="cases", per_round=per_round)


def test_slabs_cost_what_is_in_them_and_a_structure_counts_in_each(label_map: np.ndarray) -> None:
    slabs = (Slab(first=0, last=1), Slab(first=4, last=5))
    cost = annotation_cost(label_map, [LIVER, SPLEEN], MODEL, slabs=slabs)
    assert (cost.cases, cost.structures, cost.slices, cost.foreground_voxels) == (1.0, 4.0, 2.0, 11.0)
    assert cost.minutes == 2.0 + 4 * 1.0 + 2 * 0.5
    whole = annotation_cost(label_map, [LIVER, SPLEEN], MODEL)
    parts = [
        annotation_cost(label_map, [LIVER, SPLEEN], MODEL, slabs=(Slab(first=first, last=first + 3),))
        for first in (0, 4)
    ]
    assert sum(part.slices for part in parts) == whole.slices
    assert sum(part.foreground_voxels for part in parts) == whole.foreground_voxels
