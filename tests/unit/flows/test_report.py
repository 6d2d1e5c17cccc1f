import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image as images

from cohort.annotation import Annotation
from cohort.budget import Cost
from cohort.case import Case, Dataset, Structure
from cohort.records import QualityScore
from cohort.slabs import Slab
from cohort.volume import Volume, write_volume
from flows import report
from flows.report import Panel

Structures = tuple[Structure, ...]
Make = Callable[[int], np.ndarray]
MakeDataset = Callable[..., Dataset]


def score(case_id: str, structure: str, raw: float, predicted_dsc: float = math.nan) -> QualityScore:
    return QualityScore(
        case_id=case_id, structure=structure, raw=raw, predicted_dsc=predicted_dsc, estimator="sentinel"
    )


def annotation(case_id: str, path: Path, *names: str) -> Annotation:
    return Annotation(
        case_id=case_id,
        structures=dict.fromkeys(names, 1.0),
        path=path,
        sha256="x",
        annotator="oracle",
        cost=Cost.zero(),
    )


def picture(path: Path) -> np.ndarray:
    """A PNG, (rows, columns, RGB) in [0, 1]."""
    found: np.ndarray = images.imread(path)[..., :3]
    return found


def has_colour(path: Path, colour: str, without: slice = slice(0, 0)) -> bool:
    """Whether a PNG has a pixel of a colour, `without` some of its rows."""
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255.0
    found = np.abs(picture(path) - wanted).max(axis=2) < 0.1
    found[without] = False
    return bool(found.any())


@pytest.fixture
def mask(tmp_path: Path, affine: np.ndarray, make_label_map: Make) -> Path:
    path = tmp_path / "mask.nii.gz"
    write_volume(path, make_label_map(1), affine)
    return path


class TestPanels:
    CASES: Mapping[str, str] = {"a": "a", "b": "b", "c": "c"}
    MASKS: Mapping[str, Path] = {case_id: Path(f"{case_id}.nii.gz") for case_id in "abc"}

    def test_the_worst_and_the_best_scored_masks(
        self, make_dataset: MakeDataset, structures: Structures
    ) -> None:
        scores = [
            score("a", "liver", 0.9, 0.8),
            score("a", "spleen", math.nan),
            score("b", "liver", 0.1, 0.2),
            score("b", "spleen", 0.3, 0.3),
            score("c", "liver", 0.5),
        ]
        returned = [annotation("b", Path("new.nii.gz"), "liver")]
        worst, best = report.score_panels(
            scores,
            make_dataset(self.CASES).by_id,
            self.MASKS,
            structures,
            returned,
            {("b", "liver"): 0.25},
        )
        assert [(panel.case.case_id, panel.label) for panel in worst] == [("b", 1), ("b", 2)]
        assert [(panel.case.case_id, panel.label) for panel in best] == [("a", 1), ("c", 1)]
        assert worst[0].title == "b · liver\npredicted 0.20, revealed 0.25"
        assert worst[0].reference == Path("new.nii.gz")
        assert worst[1].reference is None, "the annotation does not answer for the spleen"
        assert best[1].title == "c · liver\nvalue 0.500"
        assert best[0].mask == Path("a.nii.gz")

    def test_no_mask_is_both_worst_and_best(self, make_dataset: MakeDataset, structures: Structures) -> None:
        by_id = make_dataset(self.CASES).by_id
        one = report.score_panels([score("a", "liver", 0.5)], by_id, self.MASKS, structures, [], {})
        assert one == ([], [])

    def test_of_a_selected_case_the_structure_that_was_most_wrong(
        self, make_dataset: MakeDataset, structures: Structures
    ) -> None:
        returned = [annotation(case_id, Path(f"n{case_id}"), "liver", "spleen") for case_id in "abc"]
        revealed = {("a", "liver"): 0.4, ("a", "spleen"): 0.3, ("c", "liver"): 0.9}
        panels = report.selected_panels(
            returned, make_dataset(self.CASES).by_id, self.MASKS, structures, revealed
        )
        assert [panel.title for panel in panels] == ["a\nspleen: DSC 0.30", "c\nliver: DSC 0.90"]
        assert [panel.label for panel in panels] == [2, 1]
        assert panels[0].reference == Path("na")


class TestOverlays:
    def test_prediction_and_annotation_are_drawn(self, case: Case, mask: Path, tmp_path: Path) -> None:
        both = Panel(case=case, mask=mask, label=1, title="liver", reference=case.reference)
        report.overlays(tmp_path / "deep" / "both.png", {"worst": [both, both], "none": []}, "round 0")
        assert has_colour(tmp_path / "deep" / "both.png", report.PREDICTED)
        assert has_colour(tmp_path / "deep" / "both.png", report.REFERENCE)

    def test_an_empty_mask_has_no_outline(
        self, case: Case, mask: Path, tmp_path: Path, affine: np.ndarray
    ) -> None:
        write_volume(tmp_path / "empty.nii.gz", np.zeros((8, 12, 16), np.uint8), affine)
        for name, path in (("some", mask), ("none", tmp_path / "empty.nii.gz")):
            panel = Panel(case=case, mask=path, label=1, title="")
            report.overlays(tmp_path / f"{name}.png", {"selected": [panel]}, "")
        legend = slice(-60, None)
        assert has_colour(tmp_path / "some.png", report.PREDICTED, without=legend)
        assert not has_colour(tmp_path / "none.png", report.PREDICTED, without=legend)

    def test_slices_that_nobody_annotated_are_not_drawn(self, case: Case, mask: Path, tmp_path: Path) -> None:
        for name, slab in (("in", Slab(first=1, last=2)), ("out", Slab(first=7, last=7))):
            panel = Panel(case=case, mask=mask, label=1, title="", reference=case.reference, slabs=(slab,))
            report.overlays(tmp_path / f"{name}.png", {"selected": [panel]}, "")
        legend = slice(-60, None)
        assert has_colour(tmp_path / "in.png", report.PREDICTED, without=legend)
        assert not has_colour(tmp_path / "out.png", report.PREDICTED, without=legend)

    def test_the_same_input_gives_the_same_bytes(self, case: Case, mask: Path, tmp_path: Path) -> None:
        panel = Panel(case=case, mask=mask, label=1, title="liver")
        for name in ("one.png", "two.png"):
            report.overlays(tmp_path / name, {"worst": [panel]}, "round 0")
        assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()

    def test_nothing_to_show_is_no_file(self, tmp_path: Path) -> None:
        report.overlays(tmp_path / "none.png", {"worst": [], "best": []}, "round 0")
        assert not (tmp_path / "none.png").exists()


class TestSlices:
    def test_where_mask_and_reference_disagree_most(self) -> None:
        mask, reference = np.zeros((4, 3, 3), bool), np.zeros((4, 3, 3), bool)
        mask[0], reference[0] = True, True
        reference[2, 0, 0] = True
        assert report._slice_to_show(mask, reference) == 2
        assert report._slice_to_show(mask, None) == 0
        assert report._slice_to_show(reference, reference) == 0

    def test_the_right_of_the_patient_is_on_the_left_and_anterior_on_top(self) -> None:
        # canonical planes are (y, x), towards anterior and towards the patient's right
        plane = np.array([[0, 1], [2, 3]])
        assert report.radiological(plane).tolist() == [[3, 2], [1, 0]]

    def test_ct_gets_a_window_and_others_their_percentiles(self, affine: np.ndarray) -> None:
        ct = np.linspace(-1000.0, 1000.0, 1536, dtype=np.float32).reshape(8, 12, 16)
        assert report.window(Volume(array=ct, affine=affine)) == report.CT_WINDOW_HU
        lower, upper = report.window(Volume(array=ct + 1000.0, affine=affine))
        assert 10.0 < lower < 30.0
        assert 1970.0 < upper < 1990.0
        flat = Volume(array=np.zeros((8, 12, 16), np.float32), affine=affine)
        assert report.window(flat)[0] < report.window(flat)[1]


class TestCurves:
    RESULTS = (
        {"labelled_cases": 3, "dsc": 0.2, "nsd": 0.1, "dsc_per_structure": {"liver": 0.2, "spleen": None}},
        {"labelled_cases": 5, "dsc": 0.6, "nsd": 0.5, "dsc_per_structure": {"liver": 0.5, "spleen": 0.7}},
    )

    def test_dsc_over_labelled_cases(self, tmp_path: Path) -> None:
        report.dsc_curve(tmp_path / "dsc.png", self.RESULTS, "tiny")
        assert has_colour(tmp_path / "dsc.png", "#1d4e89")
        report.dsc_curve(tmp_path / "first.png", self.RESULTS[:1], "tiny")
        assert not np.array_equal(picture(tmp_path / "dsc.png"), picture(tmp_path / "first.png"))

    def test_a_round_in_which_nothing_could_be_measured(self, tmp_path: Path) -> None:
        blank = {"labelled_cases": 3, "dsc": None, "nsd": None, "dsc_per_structure": {"liver": None}}
        report.dsc_curve(tmp_path / "dsc.png", [blank], "tiny")
        assert (tmp_path / "dsc.png").is_file()

    def test_the_trial_of_an_estimator(self, tmp_path: Path) -> None:
        scores = [score("a", "liver", 0.4, 0.5), score("b", "liver", math.nan), score("c", "spleen", 0.9)]
        revealed = {("a", "liver"): 0.6, ("b", "liver"): 0.1}
        report.trial_scatter(tmp_path / "trial.png", scores, revealed, "round 0")
        assert (tmp_path / "trial.png").is_file()

    def test_a_trial_without_pairs_is_no_file(self, tmp_path: Path) -> None:
        report.trial_scatter(tmp_path / "trial.png", [score("a", "liver", 0.4)], {}, "round 0")
        report.trial_scatter(tmp_path / "trial.png", [], {("a", "liver"): 0.6}, "round 0")
        assert not (tmp_path / "trial.png").exists()
