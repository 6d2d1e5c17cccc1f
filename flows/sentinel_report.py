"""What a sentinel's training leaves for people: tables, figures, a model card, and a run in MLflow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich import box
from rich.table import Table

from cohort.volume import write_bytes
from flows.sentinel_config import SentinelTrainingConfig
from flows.sentinel_figures import coverage_figure, score_scatter
from flows.sentinel_stage import SENTINEL_FILE
from flows.stages import read_json, write_json
from flows.tracking import log_sentinel
from sentinel.evaluation import Evaluation, ScoredMask, as_rows, evaluate_scores, flat_metrics
from sentinel.model_card import CardTest, model_card
from sentinel.scoring import Sentinel

CARD, EVALUATION, MASKS, SUMMARY = "model_card.md", "evaluation.csv", "masks.csv", "summary.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """Masks of test patients by one architecture, as the sentinel and its rivals score them.

    Args:
        group: "seen" for the architecture that the sentinel learned from, "unseen" for another.
        architecture: name of the network that made the masks.
        scored: estimator -> the same masks with its scores.
    """

    group: str
    architecture: str
    scored: Mapping[str, tuple[ScoredMask, ...]]


def write_report(
    config: SentinelTrainingConfig, about: Mapping[str, str], sentinel: Sentinel, tested: Sequence[Tested]
) -> None:
    """Write everything beside the sentinel's file, and log it."""
    folder = config.folder
    evaluations = {
        (found.group, name): evaluate_scores(masks, bad_below=config.bad_below, seed=config.seed)
        for found in tested
        for name, masks in found.scored.items()
    }
    rows = [
        {"group": group, "estimator": name, **row}
        for (group, name), evaluation in evaluations.items()
        for row in as_rows(evaluation)
    ]
    write_bytes(folder / EVALUATION, pd.DataFrame(rows).to_csv(index=False).encode())
    write_bytes(folder / MASKS, _mask_table(tested).to_csv(index=False).encode())
    write_json(folder / SUMMARY, {**about, "headline": headline_rows(tested, evaluations)})
    card = _card(config, about, sentinel, tested, evaluations)
    write_bytes(folder / CARD, card.encode())
    figures = folder / "figures"
    for found in tested:
        masks = found.scored["sentinel"]
        heading = f"{about['data set']}: masks by {found.architecture} ({found.group}), test patients"
        score_scatter(figures / f"scatter_{found.group}.png", masks, heading)
        coverage_figure(figures / f"coverage_{found.group}.png", masks, heading, level=config.level)
    metrics = {
        name: value
        for (group, estimator), evaluation in evaluations.items()
        for name, value in flat_metrics(evaluation, f"{group}/{estimator}").items()
    }
    log_sentinel(config, about, metrics, card)


def headline_rows(
    tested: Sequence[Tested], evaluations: Mapping[tuple[str, str], Evaluation]
) -> list[dict[str, object]]:
    """One row per architecture and estimator: the overall figures."""
    rows = []
    for found in tested:
        for name in found.scored:
            overall = next(
                row for row in as_rows(evaluations[found.group, name]) if row["structure"] == "all"
            )
            rows.append({"masks by": found.architecture, "group": found.group, "estimator": name, **overall})
    return rows


def headline_table(folder: Path) -> Table:
    """The overall figures of a finished training, for a terminal."""
    table = Table(title="Test patients", title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    rows: Sequence[Mapping[str, object]] = read_json(folder / SUMMARY)["headline"]
    shown = ("masks by", "estimator", "pearson", "spearman", "spearman_within", "mae", "coverage", "auc")
    for name in shown:
        left = name in shown[:2]
        table.add_column(
            name.replace("_", " "), justify="left" if left else "right", no_wrap=name == "estimator"
        )
    for row in rows:
        table.add_row(*(_shown(row.get(name)) for name in shown))
    return table


def _shown(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _mask_table(tested: Sequence[Tested]) -> pd.DataFrame:
    """One row per mask, with every estimator's values."""
    parts = []
    for found in tested:
        own = found.scored["sentinel"]
        table = pd.DataFrame(
            {
                "architecture": found.architecture,
                "group": found.group,
                "case_id": [mask.case_id for mask in own],
                "patient_id": [mask.patient_id for mask in own],
                "structure": [mask.structure for mask in own],
                "source": [mask.source for mask in own],
                "dsc": [mask.dsc for mask in own],
                "predicted_dsc": [mask.predicted_dsc for mask in own],
                "lower": [mask.lower for mask in own],
                "upper": [mask.upper for mask in own],
            }
        )
        for name, masks in found.scored.items():
            table[f"{name}_raw"] = [mask.raw for mask in masks]
        parts.append(table)
    return pd.concat(parts, ignore_index=True)


def _card(
    config: SentinelTrainingConfig,
    about: Mapping[str, str],
    sentinel: Sentinel,
    tested: Sequence[Tested],
    evaluations: Mapping[tuple[str, str], Evaluation],
) -> str:
    headings = {
        "seen": "Masks by {}, the segmenter whose masks it learned from",
        "unseen": "Masks by {}, a segmenter that it never saw",
    }
    tests = [
        CardTest(
            heading=headings[found.group].format(found.architecture),
            evaluations={name: evaluations[found.group, name] for name in found.scored},
        )
        for found in tested
    ]
    return model_card(
        sentinel,
        name=f"Sentinel {config.name}",
        file=SENTINEL_FILE,
        about=about,
        tests=tests,
        licence=config.licence,
        bad_below=config.bad_below,
    )
