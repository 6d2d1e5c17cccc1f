"""The filter alone, on masks of any tool: scores all, keeps the good ones, and says why."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from cohort.case import Structure
from cohort.errors import ConfigError, SelectionError
from cohort.filtering import Verdict, filter_masks, make_filter
from cohort.filtering.outcome import EMPTY_REASONS
from cohort.filtering.registry import FilterSettings
from cohort.layouts.detection import detect_layout, read_plain
from cohort.layouts.masks import MaskDataset, read_masks
from cohort.records import QualityScore
from cohort.volume import write_bytes
from flows.audit import score_dataset
from flows.environment import code_version
from flows.mask_files import lay_out
from flows.mask_filter_options import MANIFEST, SETTINGS, FilterOptions
from flows.progress import Display
from flows.stages import file_sha256, json_sha256, read_json, write_json
from sentinel.calibration import BEYOND
from sentinel.scoring import Sentinel


def run_filter(options: FilterOptions, display: Display) -> pd.DataFrame:
    """Score every mask, decide, and lay the kept masks out; started again, it goes on where it was.

    Memory holds one image and a few masks at a time, and a row per mask.

    Returns:
        The table that was written: a row per mask with verdict, reason, scores, file and hash.

    Raises:
        SentinelLoopError: for masks, weights or settings that cannot be used, or if nothing is kept.
    """
    dataset = _dataset(options)
    _check_ignored(options.ignore_label, dataset)
    sentinel = Sentinel.load(
        options.weights, options.embeddings, precision=options.precision, device=options.device
    )
    _check_bounds(options.settings, sentinel)
    _claim(options)
    rows = score_dataset(options.audit, dataset, sentinel, display)
    rule = make_filter(options.settings)
    verdicts = filter_masks(rule, _scores(rows), round=0, seed=options.seed, keep_absent=options.keep_absent)
    with display.step("lay out kept masks") as report:
        files = lay_out(dataset.cases, verdicts, options.masks, options.ignore_label, report)
    table = _table(
        rows, verdicts, dataset, {key: path.relative_to(options.out) for key, path in files.items()}
    )
    hashes = {name: file_sha256(options.out / name) for name in table["file"].unique() if name}
    table["sha256"] = [hashes.get(name, "") for name in table["file"]]
    write_bytes(options.table, table.to_csv(index=False).encode())
    write_json(options.out / MANIFEST, _manifest(options, dataset, sentinel, table, rule.rule))
    if not table["kept"].any():
        why = not_scored(table) or "To keep some, lower the minimum or keep a fraction, with another --out"
        raise SelectionError(
            f"The filter keeps none of {len(table)} masks ({rule.rule}); see {options.table}. {why}"
        )
    return table


def not_scored(table: pd.DataFrame) -> str:
    """How many masks with voxels have no score, and why most of them; "" where all have one.

    Args:
        table: as `run_filter` returns it.
    """
    without = table[_lacks_score(table)]
    if without.empty:
        return ""
    several = len(without) > 1
    why, count = Counter(without["reason"]).most_common(1)[0]
    first = without[without["reason"] == why].iloc[0]
    return (
        f"{len(without)} mask{'s' if several else ''} could not be scored: {first['structure']} of "
        f"{first['case_id']}{f' and {count - 1} more' if count > 1 else ''}, {why}"
    )


def beyond_calibration(table: pd.DataFrame) -> int:
    """How many masks were kept whose DSC and bounds are a line drawn on; see `sentinel.calibration.BEYOND`.

    Args:
        table: as `run_filter` returns it.
    """
    return int((table["kept"] & (table["note"] == BEYOND)).sum())


def _lacks_score(table: pd.DataFrame) -> "pd.Series[bool]":
    return table["raw"].isna() & ~table["reason"].isin(EMPTY_REASONS)


def _dataset(options: FilterOptions) -> MaskDataset:
    if options.images is not None and options.structures:
        for name, label in options.structures.items():
            Structure(name=name, label=label)
        return read_plain(options.images, options.predictions, options.structures)
    root = options.data or options.predictions
    layout = detect_layout(root) if options.layout == "auto" else options.layout
    return read_masks(root, layout, masks=options.predictions if options.data is not None else None)


def _check_bounds(settings: FilterSettings, sentinel: Sentinel) -> None:
    if settings.kind == "lower_bound" and not any(
        found.quantile is not None for found in sentinel.calibration.structures.values()
    ):
        raise ConfigError(
            "The lower bound of the DSC is to be compared, but this sentinel is not calibrated and has no "
            "bounds; take --minimum or --keep, or calibrate one with train-sentinel"
        )


def _check_ignored(label: int, dataset: MaskDataset) -> None:
    """Refuse a label for what is left out that is a structure's own."""
    names = {
        mask.structure for case in dataset.cases for mask in case.masks if label and label in mask.labels
    }
    if names:
        raise ConfigError(
            f"--ignore-label is {label}, which is the label of {', '.join(sorted(names))}; take one that no "
            "structure has"
        )


def _claim(options: FilterOptions) -> None:
    """Refuse a folder that holds what other settings kept, or anything else's files."""
    path = options.out / SETTINGS
    mine = {
        "predictions": str(options.predictions.resolve()),
        "data": str(options.data.resolve()) if options.data else None,
        "images": str(options.images.resolve()) if options.images else None,
        "structures": dict(options.structures or {}),
        "layout": options.layout,
        "weights_sha256": file_sha256(options.weights),
        "filter": asdict(options.settings),
        "keep_absent": options.keep_absent,
        "ignore_label": options.ignore_label,
        "seed": options.seed,
    }
    if path.is_file():
        theirs = read_json(path)
        if not isinstance(theirs, dict) or mine.keys() - theirs.keys():
            raise ConfigError(f"{path} is not of this command; name another folder with --out")
        changed = [key for key in mine if theirs[key] != mine[key]]
        if changed:
            raise ConfigError(
                f"{options.out} holds masks that were kept with other settings ({', '.join(changed)} "
                "changed); name another folder with --out"
            )
    options.check_out()
    write_json(path, mine)


def _scores(rows: pd.DataFrame) -> list[QualityScore]:
    found = []
    for row in rows.to_dict("records"):
        raw = float(row["raw"])
        found.append(
            QualityScore(
                case_id=row["case_id"],
                structure=row["structure"],
                raw=raw,
                predicted_dsc=min(1.0, max(0.0, float(row["predicted_dsc"]))) if not math.isnan(raw) else raw,
                lower=float(row["lower"]),
                upper=float(row["upper"]),
                estimator="sentinel",
                reason=row["reason"] if math.isnan(raw) else "",
            )
        )
    return found


def _table(
    rows: pd.DataFrame,
    verdicts: Sequence[Verdict],
    dataset: MaskDataset,
    files: Mapping[tuple[str, str], Path],
) -> pd.DataFrame:
    scores = {(row["case_id"], row["structure"]): row for row in rows.to_dict("records")}
    sources = {(case.case_id, mask.structure): mask.path for case in dataset.cases for mask in case.masks}
    listed = []
    for verdict in verdicts:
        key = (verdict.case_id, verdict.structure)
        score = scores[key]
        listed.append(
            {
                "case_id": verdict.case_id,
                "structure": verdict.structure,
                "kept": verdict.kept,
                "weight": verdict.weight,
                "reason": verdict.reason,
                "note": score["reason"] if not math.isnan(score["raw"]) else "",
                **{name: score[name] for name in ("predicted_dsc", "lower", "upper", "raw", "n_slices")},
                "source": str(sources[key]),
                "file": str(files.get(key, "")),
            }
        )
    return pd.DataFrame(listed)


def _manifest(
    options: FilterOptions, dataset: MaskDataset, sentinel: Sentinel, table: pd.DataFrame, rule: str
) -> dict[str, Any]:
    kept = table[table["kept"]]
    return {
        "rule": rule,
        "masks": len(table),
        "kept": len(kept),
        "cases": len(dataset.cases),
        "cases_kept": int(kept["case_id"].nunique()),
        "not_scored": int(_lacks_score(table).sum()),
        "kept_beyond_calibration": beyond_calibration(table),
        "weights": options.weights.name,
        "weights_sha256": file_sha256(options.weights),
        "calibrated_structures": sorted(sentinel.calibration.structures),
        "settings_sha256": json_sha256(read_json(options.out / SETTINGS)),
        "kept_sha256": file_sha256(options.table),
        "code_version": code_version(),
        "annotated_structures": {
            str(case_id): sorted(names) for case_id, names in kept.groupby("case_id")["structure"]
        },
    }
