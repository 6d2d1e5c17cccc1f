"""The page of an audit: one HTML file that opens without a server, with pictures of the worst masks."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cohort.groups import GroupComparison
from cohort.records import EMPTY_MASK
from cohort.volume import Volume, to_canonical, write_bytes
from flows import report
from sentinel.slices import Mask

ROWS = 500
"""Rows of the table on the page; the file beside it has all."""

_MARGIN_MM = 35.0
_STYLE = """
:root{--ink:#1b1f24;--soft:#5c6670;--line:#d8dde3;--page:#fff;--card:#f6f8fa;--accent:#1d4e89}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ec;--soft:#9aa4ae;--line:#333a41;--page:#14171a;
--card:#1d2226;--accent:#7fb2e6}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);max-width:1180px;
margin:2rem auto;padding:0 1.2rem}
h1{font-size:1.6rem;margin:0}h2{font-size:1.15rem;margin:2.2rem 0 .6rem}
p.lead{color:var(--soft);margin:.2rem 0 1.2rem;max-width:52rem}
.numbers{display:flex;gap:.8rem;flex-wrap:wrap}.numbers div{background:var(--card);border-radius:8px;
padding:.6rem 1rem}.numbers b{display:block;font-size:1.35rem}
.gallery{display:grid;grid-template-columns:repeat(auto-fill,minmax(205px,1fr));gap:.9rem}
figure{margin:0;background:var(--card);border-radius:8px;overflow:hidden}figure img{width:100%;display:block}
figcaption{padding:.45rem .65rem;font-size:.85rem}figcaption b{font-size:.95rem}
table{border-collapse:collapse;width:100%;font-size:.87rem}th,td{padding:.28rem .55rem;text-align:left;
border-bottom:1px solid var(--line)}th{cursor:pointer;position:sticky;top:0;background:var(--page)}
td.n{text-align:right;font-variant-numeric:tabular-nums}td.why{color:var(--soft)}
input{font:inherit;padding:.35rem .6rem;border:1px solid var(--line);border-radius:6px;width:22rem;
max-width:100%;background:var(--page);color:var(--ink);margin-bottom:.6rem}
img.chart{max-width:100%;background:#fff;border-radius:8px}
details{color:var(--soft);font-size:.87rem;margin-top:1.4rem}small{color:var(--soft)}
"""
_SCRIPT = """
const body=document.querySelector('#masks tbody');
document.querySelector('#filter').addEventListener('input',e=>{const q=e.target.value.toLowerCase();
for(const r of body.rows)r.hidden=!r.textContent.toLowerCase().includes(q)});
document.querySelectorAll('#masks th').forEach((h,i)=>h.addEventListener('click',()=>{
const up=h.dataset.up!=='1';h.dataset.up=up?'1':'0';const key=r=>{const t=r.cells[i].textContent;
const n=parseFloat(t);return isNaN(n)?t:n};
[...body.rows].sort((a,b)=>{const x=key(a),y=key(b);
if((x==='')!==(y===''))return x===''?1:-1; // without a value: last, whichever way
return (x<y?-1:x>y?1:0)*(up?1:-1)}).forEach(r=>body.appendChild(r))}));
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """A picture of one mask.

    Args:
        png: the picture.
        case_id: of the case.
        structure: name.
        predicted: DSC.
        lower: bound, NaN where not calibrated.
        upper: bound, NaN where not calibrated.
    """

    png: bytes
    case_id: str
    structure: str
    predicted: float
    lower: float
    upper: float


def draw_overlay(image: Volume, mask: Mask) -> bytes:
    """Draw a mask's outline on its largest slice, cropped around it.

    Args:
        image: of the case.
        mask: (D, H, W) on its grid, not empty.

    Returns:
        A PNG.
    """
    turned = to_canonical(image)
    voxels = to_canonical(Volume(array=mask.astype(np.uint8), affine=image.affine)).array > 0
    position = int(voxels.sum(axis=(1, 2)).argmax())
    plane, outline = turned.array[position], voxels[position]
    _, height_mm, width_mm = turned.spacing_mm
    window = _around(outline, (height_mm, width_mm))
    lower, upper = report.window(turned)
    figure = Figure(figsize=(2.4, 2.4))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    figure.patch.set_facecolor("black")
    shown = report.radiological(plane[window])
    axes.imshow(shown, cmap="gray", vmin=lower, vmax=upper, aspect=height_mm / width_mm)
    framed = np.pad(report.radiological(outline[window]).astype(float), 1)  # a mask may fill all of it
    rows, columns = (np.arange(size) - 1 for size in framed.shape)
    axes.contour(columns, rows, framed, levels=[0.5], colors=report.PREDICTED, linewidths=1.3)
    axes.set(xlim=(-0.5, shown.shape[1] - 0.5), ylim=(shown.shape[0] - 0.5, -0.5))
    return _png(figure)


def write_page(
    path: Path,
    *,
    title: str,
    about: Mapping[str, str],
    table: pd.DataFrame,
    overlays: Sequence[Overlay],
    groups: Sequence[Sequence[GroupComparison]],
    level: float,
) -> None:
    """Write the page, atomically.

    Args:
        path: of the HTML file.
        title: heading.
        about: what made it.
        table: a row per mask, worst first.
        overlays: pictures of the worst.
        groups: comparisons, one sequence per column of the metadata.
        level: share of masks whose true DSC the bounds should hold.
    """
    scored = table[table["predicted_dsc"].notna()]
    missing = table[table["predicted_dsc"].isna()]
    empty = int((missing["reason"] == EMPTY_MASK).sum())
    calibrated = int(scored["lower"].notna().sum())
    lead = (
        "Predicted DSC says how well a mask would agree with a careful annotation; the lowest are worth a "
        "look first. "
        + (
            f"Bounds, which {calibrated} of {len(scored)} masks have, should hold the true DSC of "
            f"{level:.0%} of masks like those that calibrated the sentinel."
            if calibrated
            else "The sentinel is not calibrated for these structures: values rank masks and are not bounds."
        )
    )
    numbers = {
        "masks scored": len(scored),
        "empty": empty,
        "could not be scored": len(missing) - empty,
        "below 0.7": int((scored["predicted_dsc"] < 0.7).sum()),
    }
    parts = [
        f"<h1>{escape(title)}</h1><p class=lead>{escape(lead)}</p>",
        "<div class=numbers>"
        + "".join(f"<div><b>{value}</b>{escape(name)}</div>" for name, value in numbers.items())
        + "</div>",
        _gallery(overlays),
        _charts(scored),
        *(_comparison(found) for found in groups),
        _masks(table, path.with_suffix(".csv").name),
        "<details open><summary>What made this page</summary><table>"
        + "".join(f"<tr><td>{escape(k)}</td><td>{escape(v)}</td></tr>" for k, v in about.items())
        + "</table></details>",
    ]
    html = (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport "
        f'content="width=device-width,initial-scale=1"><title>{escape(title)}</title><style>{_STYLE}</style>'
        f"<body>{''.join(parts)}<script>{_SCRIPT}</script></body></html>\n"
    )
    write_bytes(path, html.encode())


def _gallery(overlays: Sequence[Overlay]) -> str:
    if not overlays:
        return ""
    figures = []
    for found in overlays:
        bounds = "" if math.isnan(found.lower) else f" <small>{found.lower:.2f} to {found.upper:.2f}</small>"
        figures.append(
            f'<figure><img alt="{escape(found.structure)} of {escape(found.case_id)}" '
            f'src="data:image/png;base64,{base64.b64encode(found.png).decode()}">'
            f"<figcaption><b>{found.predicted:.2f}</b>{bounds}<br>{escape(found.structure)}<br>"
            f"<small>{escape(found.case_id)}</small></figcaption></figure>"
        )
    return f"<h2>The worst masks</h2><div class=gallery>{''.join(figures)}</div>"


def _charts(scored: pd.DataFrame) -> str:
    if scored.empty:
        return ""
    names = scored.groupby("structure")["predicted_dsc"].median().sort_values().index[:30]
    figure = Figure(figsize=(9.2, 1.2 + 0.22 * max(10, len(names))), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.3))
    left.hist(scored["predicted_dsc"], bins=30, color=report.REFERENCE)
    left.set_xlabel("predicted DSC")
    left.set_ylabel("masks")
    left.yaxis.get_major_locator().set_params(integer=True)
    for place, name in enumerate(names):
        values = scored.loc[scored["structure"] == name, "predicted_dsc"]
        right.plot(values, np.full(len(values), place), ".", color=report.REFERENCE, alpha=0.5, markersize=5)
        right.plot(values.median(), place, "|", color=report.PREDICTED, markersize=11, markeredgewidth=2)
    right.set_yticks(range(len(names)), [str(name) for name in names], fontsize=8)
    right.invert_yaxis()
    right.set_xlabel("predicted DSC, median marked")
    more = scored["structure"].nunique() - len(names)
    if more > 0:
        right.set_title(
            f"the {len(names)} structures with the lowest median, of {more + len(names)}", fontsize=9
        )
    for axes in (left, right):
        axes.grid(alpha=0.25)
    picture = base64.b64encode(_png(figure, 110)).decode()
    return f'<h2>All masks</h2><img class=chart alt="distribution" src="data:image/png;base64,{picture}">'


def _comparison(found: Sequence[GroupComparison]) -> str:
    if not found:
        return ""
    rows = []
    for each in found:
        values = "; ".join(
            f"{escape(group.name)}: {group.median:.3f} <small>({group.cases} cases)</small>"
            for group in each.groups
        )
        p = "-" if math.isnan(each.p) else f"{each.p:.3g}"
        rows.append(
            f"<tr><td>{escape(each.structure)}</td><td>{values}</td><td class=n>{p}</td>"
            f"<td>{escape(each.test)}</td><td class=n>{each.left_out}</td></tr>"
        )
    return (
        f"<h2>By {escape(found[0].column)}</h2><p class=lead>Medians of the predicted DSC. p of structures "
        "is corrected after Holm; a difference may lie in the scans, the masks or the sentinel.</p><table>"
        "<tr><th>structure<th>groups<th>p<th>test<th>cases left out</tr>" + "".join(rows) + "</table>"
    )


def _masks(table: pd.DataFrame, name: str) -> str:
    listed: list[dict[Any, Any]] = table.head(ROWS).to_dict("records")
    rows = []
    for row in listed:
        numbers = "".join(
            f"<td class=n>{'' if math.isnan(value) else f'{value:.3f}'}</td>"
            for value in (float(row[key]) for key in ("predicted_dsc", "lower", "upper"))
        )
        rows.append(
            f"<tr><td>{escape(row['case_id'])}</td><td>{escape(row['structure'])}</td>{numbers}"
            f"<td class=n>{int(row['n_slices'])}</td><td class=why>{escape(row['reason'])}</td></tr>"
        )
    more = f" The first {ROWS} of {len(table)}; all are in {escape(name)}." if len(table) > ROWS else ""
    return (
        f"<h2>Masks, worst first</h2><p class=lead>Click a heading to sort.{more}</p>"
        "<input id=filter placeholder='Filter by case or structure'><table id=masks><thead><tr><th>case"
        "<th>structure<th>predicted DSC<th>lower<th>upper<th>slices<th>note</tr></thead><tbody>"
        + "".join(rows)
        + "</tbody></table>"
    )


def _around(outline: Mask, spacing_mm: tuple[float, float]) -> tuple[slice, slice]:
    """A window around a mask's slice, with a margin in millimetres."""
    found = []
    for axis, size_mm in enumerate(spacing_mm):
        filled = np.flatnonzero(outline.any(axis=1 - axis))
        margin = int(np.ceil(_MARGIN_MM / size_mm))
        found.append(slice(max(0, int(filled[0]) - margin), int(filled[-1]) + margin + 1))
    return found[0], found[1]


def _png(figure: Figure, dpi: int = 100) -> bytes:
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()
