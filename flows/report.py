"""Figures of a round: overlays of masks, the estimator's trial, and the curve of DSC over labelled cases."""

import io
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from cohort.annotation import Annotation
from cohort.case import Case, Structure
from cohort.records import QualityScore
from cohort.slabs import Slab, within
from cohort.volume import Array, Volume, read_image, read_label_map, to_canonical, write_bytes

PREDICTED, REFERENCE = "#ff9f1c", "#2ec4b6"
COLUMNS = 4
FIGURES = "figures"
"""Folder of the figures of a campaign, and of a round."""
CT_WINDOW_HU = (-160.0, 240.0)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One overlay: a mask on its image.

    Args:
        case: of the image.
        mask: path of the predicted label map.
        label: of the structure.
        title: above the picture.
        reference: path of the annotation, where it is back.
        slabs: to look at; none: the whole case.
    """

    case: Case
    mask: Path
    label: int
    title: str
    reference: Path | None = None
    slabs: tuple[Slab, ...] = ()


@contextmanager
def drawing(what: str) -> Iterator[None]:
    """A picture that cannot be drawn is a warning: it must not end a campaign."""
    try:
        yield
    except (ValueError, TypeError, IndexError, KeyError, RuntimeError) as error:
        _log.warning("The %s cannot be drawn: %s", what, error)


def score_panels(
    scores: Sequence[QualityScore],
    cases: Mapping[str, Case],
    masks: Mapping[str, Path],
    structures: Sequence[Structure],
    returned: Sequence[Annotation],
    revealed: Mapping[tuple[str, str], float],
) -> tuple[list[Panel], list[Panel]]:
    """The worst and the best scored masks of the pool."""
    labels = {structure.name: structure.label for structure in structures}
    references = {annotation.case_id: annotation for annotation in returned}
    ordered = sorted((s for s in scores if not s.missing), key=lambda s: (s.raw, s.case_id, s.structure))

    def panel(score: QualityScore) -> Panel:
        annotation = references.get(score.case_id)
        known = annotation is not None and score.structure in annotation.structures
        return Panel(
            case=cases[score.case_id],
            mask=masks[score.case_id],
            label=labels[score.structure],
            title=_score_title(score, revealed.get((score.case_id, score.structure))),
            reference=annotation.path if annotation is not None and known else None,
            slabs=annotation.slabs if annotation is not None and known else (),
        )

    number = min(COLUMNS, len(ordered) // 2)
    return [panel(s) for s in ordered[:number]], [
        panel(s) for s in reversed(ordered[-number:] if number else [])
    ]


def selected_panels(
    returned: Sequence[Annotation],
    cases: Mapping[str, Case],
    masks: Mapping[str, Path],
    structures: Sequence[Structure],
    revealed: Mapping[tuple[str, str], float],
) -> list[Panel]:
    """Of each selected case, the structure in which the model was most wrong."""
    labels = {structure.name: structure.label for structure in structures}
    panels = []
    for annotation in returned[: 2 * COLUMNS]:
        found = {name: v for (case_id, name), v in revealed.items() if case_id == annotation.case_id}
        if not found:
            continue
        worst = min(sorted(found), key=lambda name: found[name])
        panels.append(
            Panel(
                case=cases[annotation.case_id],
                mask=masks[annotation.case_id],
                label=labels[worst],
                title=f"{annotation.case_id}\n{worst}: DSC {found[worst]:.2f}",
                reference=annotation.path,
                slabs=annotation.slabs,
            )
        )
    return panels


def overlays(path: Path, rows: Mapping[str, Sequence[Panel]], heading: str) -> None:
    """Draw rows of overlays into a PNG; nothing where there is no panel."""
    filled = {name: panels for name, panels in rows.items() if panels}
    if not filled:
        return
    columns = max(len(panels) for panels in filled.values())
    row_height = 2.5 * max(_height_to_width(panel.case) for panels in filled.values() for panel in panels)
    size = (2.7 * columns + 0.6, (row_height + 0.45) * len(filled) + 0.7)
    figure = Figure(
        figsize=size, layout=ConstrainedLayoutEngine(rect=(0.0, 0.3 / size[1], 1.0, 1.0 - 0.35 / size[1]))
    )
    grid = figure.subplots(len(filled), columns, squeeze=False)
    for axes_row, (name, panels) in zip(grid, filled.items(), strict=True):
        for axes in axes_row:
            axes.set_axis_off()
        for axes, panel in zip(axes_row, panels, strict=False):
            _draw(axes, panel)
        axes_row[0].text(
            -0.06,
            0.5,
            name,
            rotation=90,
            va="center",
            ha="right",
            transform=axes_row[0].transAxes,
            fontsize=10,
        )
    figure.suptitle(heading, fontsize=11)
    keys = [
        Line2D([], [], color=PREDICTED, label="predicted"),
        Line2D([], [], color=REFERENCE, label="annotated"),
    ]
    figure.legend(handles=keys, loc="lower left", ncols=2, fontsize=9, frameon=False)
    save_figure(figure, path)


def trial_scatter(
    path: Path, scores: Sequence[QualityScore], revealed: Mapping[tuple[str, str], float], heading: str
) -> None:
    """Draw the estimator's values against the DSC that annotation revealed; nothing without pairs."""
    pairs = [
        (s.structure, s.raw, revealed[s.case_id, s.structure])
        for s in scores
        if (s.case_id, s.structure) in revealed and not s.missing
    ]
    if not pairs:
        return
    calibrated = any(not math.isnan(score.predicted_dsc) for score in scores)
    figure = Figure(figsize=(4.6, 4.2), layout="constrained")
    axes = figure.subplots()
    for name in sorted({structure for structure, _, _ in pairs}):
        points = np.array([[x, y] for structure, x, y in pairs if structure == name])
        axes.scatter(points[:, 0], points[:, 1], s=26, label=name)
    if calibrated:
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, zorder=0)
    axes.set_xlabel("predicted DSC" if calibrated else "estimator's value (higher: better mask)")
    axes.set_ylabel("DSC that annotation revealed")
    axes.set_title(heading, fontsize=10)
    axes.legend(fontsize=8)
    axes.grid(alpha=0.25)
    save_figure(figure, path)


def dsc_curve(path: Path, results: Sequence[Mapping[str, Any]], heading: str) -> None:
    """Draw DSC and NSD on the held-out cases over the number of labelled cases."""
    figure = Figure(figsize=(6.0, 3.8), layout="constrained")
    axes = figure.subplots()
    cases = [result["labelled_cases"] for result in results]
    for name in sorted({name for result in results for name in result["dsc_per_structure"]}):
        values = [result["dsc_per_structure"].get(name) for result in results]
        shown = [math.nan if value is None else value for value in values]
        axes.plot(cases, shown, color="0.75", linewidth=1)
        axes.annotate(
            name, (cases[-1], shown[-1]), fontsize=7, color="0.45", xytext=(4, -2), textcoords="offset points"
        )
    for key, colour in (("dsc", "#1d4e89"), ("nsd", "#c1666b")):
        axes.plot(
            cases, [result[key] for result in results], "o-", color=colour, label=key.upper(), linewidth=2
        )
    axes.set_xticks(cases)
    axes.set_xlabel("labelled cases")
    axes.set_ylabel("mean over structures, held-out cases")
    axes.set_title(heading, fontsize=10)
    axes.legend(loc="upper left", fontsize=8)
    axes.grid(alpha=0.25)
    axes.margins(x=0.2)
    save_figure(figure, path)


def _score_title(score: QualityScore, revealed: float | None) -> str:
    value = (
        f"predicted {score.predicted_dsc:.2f}"
        if not math.isnan(score.predicted_dsc)
        else f"value {score.raw:.3f}"
    )
    true = "" if revealed is None else f", revealed {revealed:.2f}"
    return f"{score.case_id} · {score.structure}\n{value}{true}"


def _draw(axes: Any, panel: Panel) -> None:
    image = to_canonical(read_image(panel.case.image))
    mask = _mask(panel.mask, panel)
    reference = _mask(panel.reference, panel) if panel.reference is not None else None
    position = _slice_to_show(mask, reference)
    lower, upper = window(image)
    _, height_mm, width_mm = image.spacing_mm
    axes.imshow(
        radiological(image.array[position]), cmap="gray", vmin=lower, vmax=upper, aspect=height_mm / width_mm
    )
    for found, colour in ((reference, REFERENCE), (mask, PREDICTED)):
        if found is not None and found[position].any():
            axes.contour(
                radiological(found[position]).astype(float), levels=[0.5], colors=colour, linewidths=1.3
            )
    axes.set_title(panel.title, fontsize=8)


def _mask(path: Path, panel: Panel) -> Array:
    """The structure in a label map, canonical; nothing outside of the panel's slabs."""
    stored = read_label_map(path)
    shown = Volume(array=within(stored.array, 0, panel.slabs), affine=stored.affine)
    found: Array = to_canonical(shown).array == panel.label
    return found


def _height_to_width(case: Case) -> float:
    """Of an axial slice of the scan, in millimetres."""
    (_, height, width), (_, height_mm, width_mm) = case.shape, case.spacing_mm
    return (height * height_mm) / (width * width_mm)


def _slice_to_show(mask: Array, reference: Array | None) -> int:
    """The slice with the largest disagreement, or with the most mask where nothing disagrees."""
    area = mask.sum(axis=(1, 2))
    if reference is not None:
        wrong = (mask != reference).sum(axis=(1, 2))
        area = wrong if wrong.any() else reference.sum(axis=(1, 2))
    return int(area.argmax())


def radiological(plane: Array) -> Array:
    """Patient's right on the left, anterior on top."""
    return plane[::-1, ::-1]


def window(image: Volume) -> tuple[float, float]:
    """Intensities to draw as black and as white."""
    lower, upper = np.percentile(image.array, (1, 99))
    if lower <= -500.0 and upper >= 50.0:
        return CT_WINDOW_HU
    return float(lower), float(max(upper, lower + 1e-6))


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, atomically; the same figure gives the same bytes."""
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    write_bytes(path, buffer.getvalue())
