"""Tables, figures and a card of a test, from made-up scores."""

import io
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import image as images
from rich.console import Console

from flows import report, sentinel_report
from flows.sentinel_config import SentinelTrainingConfig, load_sentinel_training
from flows.sentinel_figures import coverage_figure, score_scatter
from flows.sentinel_report import headline_table, write_report
from sentinel.config import SentinelConfig
from sentinel.evaluation import ScoredMask, evaluate_scores
from sentinel.scoring import Sentinel
from sentinel.text import embed_names

ABOUT = {"data set": "Tiny", "modality": "CT", "training patients": "6", "sentinel sha256": "5e"}
NAMES = ("liver", "spleen")


def masks(*, error: float = 0.05, patients: int = 6, bounds: bool = True) -> tuple[ScoredMask, ...]:
    """Predictions that are `error` too high, then too low, by turns; spleens are never bad."""
    found = []
    for number in range(4 * patients):
        structure = NAMES[number % 2]
        dsc = 0.3 + 0.02 * number if structure == "liver" else 0.75 + 0.005 * number
        predicted = dsc + error * (1 if number % 4 < 2 else -1)
        found.append(
            ScoredMask(
                case_id=f"case_{number // 4:02d}",
                patient_id=f"case_{number // 4:02d}",
                structure=structure,
                source=f"test/step{number % 2}",
                raw=predicted + 0.1,
                predicted_dsc=predicted,
                lower=predicted - 0.1 if bounds else math.nan,
                upper=predicted + 0.1 if bounds else math.nan,
                dsc=dsc,
                slice_scores=(predicted,),
                slice_dsc=(dsc,),
            )
        )
    return tuple(found)


def rival(error: float) -> tuple[ScoredMask, ...]:
    first, *others = masks(error=error)
    nothing = dict.fromkeys(("raw", "predicted_dsc", "lower", "upper"), math.nan)
    return tuple(replace(m, slice_scores=(), slice_dsc=()) for m in (replace(first, **nothing), *others))


TESTED = (
    sentinel_report.Tested(
        group="seen", architecture="unet", scored={"sentinel": masks(), "entropy": rival(0.3)}
    ),
    sentinel_report.Tested(
        group="unseen",
        architecture="segresnet",
        scored={"sentinel": masks(error=0.15), "entropy": rival(0.4)},
    ),
)


@pytest.fixture
def config(tmp_path: Path) -> SentinelTrainingConfig:
    path = tmp_path / "tiny.yaml"
    path.write_text("{data: {root: scans}, segmenter: {channels: [4, 8], patch: [8, 8, 8]}, bad_below: 0.5}")
    return load_sentinel_training(path, [f"root={tmp_path}", "licence=CC0"])


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Mapping[str, float], str]]:
    """What would be logged: metrics and note."""
    calls: list[tuple[Mapping[str, float], str]] = []

    def log(
        config: SentinelTrainingConfig, about: Mapping[str, str], metrics: Mapping[str, float], note: str
    ) -> bool:
        calls.append((metrics, note))
        return True

    monkeypatch.setattr(sentinel_report, "log_sentinel", log)
    return calls


@pytest.fixture
def folder(config: SentinelTrainingConfig, logged: list[object]) -> Path:
    sentinel = Sentinel(config=SentinelConfig(), structures=NAMES, embeddings=embed_names(NAMES))
    write_report(config, ABOUT, sentinel, TESTED)
    return config.folder


class TestReport:
    def test_a_row_for_each_group_estimator_and_structure(self, folder: Path) -> None:
        table = pd.read_csv(folder / "evaluation.csv").set_index(["group", "estimator", "structure"])
        assert len(table) == 2 * 2 * 3
        assert table.loc[("seen", "sentinel", "all"), "mae"] == pytest.approx(0.05)
        assert table.loc[("unseen", "sentinel", "spleen"), "mae"] == pytest.approx(0.15)
        assert table.loc[("seen", "sentinel", "all"), "coverage"] == 1.0
        assert table.loc[("unseen", "sentinel", "all"), "coverage"] == 0.0
        assert table.loc[("seen", "entropy", "liver"), "without_value"] == 1
        assert table.loc[("seen", "sentinel", "liver"), "bad"] == 5, "below 0.5, as configured"
        assert table["auc"].isna().loc[("seen", "sentinel", "spleen")]
        assert table.loc[("seen", "sentinel", "all"), "slices"] == 24

    def test_a_row_for_each_mask_with_every_estimators_value(self, folder: Path) -> None:
        table = pd.read_csv(folder / "masks.csv")
        assert table["architecture"].value_counts().to_dict() == {"unet": 24, "segresnet": 24}
        second = table[(table["group"] == "unseen") & (table["case_id"] == "case_00")].iloc[1]
        assert (second["structure"], second["source"], second["dsc"]) == ("spleen", "test/step1", 0.755)
        assert (second["predicted_dsc"], second["lower"]) == pytest.approx((0.905, 0.805))
        assert (second["sentinel_raw"], second["entropy_raw"]) == pytest.approx((1.005, 1.255))
        assert table["entropy_raw"].isna().sum() == 2

    def test_the_summary_and_its_table_for_a_terminal(self, folder: Path) -> None:
        summary = json.loads((folder / "summary.json").read_text())
        assert summary.items() >= ABOUT.items()
        rows = [(row["masks by"], row["estimator"], row["structure"]) for row in summary["headline"]]
        assert rows == [
            (architecture, estimator, "all")
            for architecture in ("unet", "segresnet")
            for estimator in ("sentinel", "entropy")
        ]
        shown = io.StringIO()
        Console(file=shown, width=80, color_system=None).print(headline_table(folder))
        (line,) = [
            line for line in shown.getvalue().splitlines() if "segresnet" in line and "sentinel" in line
        ]
        assert "0.150" in line
        assert "…" not in shown.getvalue(), "it fits a terminal of 80 columns"

    def test_what_is_not_defined_is_a_dash_in_a_terminal(
        self, config: SentinelTrainingConfig, logged: list[object]
    ) -> None:
        sentinel = Sentinel(config=SentinelConfig(), structures=NAMES, embeddings=embed_names(NAMES))
        unbounded = sentinel_report.Tested(
            group="seen", architecture="unet", scored={"sentinel": masks(bounds=False)}
        )
        write_report(config, ABOUT, sentinel, [unbounded])
        shown = io.StringIO()
        Console(file=shown, width=120, color_system=None).print(headline_table(config.folder))
        (line,) = [line for line in shown.getvalue().splitlines() if "unet" in line]
        assert " - " in line
        assert "nan" not in line
        assert {path.name for path in (config.folder / "figures").iterdir()} == {"scatter_seen.png"}

    def test_the_card_names_both_architectures(self, folder: Path) -> None:
        text = (folder / "model_card.md").read_text()
        assert "Masks by unet, the segmenter whose masks it learned from" in text
        assert "Masks by segresnet, a segmenter that it never saw" in text
        assert "below DSC 0.5." in text
        assert "| licence of the data | CC0 |" in text

    def test_metrics_are_logged_once_with_the_card(
        self, folder: Path, logged: list[tuple[Mapping[str, float], str]]
    ) -> None:
        ((metrics, note),) = logged
        assert note == (folder / "model_card.md").read_text()
        assert metrics["unseen/sentinel/all/mae"] == pytest.approx(0.15)
        assert metrics["seen/entropy/liver/without_value"] == 1.0
        assert all(math.isfinite(value) for value in metrics.values())

    def test_figures_of_each_group(self, folder: Path) -> None:
        found = {path.name for path in (folder / "figures").iterdir()}
        assert found == {
            f"{kind}_{group}.png" for kind in ("scatter", "coverage") for group in ("seen", "unseen")
        }


def pixels(path: Path, colour: str) -> int:
    """How many pixels of a PNG have a colour."""
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255.0
    return int((np.abs(images.imread(path)[..., :3] - wanted).max(axis=2) < 0.05).sum())


class TestFigures:
    def test_a_panel_for_each_structure(self, tmp_path: Path) -> None:
        livers = [mask for mask in masks() if mask.structure == "liver"]
        score_scatter(tmp_path / "two.png", masks(), "Tiny")
        score_scatter(tmp_path / "one.png", livers, "Tiny")
        two, one = (images.imread(tmp_path / name).shape for name in ("two.png", "one.png"))
        assert two[1] > 1.5 * one[1]
        assert two[0] == one[0]

    def test_more_than_a_row_of_panels(self, tmp_path: Path) -> None:
        many = [replace(mask, structure=f"s{number % 5}") for number, mask in enumerate(masks())]
        score_scatter(tmp_path / "many.png", many, "Tiny")
        shape = images.imread(tmp_path / "many.png").shape
        assert shape[0] > 0.45 * shape[1]

    def test_masks_without_a_predicted_dsc_are_left_out(self, tmp_path: Path) -> None:
        missing = [replace(mask, predicted_dsc=math.nan, structure="stomach") for mask in masks()]
        score_scatter(tmp_path / "with.png", [*masks(), *missing], "Tiny")
        score_scatter(tmp_path / "without.png", masks(), "Tiny")
        assert (tmp_path / "with.png").read_bytes() == (tmp_path / "without.png").read_bytes()
        score_scatter(tmp_path / "none.png", missing, "Tiny")
        assert not (tmp_path / "none.png").exists()

    def test_coverage_has_a_line_for_each_structure_with_bounds(self, tmp_path: Path) -> None:
        mixed = [
            replace(mask, lower=math.nan, upper=math.nan) if mask.structure == "spleen" else mask
            for mask in masks()
        ]
        coverage_figure(tmp_path / "both.png", masks(), "Tiny", level=0.9)
        coverage_figure(tmp_path / "liver.png", mixed, "Tiny", level=0.9)
        both, liver = (pixels(tmp_path / name, report.REFERENCE) for name in ("both.png", "liver.png"))
        assert both > 1.5 * liver > 0
        assert pixels(tmp_path / "both.png", report.PREDICTED) > 0

    def test_no_bounds_are_no_figure(self, tmp_path: Path) -> None:
        coverage_figure(tmp_path / "none.png", masks(bounds=False), "Tiny", level=0.9)
        assert not (tmp_path / "none.png").exists()

    def test_a_share_of_none_is_within_the_picture(self, tmp_path: Path) -> None:
        uncovered = masks(error=0.15)
        assert evaluate_scores(uncovered, resamples=2).per_mask["all"].coverage == 0.0
        coverage_figure(tmp_path / "zero.png", uncovered, "Tiny", level=0.9)
        assert pixels(tmp_path / "zero.png", report.PREDICTED) > 10
