"""The pool as a strategy sees it, whole cases and single structures, and the table of a selection."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cohort.budget import Budget, Cost, CostModel
from cohort.case import Dataset, Structure
from cohort.errors import SelectionError
from cohort.records import NO_REFERENCE, Prediction, QualityScore
from cohort.selection import Candidate, resolve, select
from cohort.slabs import Slab
from cohort.volume import write_volume
from flows.candidates import candidates, expected_sizes, ranked_table
from flows.slab_candidates import SlabPool

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


class TestSlabs:
    """Two cases of 12 slices; the liver of "a" is in slices 5 to 8, its spleen in 8; "b" is empty."""

    SCORES = (
        replace(score("a", "liver", 0.6, 0.6), slice_indices=(5, 7, 8), slice_scores=(0.9, 0.5, 0.3)),
        replace(score("a", "spleen", 0.2, 0.2), slice_indices=(8,), slice_scores=(0.2,)),
        score("b", "liver", math.nan),
        score("b", "spleen", math.nan),
    )

    def parts(
        self,
        dataset: Dataset,
        structures: Structures,
        scores: Sequence[QualityScore] = SCORES,
        done: Mapping[str, Sequence[Slab]] | None = None,
        thickness: int = 2,
    ) -> dict[tuple[str, ...], Candidate]:
        nothing = np.zeros(12, np.int64)
        liver, spleen = nothing.copy(), nothing.copy()
        liver[5:9], spleen[8] = (10, 20, 30, 40), 7
        areas = {"a": {"liver": liver, "spleen": spleen}, "b": {"liver": nothing, "spleen": nothing}}
        predictions = [
            Prediction(
                case_id=name,
                mask=Path("m.nii.gz"),
                checkpoint_sha256="x",
                voxels={s: int(area.sum()) for s, area in areas[name].items()},
            )
            for name in areas
        ]
        found = candidates(
            [case.view() for case in dataset.cases],
            predictions,
            scores,
            structures,
            CostModel(),
            unit="slices",
            slabs=SlabPool(thickness=thickness, areas=areas, done=done or {}),
        )
        return {candidate.key: candidate for candidate in found}

    @pytest.fixture
    def dataset(self, make_dataset: MakeDataset) -> Dataset:
        return make_dataset({"a": "pa", "b": "pb"})

    def test_slabs_with_foreground_and_beside_it_and_all_of_an_empty_mask(
        self, dataset: Dataset, structures: Structures
    ) -> None:
        found = self.parts(dataset, structures)
        of_a = ["slices 2-3", "slices 4-5", "slices 6-7", "slices 8-9", "slices 10-11"]
        assert [part for case_id, part in found if case_id == "a"] == of_a
        assert [part for case_id, part in found if case_id == "b"] == ["slices 0-1", *of_a]
        assert all(c.slab == Slab.named(c.part) for c in found.values())
        assert all(c.structures == ("liver", "spleen") for c in found.values())
        assert ("a", "slices 10-11") in self.parts(dataset, structures, thickness=5), (
            "the last one is thinner"
        )

    def test_what_is_annotated_is_no_candidate(self, dataset: Dataset, structures: Structures) -> None:
        done = {"a": (Slab(first=4, last=5), Slab(first=8, last=9))}
        found = self.parts(dataset, structures, done=done)
        assert [part for case_id, part in found if case_id == "a"] == [
            "slices 2-3",
            "slices 6-7",
            "slices 10-11",
        ]

    def test_a_slab_has_the_scores_of_its_slices(self, dataset: Dataset, structures: Structures) -> None:
        found = self.parts(dataset, structures)
        scores = {part: dict(c.scores) for (case_id, part), c in found.items() if case_id == "a"}
        assert scores == {
            "slices 2-3": {"liver": 0.9},
            "slices 4-5": {"liver": 0.9},
            "slices 6-7": {"liver": 0.5, "spleen": 0.2},
            "slices 8-9": {"liver": 0.3, "spleen": 0.2},
            "slices 10-11": {"liver": 0.3, "spleen": 0.2},
        }
        empty = found["b", "slices 0-1"]
        assert all(math.isnan(value) for value in empty.scores.values())
        assert empty.missing == {"liver": "empty mask", "spleen": "empty mask"}

    def test_without_scores_of_slices_a_slab_has_those_of_the_case_or_none(
        self, dataset: Dataset, structures: Structures
    ) -> None:
        whole = [replace(s, slice_indices=(), slice_scores=()) for s in self.SCORES]
        found = self.parts(dataset, structures, whole)
        assert all(c.scores == {"liver": 0.6, "spleen": 0.2} for k, c in found.items() if k[0] == "a")
        assert all(c.scores == {} for c in self.parts(dataset, structures, ()).values())

    def test_its_volume_and_cost_are_its_own(self, dataset: Dataset, structures: Structures) -> None:
        found = self.parts(dataset, structures)
        part = found["a", "slices 8-9"]
        voxel_ml = math.prod(dataset.cases[0].spacing_mm) / 1000
        assert part.volumes_ml == pytest.approx({"liver": 40 * voxel_ml, "spleen": 7 * voxel_ml})
        assert part.cost.as_dict() == {
            "cases": 1.0,
            "structures": 2.0,
            "slices": 2.0,
            "foreground_voxels": 47.0,
            "minutes": pytest.approx(2.0 + 2 * 1.0 + 2 * 0.2),
        }
        assert part.further is not None
        assert part.further.as_dict() == {
            **part.cost.as_dict(),
            "cases": 0.0,
            "minutes": pytest.approx(2 * 1.0 + 2 * 0.2),
        }

    def test_nothing_is_free_to_look_at(self, dataset: Dataset, structures: Structures) -> None:
        found = self.parts(dataset, structures)
        assert found["a", "slices 2-3"].cost.slices == 1.0, "nothing was found there"
        missed = found["b", "slices 0-1"].cost
        # the medians over slabs that hold them: 1 (1, 2, 1) slices of 40 (10, 50, 40) voxels, and 1 of 7
        assert (missed.slices, missed.foreground_voxels) == (2.0, 47.0)

    def test_slabs_of_a_case_become_one_request_whatever_their_order(
        self, dataset: Dataset, structures: Structures
    ) -> None:
        pool = list(self.parts(dataset, structures).values())
        chosen = [
            select(
                resolve("quality", None, {"guards": False})[0],
                order,
                Budget(currency="slices", per_round=5),
                round=1,
                seed=3,
            )
            for order in (pool, pool[::-1])
        ]
        assert chosen[0] == chosen[1]
        (first, *_) = chosen[0].requests
        assert first.structures == ("liver", "spleen")
        assert list(first.slabs) == sorted(first.slabs)
        parts = [r.part for r in chosen[0].ranked if r.selected and r.case_id == first.case_id]
        assert sorted(slab.name for slab in first.slabs) == sorted(parts)
        assert chosen[0].predicted_cost.slices <= 5.0
        assert chosen[0].predicted_cost.cases == len(chosen[0].requests)

    def test_where_the_model_found_what_has_to_be_said(
        self, dataset: Dataset, structures: Structures
    ) -> None:
        with pytest.raises(SelectionError, match="pass slabs"):
            candidates([], [], (), structures, CostModel(), unit="slices")

    def test_what_the_model_found_is_read_from_its_label_maps(
        self, structures: Structures, tmp_path: Path, affine: np.ndarray
    ) -> None:
        labels = np.zeros((8, 12, 16), np.uint8)
        labels[2:4, :3, 0], labels[7, 0, :5] = 1, 2
        write_volume(tmp_path / "a.nii.gz", labels, affine)
        prediction = Prediction(case_id="a", mask=tmp_path / "a.nii.gz", checkpoint_sha256="x")
        found = SlabPool.read([prediction], structures, 4, {}).areas["a"]
        assert found["liver"].tolist() == [0, 0, 3, 3, 0, 0, 0, 0]
        assert found["spleen"].tolist() == [0, 0, 0, 0, 0, 0, 0, 5]
