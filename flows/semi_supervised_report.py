"""The report of a semi-supervised training, from its ledger: generations, trial of the filter, costs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cohort.volume import write_bytes
from flows import pseudo_label_metrics
from flows.campaign import Campaign

REPORT = "report.md"
BOUND = " (reads references)"
_ALIKE = {"structure": "of each structure", "all": "in all"}


def write_report(campaign: Campaign) -> Path:
    """Write the report into the training's folder, and give its path; nothing but the ledger is read."""
    path = campaign.folder / REPORT
    write_bytes(path, report_text(campaign).encode())
    return path


def report_text(campaign: Campaign) -> str:
    """The report as Markdown."""
    start = campaign.ledger.entries()[0]
    parts = [f"# {campaign.name}", pseudo_label_metrics.note(campaign, start), *_generations(campaign)]
    for trial in campaign.events("trial"):
        parts += _trial(trial.payload)
    for cost in campaign.events("cost"):
        parts += _cost(cost.payload)
    return "\n\n".join(parts) + "\n"


def _generations(campaign: Campaign) -> list[str]:
    results = [entry.payload for entry in campaign.events("result")]
    structures = list(results[0]["dsc_per_structure"]) if results else []
    rows = [
        [
            "teacher" if found["round"] == 0 else f"student {found['round']}",
            str(found["labelled_cases"]),
            str(found["pseudo_labels"]["masks"]),
            str(found["pseudo_labels"]["cases"]),
            "0",
            _number(found["dsc"]),
            _number(found["nsd"]),
            *(_number(found["dsc_per_structure"][name]) for name in structures),
        ]
        for found in results
    ]
    head = ["generation", "labelled cases", "pseudo-labels", "of cases", "new annotations", "DSC", "NSD"]
    return [
        "## Generations",
        "Means over the held-out cases.",
        _table([*head, *(f"DSC {n}" for n in structures)], rows),
    ]


def _trial(payload: Mapping[str, Any]) -> list[str]:
    own, good = payload["filter"], payload["good_dsc"]
    text = (
        f"{own['kept']:.0f} of {own['masks']:.0f} masks that are not empty were kept "
        f"({own['kept_fraction'] or 0.0:.0%})."
    )
    if not own["measured"]:
        text += " No reference tells how good they are."
        return [f"## The filter in generation {payload['round']}", text]
    text += (
        f" References, which nothing learned from, tell the DSC of {own['measured']:.0f}: precision is the "
        f"share of kept masks above {good:g}, recall the share of such masks that is kept. "
        f"The rows below keep as many masks {_ALIKE[payload.get('alike', 'structure')]} by each estimator."
    )
    rows = [
        [
            name + (BOUND if name == "oracle" else ""),
            _number(both["estimator"].get("spearman")),
            *(_number(both["filter"][key]) for key in ("dsc_kept", "dsc", "precision", "good", "recall")),
        ]
        for name, both in payload["rivals"].items()
    ]
    rows.insert(
        0,
        [
            "**this filter**",
            "",
            *(_number(own[k]) for k in ("dsc_kept", "dsc", "precision", "good", "recall")),
        ],
    )
    head = [
        "filter",
        "Spearman",
        "DSC of kept",
        "DSC of all",
        "precision",
        f"above {good:g} of all",
        "recall",
    ]
    per = [
        [
            name,
            f"{each['kept']:.0f} of {each['masks']:.0f}",
            *(_number(each[k]) for k in ("dsc_kept", "dsc", "precision")),
        ]
        for name, each in payload["filter_per_structure"].items()
    ]
    return [
        f"## The filter in generation {payload['round']}",
        text,
        _table(head, rows),
        _table(["structure", "kept", "DSC of kept", "DSC of all", "precision"], per),
    ]


def _cost(payload: Mapping[str, Any]) -> list[str]:
    plain, cases = payload["segmentation"], payload["cases"]
    rows = [
        [
            name,
            f"{own['seconds_per_case']:.3f}",
            f"{own['loading_seconds']:.1f}",
            f"{own['peak_mb']:.0f}",
            f"{own['peak_over_idle_mb']:.0f}",
            f"{own['disk_mb']:.2f}",
            f"{own['learning_seconds']:.0f}",
        ]
        for name, own in payload["estimators"].items()
    ]
    head = [
        "estimator",
        "seconds a case",
        "seconds to load",
        "peak MB",
        "of that for the work",
        "disk MB",
        "seconds to learn, once",
    ]
    return [
        "## What estimating quality cost",
        f"Measured on {cases} cases with {payload['threads']} threads, each estimator in a process of its "
        f"own. Segmenting them without any took {plain['seconds'] / cases:.3f} seconds a case and "
        f"{plain['peak_mb']:.0f} MB at its peak; seconds and disk are what comes on top. "
        "No probability map is kept: uncertainties are reduced to one number a structure while a case is "
        "predicted. The disk of a sentinel is its weights.",
        _table(head, rows),
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
