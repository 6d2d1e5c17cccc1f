"""Figures of a sentinel's test: predicted against true DSC, and coverage of the bounds by structure."""

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cohort.volume import write_bytes
from flows.report import PREDICTED, REFERENCE
from sentinel.evaluation import ALL, ScoredMask, evaluate_scores

_COLUMNS = 4


def score_scatter(path: Path, masks: Sequence[ScoredMask], heading: str) -> None:
    """Draw predicted against true DSC, a panel per structure, with bounds where there are some.

    Args:
        path: of the PNG.
        masks: with their true DSC; those without a predicted DSC are left out.
        heading: above the figure.
    """
    known = [mask for mask in masks if not math.isnan(mask.predicted_dsc)]
    if not known:
        return
    names = sorted({mask.structure for mask in known})
    columns = min(_COLUMNS, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(3.1 * columns + 0.4, 3.1 * rows + 0.7), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    figures = evaluate_scores(known, resamples=1).per_mask
    for axes, name in zip(grid, names, strict=False):
        found = figures[name]
        _scatter(axes, [mask for mask in known if mask.structure == name])
        pearson = "-" if math.isnan(found.pearson) else f"{found.pearson:.2f}"
        axes.set_title(f"{name}\nPearson {pearson}, MAE {found.mae:.3f}, n {found.masks}", fontsize=8)
    for axes in grid[len(names) :]:
        axes.set_axis_off()
    for axes in grid[(rows - 1) * columns :]:
        axes.set_xlabel("predicted DSC")
    for axes in grid[::columns]:
        axes.set_ylabel("true DSC")
    figure.suptitle(heading, fontsize=10)
    _write(path, figure)


def coverage_figure(path: Path, masks: Sequence[ScoredMask], heading: str, *, level: float) -> None:
    """Draw which share of masks the bounds hold, with 95 % intervals over patients; nothing without bounds.

    Args:
        path: of the PNG.
        masks: with their true DSC.
        heading: above the figure.
        level: that the bounds were made for.
    """
    figures = {
        name: found
        for name, found in evaluate_scores(masks).per_mask.items()
        if not math.isnan(found.coverage)
    }
    if not figures:
        return
    figure = Figure(figsize=(6.6, 1.3 + 0.34 * len(figures)), layout="constrained")
    axes = figure.subplots()
    for place, (name, found) in enumerate(figures.items()):
        colour = PREDICTED if name == ALL else REFERENCE
        axes.plot([found.coverage_low, found.coverage_high], [place, place], color=colour, linewidth=2)
        axes.plot(found.coverage, place, "o", color=colour)
    axes.axvline(level, color="#5c6670", linewidth=1, linestyle="--")
    axes.set_yticks(
        range(len(figures)),
        [f"{'all structures' if n == ALL else n} ({f.masks})" for n, f in figures.items()],
        fontsize=8,
    )
    axes.invert_yaxis()
    axes.set_xlim(min(0.5, *(f.coverage_low for f in figures.values())) - 0.02, 1.01)
    axes.set_xlabel(f"share of masks within their bounds (dashed: {level:.0%}, their aim)")
    axes.grid(alpha=0.25, axis="x")
    axes.set_title(heading, fontsize=9)
    _write(path, figure)


def _scatter(axes: Axes, masks: Sequence[ScoredMask]) -> None:
    predicted = np.array([mask.predicted_dsc for mask in masks])
    dsc = np.array([mask.dsc for mask in masks])
    lower, upper = np.array([mask.lower for mask in masks]), np.array([mask.upper for mask in masks])
    bounded = ~np.isnan(lower)
    if bounded.any():
        order = np.argsort(predicted[bounded])
        axes.fill_between(
            predicted[bounded][order],
            lower[bounded][order],
            upper[bounded][order],
            color=REFERENCE,
            alpha=0.18,
            linewidth=0,
        )
    axes.plot([0, 1], [0, 1], color="#5c6670", linewidth=0.8, linestyle="--")
    axes.plot(predicted, dsc, ".", color=PREDICTED, alpha=0.6, markersize=4)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_aspect("equal")
    axes.grid(alpha=0.25)


def _write(path: Path, figure: Figure) -> None:
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    write_bytes(path, buffer.getvalue())
