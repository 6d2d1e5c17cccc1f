"""Figures of a semi-supervised training: generations, and what a filter keeps."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cohort.case import Case, Structure
from cohort.filtering import Verdict
from cohort.filtering.outcome import is_empty
from cohort.records import Prediction, QualityScore
from flows import filter_trial
from flows.report import COLUMNS, Panel, overlays, save_figure

KEEPS = tuple(round(0.1 * step, 1) for step in range(1, 11))
KEPT, REJECTED = "#1b7837", "#b35806"
_BOUNDS = {filter_trial.ORACLE: "0.55", filter_trial.RANDOM: "0.75"}
_COLOURS = ("#1d4e89", "#c1666b", "#2ec4b6", "#7b3294", "#e6a100", "#5e3c99", "#008837")


def generations(path: Path, results: Sequence[Mapping[str, Any]], heading: str) -> None:
    """Draw DSC and NSD on the held-out cases over generations."""
    figure = Figure(figsize=(6.0, 3.8), layout="constrained")
    axes = figure.subplots()
    numbers = [result["round"] for result in results]
    ends: dict[str, float] = {}
    for name in sorted({name for result in results for name in result["dsc_per_structure"]}):
        values = [result["dsc_per_structure"].get(name) for result in results]
        shown = [math.nan if value is None else value for value in values]
        axes.plot(numbers, shown, color="0.8", linewidth=1, marker=".")
        ends[name] = shown[-1]
    for key, colour in (("dsc", "#1d4e89"), ("nsd", "#c1666b")):
        values = [result[key] for result in results]
        axes.plot(numbers, values, "o-", color=colour, label=key.upper(), linewidth=2)
    for name, height in _apart(ends, 0.03 * float(np.diff(axes.get_ylim())[0])).items():
        axes.annotate(
            name, (numbers[-1], height), fontsize=7, color="0.45", xytext=(6, -2), textcoords="offset points"
        )
    masks = [result.get("pseudo_labels", {}).get("masks", 0) for result in results]
    names = [
        "teacher" if number == 0 else f"student {number}\n{count} pseudo-labels"
        for number, count in zip(numbers, masks, strict=True)
    ]
    axes.set_xticks(numbers, names, fontsize=8)
    axes.set_ylabel("mean over structures, held-out cases")
    axes.set_title(heading, fontsize=10)
    axes.legend(loc="best", fontsize=8)
    axes.grid(alpha=0.25)
    axes.margins(x=0.25)
    save_figure(figure, path)


def _apart(heights: Mapping[str, float], least: float) -> dict[str, float]:
    """Heights of labels, those that are too close moved up; names without a height are left out."""
    found: dict[str, float] = {}
    before = -math.inf
    for name, height in sorted(heights.items(), key=lambda item: item[1]):
        if not math.isnan(height):
            before = found[name] = max(height, before + least)
    return found


def filtered(
    path: Path,
    verdicts: Sequence[Verdict],
    scores: Mapping[str, Sequence[QualityScore]],
    dscs: filter_trial.Dscs,
    heading: str,
) -> None:
    """Draw what the filter read against the true DSC, and how good any part that is kept would be.

    Nothing is drawn where no true DSC is known, and only the latter where the filter reads nothing.
    """
    if not dscs:
        return
    read = any(not math.isnan(verdict.score) for verdict in verdicts)
    figure = Figure(figsize=(10.0 if read else 5.5, 4.0), layout="constrained")
    panels = figure.subplots(1, 2 if read else 1, squeeze=False)[0]
    if read:
        _judged(panels[0], verdicts, dscs)
    _retention(panels[-1], scores, dscs)
    figure.suptitle(heading, fontsize=10)
    save_figure(figure, path)


def examples(
    path: Path,
    verdicts: Sequence[Verdict],
    cases: Mapping[str, Case],
    predictions: Sequence[Prediction],
    structures: Sequence[Structure],
    dscs: filter_trial.Dscs,
    heading: str,
) -> None:
    """Draw the best and the worst masks that are kept, and the worst that are not, beside their references.

    By what the filter read, or by the true DSC where it reads nothing.
    """
    masks = {prediction.case_id: prediction.mask for prediction in predictions}
    labels = {structure.name: structure.label for structure in structures}

    def panel(verdict: Verdict) -> Panel:
        case, true = cases[verdict.case_id], dscs.get((verdict.case_id, verdict.structure))
        score = "" if math.isnan(verdict.score) else f"score {verdict.score:.2f}"
        shown = score if true is None else f"{score}, true DSC {true:.2f}".removeprefix(", ")
        return Panel(
            case=case,
            mask=masks[verdict.case_id],
            label=labels[verdict.structure],
            title=f"{verdict.case_id} · {verdict.structure}\n{shown}",
            reference=case.reference if true is not None else None,
        )

    read = any(not math.isnan(verdict.score) for verdict in verdicts)
    values = {(v.case_id, v.structure): v.score for v in verdicts} if read else dscs

    def value(verdict: Verdict) -> float:
        return values.get((verdict.case_id, verdict.structure), math.nan)

    filled = [v for v in verdicts if not is_empty(v) and not math.isnan(value(v))]
    ordered = sorted(filled, key=lambda v: (value(v), v.case_id, v.structure))
    best = [v for v in reversed(ordered) if v.kept]
    worst = [v for v in ordered if not v.kept]
    rows = {
        "kept, best": [panel(v) for v in best[:COLUMNS]],
        "kept, worst": [panel(v) for v in best[COLUMNS:][-COLUMNS:]],
        "not kept, worst": [panel(v) for v in worst[:COLUMNS]],
    }
    overlays(path, rows, heading)


def _judged(axes: Axes, verdicts: Sequence[Verdict], dscs: filter_trial.Dscs) -> None:
    for kept, colour, name in ((True, KEPT, "kept"), (False, REJECTED, "not kept")):
        points = np.array(
            [
                (v.score, dscs[v.case_id, v.structure])
                for v in verdicts
                if v.kept is kept and not math.isnan(v.score) and (v.case_id, v.structure) in dscs
            ]
        ).reshape(-1, 2)
        marker = "o" if kept else "x"
        axes.scatter(points[:, 0], points[:, 1], s=16, color=colour, marker=marker, alpha=0.7, label=name)
    axes.set_xlabel("what the filter read (higher: better mask)")
    axes.set_ylabel("true DSC")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.25)


def _retention(axes: Axes, scores: Mapping[str, Sequence[QualityScore]], dscs: filter_trial.Dscs) -> None:
    colours = iter(_COLOURS * (1 + len(scores) // len(_COLOURS)))
    for name, values in filter_trial.retention(scores, dscs, KEEPS).items():
        bound = name in _BOUNDS
        axes.plot(
            KEEPS,
            values,
            color=_BOUNDS[name] if bound else next(colours),
            linestyle="--" if bound else "-",
            marker=None if bound else ".",
            label="oracle (reads references)" if name == filter_trial.ORACLE else name,
        )
    axes.set_xlabel("fraction of each structure's masks that is kept")
    axes.set_ylabel("mean true DSC of kept masks")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.25)
