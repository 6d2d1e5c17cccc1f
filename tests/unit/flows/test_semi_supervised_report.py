import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib import image as images

from cohort.case import Case
from cohort.filtering import Verdict
from cohort.records import Prediction, QualityScore
from flows import campaign as campaigns
from flows import pseudo_label_metrics, semi_supervised_figures
from flows.campaign import Campaign
from flows.semi_supervised_config import load_semi_supervised
from flows.semi_supervised_report import report_text, write_report

OUTCOME: Mapping[str, float | None] = {
    "masks": 8.0,
    "kept": 4.0,
    "kept_fraction": 0.5,
    "kept_empty": 0.0,
    "weight": 4.0,
    "measured": 8.0,
    "measured_kept": 4.0,
    "dsc": 0.5,
    "dsc_kept": 0.75,
    "good": 0.25,
    "precision": 0.5,
    "recall": 1.0,
}


@pytest.fixture
def campaign(make_campaign_yaml: Callable[..., Path]) -> Campaign:
    """A training of one generation, as its ledger has it."""
    gone = dict.fromkeys(("rounds", "budget", "strategy"))
    path = make_campaign_yaml("scans", {**gone, "filter": {"estimator": "oracle"}, "name": "mine"})
    campaign = campaigns.create_or_open(load_semi_supervised(path))
    sha = {"dataset_sha256": "d" * 64, "config_sha256": "c" * 64, "code_version": "0.1.0"}
    campaign.append(
        "start", dataset="Tiny", held_out=["a", "b"], start=["c", "d"], pool=["e", "f", "g", "h"], **sha
    )
    add_result(campaign, 0, 0.6, 0)
    mask = {"case_id": "e", "structure": "liver", "weight": 0.5, "score": 0.9, "reason": "good"}
    campaign.append("promotion", round=0, masks=[mask], files={"e": {"path": "e.nii.gz", "sha256": "0"}})
    rival = {"estimator": {"spearman": 0.9}, "filter": OUTCOME}
    campaign.append(
        "trial",
        round=0,
        estimator={"spearman": 0.9, "n": 8},
        good_dsc=0.8,
        filter=OUTCOME,
        filter_per_structure={"liver": OUTCOME, "spleen": {**OUTCOME, "precision": None}},
        rivals={"entropy": rival, "oracle": rival, "random": {"estimator": {}, "filter": OUTCOME}},
    )
    cost = {
        "seconds_per_case": 0.125,
        "loading_seconds": 2.0,
        "peak_mb": 700.0,
        "peak_over_idle_mb": 300.0,
        "disk_mb": 49.7,
    }
    campaign.append(
        "cost",
        round=0,
        cases=2,
        threads=1,
        segmentation={"seconds": 0.5, "peak_mb": 600.0, "idle_mb": 400.0, "disk_mb": 0.0},
        estimators={"entropy": {**cost, "learning_seconds": 0.0}},
    )
    add_result(campaign, 1, 0.7, 1)
    return campaign


def add_result(campaign: Campaign, number: int, dsc: float, masks: int) -> None:
    campaign.append(
        "result",
        round=number,
        labelled_cases=2,
        budget={"cases": 2.0, "minutes": 10.0},
        dsc=dsc,
        nsd=0.5,
        dsc_per_structure={"liver": dsc, "spleen": None},
        nsd_per_structure={"liver": 0.5, "spleen": None},
        pseudo_labels={"cases": masks, "masks": masks, "weight": 0.5 * masks},
    )


def test_the_report_says_what_happened_and_what_reads_references(campaign: Campaign) -> None:
    text = report_text(campaign)
    assert "| teacher | 2 | 0 | 0 | 0 | 0.600 | 0.500 | 0.600 | - |" in text
    assert "| student 1 | 2 | 1 | 1 | 0 | 0.700 | 0.500 | 0.700 | - |" in text
    assert "4 of 8 masks that are not empty were kept (50%)" in text
    assert "| **this filter** |  | 0.750 | 0.500 | 0.500 | 0.250 | 1.000 |" in text
    assert "| oracle (reads references) | 0.900 |" in text
    assert "| entropy | 0.125 | 2.0 | 700 | 300 | 49.70 | 0 |" in text
    assert "**reads references**: an upper bound" in text
    assert "No new annotation is bought" in text


def test_a_report_is_written_beside_the_ledger(campaign: Campaign) -> None:
    assert write_report(campaign).read_text() == report_text(campaign)


def test_a_trial_without_references_claims_nothing(campaign: Campaign) -> None:
    nothing = {**OUTCOME, "measured": 0.0}
    campaign.append(
        "trial", round=1, estimator={}, good_dsc=0.8, filter=nothing, filter_per_structure={}, rivals={}
    )
    assert "No reference tells how good they are." in report_text(campaign)


def test_metrics_are_named_after_what_they_are_of(campaign: Campaign) -> None:
    found = {
        (entry.payload["round"], name): value
        for entry, values in pseudo_label_metrics.metrics(campaign)
        for name, value in values.items()
    }
    assert found[0, "pseudo_labels/masks"] == 1.0
    assert found[0, "pseudo_labels/weight"] == 0.5
    assert found[0, "filter/precision"] == 0.5
    assert found[0, "filter_precision/spleen"] is None
    assert found[0, "rival_dsc_kept/random"] == 0.75
    assert found[0, "rival_spearman/random"] is None
    assert found[0, "cost_seconds_per_case/entropy"] == 0.125
    assert found[0, "new_annotations"] == found[1, "new_annotations"] == 0.0


def test_a_campaign_is_compared_by_its_strategy_and_a_training_by_its_filter(campaign: Campaign) -> None:
    assert pseudo_label_metrics.arm({"strategy": "entropy"}) == "entropy"
    assert pseudo_label_metrics.arm(campaign.values) == "oracle"


class TestFigures:
    VERDICTS = (
        Verdict(case_id="scan_1", structure="liver", weight=1.0, score=0.9, reason="in"),
        Verdict(case_id="scan_1", structure="spleen", weight=0.0, score=0.2, reason="not in"),
    )

    @pytest.fixture
    def scores(self) -> list[QualityScore]:
        return [
            QualityScore(case_id=v.case_id, structure=v.structure, raw=v.score, estimator="sentinel")
            for v in self.VERDICTS
        ]

    def test_generations(self, campaign: Campaign, tmp_path: Path) -> None:
        results = [entry.payload for entry in campaign.events("result")]
        semi_supervised_figures.generations(tmp_path / "a.png", results, "mine")
        semi_supervised_figures.generations(tmp_path / "b.png", results[:1], "mine")
        assert (tmp_path / "a.png").read_bytes()[:4] == (tmp_path / "b.png").read_bytes()[:4] == b"\x89PNG"

    def test_what_was_kept_is_drawn_where_it_is_known(
        self, tmp_path: Path, scores: list[QualityScore]
    ) -> None:
        dscs = {("scan_1", "liver"): 0.8, ("scan_1", "spleen"): 0.3}
        path = tmp_path / "filter.png"
        semi_supervised_figures.filtered(path, self.VERDICTS, {"sentinel": scores}, {}, "nothing known")
        assert not path.exists()
        semi_supervised_figures.filtered(path, self.VERDICTS, {"sentinel": scores}, dscs, "known")
        assert path.read_bytes()[:4] == b"\x89PNG"

    def test_examples(self, tmp_path: Path, case: Case, structures: tuple) -> None:
        assert case.reference is not None
        prediction = Prediction(case_id="scan_1", mask=case.reference, checkpoint_sha256="0")
        path = tmp_path / "kept_and_not.png"
        semi_supervised_figures.examples(
            path, self.VERDICTS, {"scan_1": case}, [prediction], structures, {}, "examples"
        )
        assert path.read_bytes()[:4] == b"\x89PNG"

    def test_a_filter_that_reads_nothing_has_examples_by_true_dsc(
        self, tmp_path: Path, case: Case, structures: tuple, scores: list[QualityScore]
    ) -> None:
        assert case.reference is not None
        prediction = Prediction(case_id="scan_1", mask=case.reference, checkpoint_sha256="0")
        blind = [replace(verdict, score=math.nan) for verdict in self.VERDICTS]
        dscs = {("scan_1", "liver"): 0.8, ("scan_1", "spleen"): 0.3}
        path = tmp_path / "kept_and_not.png"
        unknown: dict[tuple[str, str], float]
        for unknown in ({}, dscs):
            semi_supervised_figures.examples(
                path, blind, {"scan_1": case}, [prediction], structures, unknown, "examples"
            )
            assert path.exists() is (unknown == dscs)
        widths = []
        for verdicts in (blind, self.VERDICTS):
            semi_supervised_figures.filtered(tmp_path / "f.png", verdicts, {"random": scores}, dscs, "known")
            widths.append(images.imread(tmp_path / "f.png").shape[1])
        assert widths[0] < widths[1], "no empty panel"
