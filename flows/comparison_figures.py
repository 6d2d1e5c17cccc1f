"""Figures of a comparison: learning curves, differences to the control, structures, estimators on trial."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cohort.comparison.contrasts import Contrast
from cohort.comparison.runs import ArmRuns
from cohort.comparison.summaries import Band, band, difference_band

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#8C6D31")
"""Of the arms but the control: Okabe and Ito's, which colour-blind people can tell apart, and two more."""

CONTROL_COLOUR = "#444444"
_MARKERS = "osD^vPX*"
_TRIALS = {
    "spearman": "Spearman (1 is best)",
    "pearson": "Pearson (1 is best)",
    "mae": "mean absolute error (0 is best)",
}
_UNITS = {
    "minutes": "annotation minutes",
    "slices": "annotated slices",
    "structures": "annotated structures",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How an arm is drawn: colour, marker and line tell it apart, each alone.

    Args:
        colour: of line and marker.
        marker: of the rounds.
        line: dashed for the control, dotted for an arm that reads references.
        label: in legends.
    """

    colour: str
    marker: str
    line: str
    label: str

    @property
    def style(self) -> dict[str, Any]:
        """Keywords of matplotlib."""
        return {
            "color": self.colour,
            "marker": self.marker,
            "linestyle": self.line,
            "label": self.label,
            "markersize": 4.5,
            "linewidth": 1.7,
        }


def looks(arms: Sequence[str], control: str, reading: Sequence[str]) -> dict[str, Look]:
    """The look of every arm, the same in all figures.

    Args:
        arms: names in order.
        control: which of them it is.
        reading: arms that read references.
    """
    others = [arm for arm in arms if arm != control]
    found = {
        arm: Look(
            colour=COLOURS[place % len(COLOURS)],
            marker=_MARKERS[place % len(_MARKERS)],
            line=":" if arm in reading else "-",
            label=f"{arm} (reads references)" if arm in reading else arm,
        )
        for place, arm in enumerate(others)
    }
    found[control] = Look(colour=CONTROL_COLOUR, marker="s", line="--", label=f"{control} (control)")
    return {arm: found[arm] for arm in arms}


def learning_curves(
    runs: Mapping[str, ArmRuns], look: Mapping[str, Look], currencies: Sequence[str], banded: Sequence[str]
) -> bytes:
    """DSC over what was spent, a panel a currency; the arms that are named get their interval."""
    columns = min(2, len(currencies))
    rows = -(-len(currencies) // columns)
    figure = Figure(figsize=(5.4 * columns, 3.4 * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes in grid.flat[len(currencies) :]:
        axes.set_visible(False)
    for axes, currency in zip(grid.flat, currencies, strict=False):
        for arm, each in runs.items():
            found = band(each, currency)
            axes.plot(found.spent, found.dsc, **look[arm].style)
            if arm in banded:
                axes.fill_between(
                    found.spent, found.lower, found.upper, color=look[arm].colour, alpha=0.14, lw=0
                )
        _label_cost(axes, currency, 10)
        axes.grid(alpha=0.25)
    for row in grid:
        row[0].set_ylabel("DSC, held-out cases")
    _legend(figure, grid[0, 0])
    return _png(figure)


def differences(
    runs: Mapping[str, ArmRuns], control: str, axis: Callable[[str, str], str], look: Mapping[str, Look]
) -> bytes:
    """Paired difference to the control round by round, a panel an arm, with its interval.

    Args:
        runs: arm -> its runs.
        control: name of the arm that is taken off.
        axis: of two arms -> currency of their panel.
        look: of each arm.
    """
    bands = {
        arm: found
        for arm, each in runs.items()
        if arm != control and (found := difference_band(each, runs[control], axis(arm, control))) is not None
    }

    def draw(axes: Any, arm: str) -> None:
        _draw_difference(axes, bands[arm], look[arm])
        _label_cost(axes, axis(arm, control), 9)

    return _panels(list(bands), draw, f"DSC minus {control}")


def structure_curves(
    runs: Mapping[str, ArmRuns], currency: str, look: Mapping[str, Look], structures: Sequence[str]
) -> bytes:
    """DSC of each structure over what was spent, a panel a structure, means over seeds."""

    def draw(axes: Any, structure: str) -> None:
        for arm, each in runs.items():
            dsc = each.per_structure()[:, :, each.structures.index(structure)].mean(axis=0)
            axes.plot(each.spent[currency].mean(axis=0), dsc, **{**look[arm].style, "markersize": 3.5})
        axes.set_title(structure, fontsize=9)
        _label_cost(axes, currency, 9)

    return _panels(list(structures), draw, "DSC, held-out cases", shared=False, legend=True)


def trial_curves(trials: pd.DataFrame, look: Mapping[str, Look]) -> bytes:
    """How predicted and revealed DSC agreed, round by round, means over seeds with every seed as a dot."""
    shown = [
        name for name in _TRIALS if name in trials.columns and bool(trials[name].notna().to_numpy().any())
    ]

    def draw(axes: Any, name: str) -> None:
        present = [arm for arm in look if arm in set(trials["arm"])]
        for place, arm in enumerate(present):
            found = trials.loc[trials["arm"] == arm, ["round", name]].astype(float).dropna()
            if found.empty:
                continue
            shift = 0.09 * (place - (len(present) - 1) / 2.0)
            axes.plot(found["round"] + shift, found[name], ".", color=look[arm].colour, alpha=0.35)
            mean = found.groupby("round")[name].mean()
            axes.plot(mean.index.to_numpy() + shift, mean.to_numpy(), **look[arm].style)
        axes.set_title(_TRIALS[name], fontsize=9)
        axes.set_xlabel("round", fontsize=9)
        axes.xaxis.get_major_locator().set_params(integer=True)

    return _panels(shown, draw, "", shared=False, legend=True)


def paired_dots(contrasts: Sequence[Contrast], look: Mapping[str, Look], label: str) -> bytes:
    """A row an arm: its paired differences as dots, their mean, and the 95 % bootstrap interval."""
    figure = Figure(figsize=(7.2, 0.42 * len(contrasts) + 1.1), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0.0, color=CONTROL_COLOUR, linewidth=1, linestyle="--")
    for place, each in enumerate(contrasts):
        own = look[each.arm]
        axes.plot(each.differences, [place] * each.n, "o", color=own.colour, alpha=0.35, markersize=4)
        axes.plot([each.lower, each.upper], [place, place], color=own.colour, linewidth=2.2)
        axes.plot(each.difference, place, own.marker, color=own.colour, markersize=8)
    axes.set_yticks(range(len(contrasts)), [f"{look[each.arm].label} (n {each.n})" for each in contrasts])
    axes.set_ylim(len(contrasts) - 0.4, -0.6)
    axes.set_xlabel(label)
    axes.grid(axis="x", alpha=0.25)
    return _png(figure)


def _draw_difference(axes: Any, found: Band, look: Look) -> None:
    axes.axhline(0.0, color=CONTROL_COLOUR, linewidth=1, linestyle="--")
    axes.fill_between(found.spent, found.lower, found.upper, color=look.colour, alpha=0.18, lw=0)
    axes.plot(found.spent, found.dsc, **look.style)
    axes.set_title(look.label, fontsize=9)


def _label_cost(axes: Any, currency: str, fontsize: int) -> None:
    axes.set_xlabel(_UNITS.get(currency, f"labelled {currency}"), fontsize=fontsize)
    axes.xaxis.get_major_locator().set_params(integer=True)


def _panels(
    names: Sequence[str],
    draw: Callable[[Any, str], None],
    ylabel: str,
    *,
    shared: bool = True,
    legend: bool = False,
) -> bytes:
    columns = min(3, max(len(names), 1))
    rows = -(-max(len(names), 1) // columns)
    size = (max(3.6 * columns, 5.4), 2.7 * rows + (0.5 if legend else 0.1))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=shared)
    for axes in grid.flat[len(names) :]:
        axes.set_visible(False)
    for axes, name in zip(grid.flat, names, strict=False):
        draw(axes, name)
        axes.grid(alpha=0.25)
        axes.tick_params(labelsize=8)
    for row in grid:
        row[0].set_ylabel(ylabel, fontsize=9)
    if legend and names:
        _legend(figure, grid[0, 0])
    return _png(figure)


def _legend(figure: Figure, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=min(4, max(len(labels), 1)),
        fontsize=9,
        frameon=False,
    )


def _png(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    return buffer.getvalue()
