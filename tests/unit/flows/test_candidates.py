"""The pool as a strategy sees it, whole cases and single structures, and the table of a selection."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from cohort.budget import Budget, Cost, CostModel
from cohort.case import Dataset, Structure
from cohort.records import NO_REFERENCE, Prediction, QualityScore
from cohort.selection import Candidate, resolve, select
from flows.candidates import candidates, expected_sizes, ranked_table

Structures = tuple[Structure, ...]
MakeDataset = Callable[..., Dataset]


def score(case_id: str, structure: str, raw: float, predicted_dsc: float = math.nan) -> QualityScore:
    reason = "empty mask" if math.isnan(raw) else ""
    return QualityScore(
        case_id=case_id,
        structure=structure,
        raw=raw,
        predicted_dsc=predicted_dsc,
        estimator="sentinel",
        reason=reason,
    )


@pytest.fixture
def predictions() -> tuple[Prediction, ...]:
    return tuple(
        Prediction(
            case_id=case_id,
            mask=Path(f"{case_id}.nii.gz"),
            checkpoint_sha256="x",
            voxels={"liver": 10 * n, "spleen": 1},
            slices={"liver": n, "spleen": 1},
        )
        for n, case_id in enumerate(("a", "b", "c"), start=1)
    )


FIRST = ["rank", "case_id", "part", "priority", "selected", "guard"]

SCORES = (
    score("a", "liver", 0.9, 0.8),
    score("a", "spleen", math.nan),
    score("b", "liver", 0.2),
    score("b", "spleen", 0.4),
    score("c", "liver", 0.7, 0.6),
    score("c", "spleen", 0.5, 0.5),
)


def pool_of(
    dataset: Dataset, predictions: Sequence[Prediction], structures: Structures
) -> tuple[Candidate, ...]:
    views = [case.view() for case in dataset.cases]
    return candidates(views, predictions, SCORES, structures, CostModel())


class TestSelection:
    PATIENTS: Mapping[str, str] = {"a": "pa", "b": "pb", "c": "pc"}

    def test_a_candidate_is_what_a_strategy_may_know(
        self, make_dataset: MakeDataset, predictions: tuple[Prediction, ...], structures: Structures
    ) -> None:
        first, second, _ = pool_of(make_dataset(self.PATIENTS), predictions, structures)
        assert (first.case_id, first.patient_id) == ("a", "pa")
        assert first.scores["liver"] == 0.9
        assert math.isnan(first.scores["spleen"])
        assert second.scores == {"liver": 0.2, "spleen": 0.4}
        assert second.cost.as_dict() == {
            "cases": 1.0,
            "structures": 2.0,
            "slices": 3.0,
            "foreground_voxels": 21.0,
            "minutes": pytest.approx(2.0 + 2 * 1.0 + 3 * 0.2),
        }

    def test_a_structure_may_have_the_name_of_a_column(
        self, make_dataset: MakeDataset, predictions: tuple[Prediction, ...]
    ) -> None:
        structures = (Structure(name="rank", label=1), Structure(name="liver", label=2))
        strategy, _ = resolve("random")
        views = [case.view() for case in make_dataset(self.PATIENTS).cases]
        pool = candidates(views, predictions, (), structures, CostModel())
        selection = select(strategy, pool, Budget(currency="cases", per_round=1), round=0, seed=0)
        table = ranked_table(selection, (), structures)
        assert list(table["rank"]) == [0, 1, 2]
        assert list(table.columns) == [*FIRST, "liver"]

    def test_the_ranked_table_tells_the_whole_pool(
        self, make_dataset: MakeDataset, predictions: tuple[Prediction, ...], structures: Structures
    ) -> None:
        strategy, _ = resolve("quality")
        pool = pool_of(make_dataset(self.PATIENTS), predictions, structures)
        selection = select(strategy, pool, Budget(currency="cases", per_round=2), round=0, seed=0)
        table = ranked_table(selection, SCORES, structures)
        assert list(table.columns) == [*FIRST, "liver", "spleen"]
        assert list(table["rank"]) == [0, 1, 2]
        assert table["priority"].is_monotonic_decreasing
        assert list(table["selected"]) == [True, True, False]
        assert list(table["case_id"][:2]) == list(selection.selected)
        of = table.set_index("case_id")
        assert of.loc["a", "liver"] == 0.8, "predicted DSC where the estimator gives one"
        assert of.loc["b", "liver"] == 0.2, "its own value where not"
        assert math.isnan(of.loc["a", "spleen"])

    def test_a_strategy_without_scores_has_a_table_too(
        self, make_dataset: MakeDataset, predictions: tuple[Prediction, ...], structures: Structures
    ) -> None:
        strategy, _ = resolve("random")
        views = [case.view() for case in make_dataset(self.PATIENTS).cases]
        pool = candidates(views, predictions, (), structures, CostModel())
        selection = select(strategy, pool, Budget(currency="cases", per_round=1), round=0, seed=0)
        table = ranked_table(selection, (), structures)
        assert len(table) == 3
        assert bool(table["liver"].isna().all())
        assert isinstance(table, pd.DataFrame)


def test_a_mask_that_was_missed_is_not_free() -> None:
    liver = (Structure(name="liver", label=1),)
    predictions = [
        Prediction(
            case_id=name,
            mask=Path("m.nii.gz"),
            checkpoint_sha256="c",
            voxels={"liver": voxels},
            slices={"liver": slices},
        )
        for name, voxels, slices in (("a", 100, 4), ("b", 0, 0), ("c", 300, 8), ("d", 500, 6))
    ]
    found = {p.case_id: (p.voxels["liver"], p.slices["liver"]) for p in expected_sizes(predictions, liver)}
    assert found == {"a": (100, 4), "b": (300, 6), "c": (300, 8), "d": (500, 6)}


class TestContent:
    def test_volumes_come_from_the_prediction_and_not_from_what_a_missed_mask_may_cost(
        self, make_dataset: MakeDataset, predictions: tuple[Prediction, ...], structures: Structures
    ) -> None:
        cases = make_dataset({"a": "pa"}).cases
        found = replace(predictions[0], voxels={"liver": 10, "spleen": 0})
        (candidate,) = candidates([cases[0].view()], [found], (), structures, CostModel())
        voxel_ml = math.prod(cases[0].spacing_mm) / 1000
        assert candidate.volumes_ml == {"liver": pytest.approx(10 * voxel_ml), "spleen": 0.0}
        assert candidate.cost.foreground_voxels == 11.0

    def test_a_missing_score_has_its_reason(
        self, make_dataset: MakeDataset, predictions: tuple[Prediction, ...], structures: Structures
    ) -> None:
        first, *_ = pool_of(make_dataset({"a": "a", "b": "b", "c": "c"}), predictions, structures)
        assert first.missing == {"spleen": "empty mask"}


class TestStructures:
    PATIENTS: Mapping[str, str] = {"a": "pa", "b": "pb", "c": "pc"}

    def parts(
        self,
        dataset: Dataset,
        predictions: tuple[Prediction, ...],
        structures: Structures,
        scores: Sequence[QualityScore] = SCORES,
        asked: Mapping[str, Sequence[str]] | None = None,
    ) -> tuple[Candidate, ...]:
        views = [case.view() for case in dataset.cases]
        return candidates(views, predictions, scores, structures, CostModel(), unit="structure", asked=asked)

    def test_each_structure_of_each_case_is_a_candidate(
        self, make_dataset: MakeDataset, predictions: tuple[Prediction, ...], structures: Structures
    ) -> None:
        found = self.parts(make_dataset(self.PATIENTS), predictions, structures)
        assert [c.key for c in found] == [(i, n) for i in "abc" for n in ("liver", "spleen")]
        assert [c.structures for c in found[:2]] == [("liver",), ("spleen",)]
        assert found[2].scores == {"liver": 0.2}
        assert found[1].missing == {"spleen": "empty mask"}

    def test_opening_a_case_is_paid_once(
        self, make_dataset: MakeDataset, predictions: tuple[Prediction, ...], structures: Structures
    ) -> None:
        pool = self.parts(make_dataset(self.PATIENTS), predictions, structures)
        whole = pool_of(make_dataset(self.PATIENTS), predictions, structures)
        selection = select(
            resolve("random")[0], pool, Budget(currency="minutes", per_round=99), round=0, seed=0
        )
        assert sorted(selection.selected) == ["a", "b", "c"]
        assert all(sorted(request.structures) == ["liver", "spleen"] for request in selection.requests)
        total = Cost.total(c.cost for c in whole).as_dict()
        assert selection.predicted_cost.as_dict() == pytest.approx(total)

    def test_what_was_annotated_is_no_candidate(
        self, make_dataset: MakeDataset, predictions: tuple[Prediction, ...], structures: Structures
    ) -> None:
        asked = {"a": ("spleen",), "b": ("liver", "spleen"), "c": ("liver",)}
        found = self.parts(make_dataset(self.PATIENTS), predictions, structures, asked=asked)
        assert [c.key for c in found] == [("a", "spleen"), ("b", "liver"), ("b", "spleen"), ("c", "liver")]
        views = [case.view() for case in make_dataset(self.PATIENTS).cases]
        whole = candidates(views, predictions, SCORES, structures, CostModel(), asked=asked)
        assert [c.structures for c in whole] == [("spleen",), ("liver", "spleen"), ("liver",)]
        assert whole[2].scores == {"liver": 0.7}
        assert whole[2].cost.structures == 1.0

    def test_what_an_oracle_cannot_judge_is_no_candidate(
        self, make_dataset: MakeDataset, predictions: tuple[Prediction, ...], structures: Structures
    ) -> None:
        unknown = replace(SCORES[1], reason=NO_REFERENCE)
        scores = (SCORES[0], unknown, *SCORES[2:])
        found = self.parts(make_dataset(self.PATIENTS), predictions, structures, scores)
        assert ("a", "spleen") not in [c.key for c in found]
        assert len(found) == 5

    def test_the_table_names_the_structure(
        self, make_dataset: MakeDataset, predictions: tuple[Prediction, ...], structures: Structures
    ) -> None:
        pool = self.parts(make_dataset(self.PATIENTS), predictions, structures)
        budget = Budget(currency="structures", per_round=1)
        selection = select(resolve("quality")[0], pool, budget, round=0, seed=0)
        table = ranked_table(selection, SCORES, structures)
        assert table.loc[0, ["case_id", "part"]].tolist() == ["b", "liver"], "its mask is the worst"
        assert list(table["selected"]) == [True, *[False] * 5]
        assert selection.requests[0].structures == ("liver",)
