import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cohort.annotation import Annotation
from cohort.budget import Cost
from cohort.case import Case, Dataset, Structure
from cohort.metrics import dsc
from cohort.records import Prediction, QualityScore, TrainingCase
from cohort.slabs import Slab
from cohort.volume import write_volume
from flows import rounds
from segmenters.evaluation import StructureResult

Structures = tuple[Structure, ...]
MakeDataset = Callable[..., Dataset]
Make = Callable[[int], np.ndarray]


def annotation(
    case_id: str, path: Path = Path("a.nii.gz"), sha256: str = "", **structures: float
) -> Annotation:
    return Annotation(
        case_id=case_id,
        structures=structures or {"liver": 1.0, "spleen": 1.0},
        path=path,
        sha256=sha256 or f"sha-{case_id}",
        annotator="oracle",
        cost=Cost.zero(),
    )


def training_case(case_id: str, patient_id: str) -> TrainingCase:
    return TrainingCase(
        case_id=case_id,
        patient_id=patient_id,
        image=Path("i"),
        label_map=Path("l"),
        annotated=frozenset({"liver"}),
    )


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


class TestTrainingSet:
    def test_cases_in_the_order_of_their_ids_with_what_was_annotated(self, make_dataset: MakeDataset) -> None:
        by_id = make_dataset({"b": "p2", "a": "p1"}).by_id
        found = rounds.training_cases([annotation("b", liver=0.7), annotation("a")], by_id)
        assert [(case.case_id, case.patient_id) for case in found] == [("a", "p1"), ("b", "p2")]
        assert found[1].annotated == {"liver"}

    def test_the_last_annotation_of_a_case_counts(self, make_dataset: MakeDataset) -> None:
        by_id = make_dataset({"a": "a"}).by_id
        twice = [annotation("a", Path("old.nii.gz")), annotation("a", Path("new.nii.gz"))]
        (found,) = rounds.training_cases(twice, by_id)
        assert found.label_map == Path("new.nii.gz")

    def test_its_version_depends_on_content_alone(self) -> None:
        one, other = annotation("a"), annotation("b")
        version = rounds.training_set_version([one, other])
        assert rounds.training_set_version([other, one]) == version
        assert rounds.training_set_version([one]) != version
        assert rounds.training_set_version([one, annotation("b", sha256="corrected")]) != version
        assert rounds.training_set_version([one, annotation("b", liver=1.0)]) != version

    def test_structures_that_nobody_annotated_yet(self, structures: Structures) -> None:
        assert rounds.unseen_structures([], structures) == ["liver", "spleen"]
        assert rounds.unseen_structures([annotation("a", spleen=0.1)], structures) == ["liver"]
        assert rounds.unseen_structures([annotation("a")], structures) == []


class TestFolds:
    CASES = tuple(training_case(f"c{n}", f"p{n // 2}") for n in range(10))

    def test_each_case_is_left_out_once(self) -> None:
        found = rounds.folds(self.CASES, 3, 1)
        assert sorted(case_id for fold in found for case_id in fold) == sorted(c.case_id for c in self.CASES)
        assert len(found) == 3

    def test_the_cases_of_a_patient_stay_together(self) -> None:
        for fold in rounds.folds(self.CASES, 2, 5):
            assert {f"c{int(c[1:]) ^ 1}" for c in fold} == set(fold)

    def test_no_more_folds_than_patients(self) -> None:
        assert len(rounds.folds(self.CASES, 99, 0)) == 5
        assert all(len(fold) == 2 for fold in rounds.folds(self.CASES, 99, 0))

    def test_the_seed_decides(self) -> None:
        assert rounds.folds(self.CASES, 2, 0) == rounds.folds(self.CASES, 2, 0)
        assert len({tuple(rounds.folds(self.CASES, 2, seed)) for seed in range(8)}) > 1


class TestGradedMasks:
    def test_a_mask_beside_its_annotation(self, make_dataset: MakeDataset) -> None:
        by_id = make_dataset({"a": "p1", "b": "p2"}).by_id
        predictions = [Prediction(case_id="b", mask=Path("m/b.nii.gz"), checkpoint_sha256="x")]
        known = [annotation("a"), annotation("b", Path("new/b.nii.gz"), liver=0.5, spleen=0.49)]
        (found,) = rounds.graded_masks(predictions, known, by_id, "fold0/step2")
        assert (found.case_id, found.patient_id, found.source) == ("b", "p2", "fold0/step2")
        assert (found.mask, found.reference) == (Path("m/b.nii.gz"), Path("new/b.nii.gz"))
        assert found.evaluated == {"liver"}, "less than half of the spleen is in the field of view"


class TestEvaluate:
    def test_every_case_is_measured_and_reported(
        self, case: Case, structures: Structures, make_label_map: Make, affine: np.ndarray, tmp_path: Path
    ) -> None:
        predicted = make_label_map(1)
        write_volume(tmp_path / "mask.nii.gz", predicted, affine)
        told: list[tuple[int, int]] = []
        found = rounds.evaluate(
            [case],
            {"scan_1": tmp_path / "mask.nii.gz"},
            structures,
            1.0,
            lambda step, total, metrics: told.append((step, total)),
        )
        assert told == [(1, 1)]
        assert [(r.case_id, r.structure) for r in found] == [("scan_1", "liver"), ("scan_1", "spleen")]
        for result, structure in zip(found, structures, strict=True):
            wanted = dsc(predicted == structure.label, make_label_map(0) == structure.label)
            assert result.dsc == pytest.approx(wanted)
            assert 0.0 < result.dsc < 1.0


class TestTables:
    def test_results_survive_csv(self, tmp_path: Path) -> None:
        rows = (
            StructureResult(case_id="007", structure="liver", dsc=0.1 + 0.2, nsd=1 / 3),
            StructureResult(case_id="NA", structure="null", dsc=math.nan, nsd=math.nan),
        )
        rounds.write_table(tmp_path / "r.csv", rows)
        found = rounds.read_results(tmp_path / "r.csv")
        assert found[0] == rows[0]
        assert (found[1].case_id, found[1].structure) == ("NA", "null")
        assert math.isnan(found[1].dsc)

    def test_scores_survive_csv(self, tmp_path: Path) -> None:
        rows = (score("1e5", "liver", 0.25, 0.75), score("b", "spleen", math.nan))
        rounds.write_table(tmp_path / "s.csv", rows)
        found = rounds.read_scores(tmp_path / "s.csv")
        assert (found[0].case_id, found[0].raw, found[0].predicted_dsc) == ("1e5", 0.25, 0.75)
        assert found[0].reason == ""
        assert found[1].missing
        assert found[1].reason == "empty mask"

    def test_reasons_that_are_all_empty_stay_text(self, tmp_path: Path) -> None:
        rounds.write_table(tmp_path / "s.csv", [score("a", "liver", 0.25)])
        assert rounds.read_scores(tmp_path / "s.csv")[0].reason == ""

    def test_an_empty_table(self, tmp_path: Path) -> None:
        rounds.write_table(tmp_path / "r.csv", [])
        assert rounds.read_results(tmp_path / "r.csv") == ()


class TestTrial:
    @pytest.fixture
    def returned(self, tmp_path: Path, affine: np.ndarray, make_label_map: Make) -> Annotation:
        write_volume(tmp_path / "reference.nii.gz", make_label_map(0), affine)
        return annotation("a", tmp_path / "reference.nii.gz", liver=1.0, spleen=0.3)

    def test_the_dsc_that_an_annotation_reveals(
        self,
        returned: Annotation,
        tmp_path: Path,
        affine: np.ndarray,
        make_label_map: Make,
        structures: Structures,
    ) -> None:
        write_volume(tmp_path / "mask.nii.gz", make_label_map(1), affine)
        found = rounds.revealed_dsc([returned], {"a": tmp_path / "mask.nii.gz"}, structures)
        wanted = dsc(make_label_map(1) == 1, make_label_map(0) == 1)
        assert found == {("a", "liver"): pytest.approx(wanted)}, "a third of the spleen measures nothing"

    def test_a_structure_that_is_not_there_reveals_nothing(
        self, tmp_path: Path, affine: np.ndarray, make_label_map: Make, structures: Structures
    ) -> None:
        no_spleen = np.where(make_label_map(0) == 2, 0, make_label_map(0)).astype(np.uint8)
        write_volume(tmp_path / "reference.nii.gz", no_spleen, affine)
        write_volume(tmp_path / "mask.nii.gz", make_label_map(0), affine)
        found = rounds.revealed_dsc(
            [annotation("a", tmp_path / "reference.nii.gz")], {"a": tmp_path / "mask.nii.gz"}, structures
        )
        assert found == {("a", "liver"): 1.0}


class TestSlabs:
    SLABS = (Slab(first=2, last=3),)

    def partly(self, path: Path = Path("a.nii.gz"), slabs: tuple[Slab, ...] = SLABS) -> Annotation:
        return replace(annotation("a", path), slabs=slabs)

    def test_they_go_with_a_case_into_trainings_and_graded_masks(self, make_dataset: MakeDataset) -> None:
        by_id = make_dataset({"a": "p1"}).by_id
        (case,) = rounds.training_cases([self.partly()], by_id)
        assert case.slabs == self.SLABS
        predictions = [Prediction(case_id="a", mask=Path("m.nii.gz"), checkpoint_sha256="x")]
        (mask,) = rounds.graded_masks(predictions, [self.partly()], by_id, "fold0/step2")
        assert mask.slabs == self.SLABS

    def test_a_training_set_with_another_slab_is_another_one(self) -> None:
        versions = {
            rounds.training_set_version([self.partly(slabs=slabs)])
            for slabs in ((), self.SLABS, (Slab(first=2, last=4),))
        }
        assert len(versions) == 3

    def test_dsc_is_revealed_in_the_slabs_that_were_asked_for(
        self, tmp_path: Path, affine: np.ndarray, make_label_map: Make, structures: Structures
    ) -> None:
        true, predicted = make_label_map(0), make_label_map(1)
        known = np.zeros_like(true)
        known[2:4] = true[2:4]
        write_volume(tmp_path / "reference.nii.gz", known, affine)
        write_volume(tmp_path / "mask.nii.gz", predicted, affine)
        found = rounds.revealed_dsc(
            [self.partly(tmp_path / "reference.nii.gz")],
            {"a": tmp_path / "mask.nii.gz"},
            structures,
            {"a": self.SLABS},
        )
        for structure in structures:
            wanted = dsc(predicted[2:4] == structure.label, true[2:4] == structure.label)
            assert found["a", structure.name] == pytest.approx(wanted)

    def test_scores_of_slices_survive_csv_where_they_are_asked_for(self, tmp_path: Path) -> None:
        rows = (
            replace(score("1e5", "liver", 0.25, 0.75), slice_indices=(3, 11), slice_scores=(0.1 + 0.2, -0.5)),
            score("1e5", "spleen", math.nan),
        )
        (tmp_path / "plain").mkdir()
        rounds.write_scores(tmp_path, rows, by_slice=True)
        rounds.write_scores(tmp_path / "plain", rows)
        found = rounds.read_scores(tmp_path / rounds.SCORES)
        assert (found[0].slice_indices, found[0].slice_scores) == ((3, 11), (0.1 + 0.2, -0.5))
        assert (found[1].slice_indices, found[1].reason) == ((), "empty mask")
        assert not (tmp_path / "plain" / rounds.SLICE_SCORES).exists()
        assert rounds.read_scores(tmp_path / "plain" / rounds.SCORES)[0].slice_scores == ()
