"""The audit flow: a score for every mask of a data set, worst first, as table and page."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pandas as pd
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from cohort.errors import DataError
from cohort.groups import compare_groups
from cohort.layouts.masks import MaskCase, MaskDataset, read_masks
from cohort.layouts.tables import read_metadata
from cohort.volume import read_image, read_label_map, write_bytes
from flows import campaign as campaigns
from flows.audit_options import AuditOptions
from flows.audit_page import Overlay, draw_overlay, write_page
from flows.audit_rows import Audited, score_cases, voxels_of
from flows.environment import code_version
from flows.progress import Display, shifted
from flows.stages import file_sha256, json_sha256, run_stage, write_json
from segmenters.base import Report
from sentinel.scoring import Sentinel

CHUNK = 10
"""Cases in one Prefect task, and in one part of the table on disk."""

ROWS = "rows.csv"
GROUPED_BY_DEFAULT = ("sex", "gender", "age", "scanner", "manufacturer", "institute")
_TEXT = {"case_id": str, "structure": str, "reason": str}
_log = logging.getLogger(__name__)


def run_audit(options: AuditOptions, display: Display) -> pd.DataFrame:
    """Score every mask of a data set; started again, it goes on where it was.

    Returns:
        The table that was written, worst first.

    Raises:
        SentinelLoopError: for a data set, weights or settings that cannot be used. A broken scan or mask is
            a row with a reason instead.
    """
    dataset = read_masks(options.root, options.layout, masks=options.masks)
    metadata = read_metadata(options.metadata) if options.metadata is not None else dataset.metadata
    columns = _group_columns(metadata, options.group_by)
    if metadata is not None and (options.metadata is not None or options.group_by):
        _check_names_cases(metadata, dataset)
    sentinel = Sentinel.load(
        options.weights, options.embeddings, precision=options.precision, device=options.device
    )
    started = time.monotonic()
    table = worst_first(score_dataset(options, dataset, sentinel, display))
    about = _about(options, dataset, sentinel, table, time.monotonic() - started)
    _write(options.out, table, about)
    with display.step("draw the worst masks") as report:
        overlays = _overlays(table, dataset, sentinel, options.worst, report)
    groups = []
    if metadata is not None and columns:
        scores = table[["case_id", "structure", "predicted_dsc"]]
        joined = scores.merge(metadata[list(columns)], left_on="case_id", right_index=True, how="left")
        groups = [compare_groups(joined, column) for column in columns]
    title = f"Audit of {dataset.name}"
    shown = {name: str(value) for name, value in about.items()}
    write_page(
        options.out.with_suffix(".html"),
        title=title,
        about=shown,
        table=table,
        overlays=overlays,
        groups=groups,
        level=sentinel.calibration.level,
    )
    return table


def score_dataset(
    options: AuditOptions, dataset: MaskDataset, sentinel: Sentinel, display: Display
) -> pd.DataFrame:
    """A row with the score of every mask, in the order of the data set; scored parts are kept in a folder.

    Args:
        options: of the audit; its data set is read already.
        dataset: whose masks are scored.
        sentinel: to score with.
        display: shows progress.
    """
    run = _audit_flow.with_options(flow_run_name=f"audit {dataset.name}")
    parts = run(options, dataset, sentinel, display)
    return pd.concat([_read_rows(part / ROWS) for part in parts], ignore_index=True)


def worst_first(table: pd.DataFrame) -> pd.DataFrame:
    """Rows by predicted DSC, lowest first, equal ones by their raw score; masks without a score last."""
    order = ["predicted_dsc", "raw", "case_id", "structure"]
    return table.sort_values(order, na_position="last", kind="stable")


@task(name="score a chunk of cases", cache_policy=NO_CACHE, persist_result=False)
def _score_chunk(cases: Sequence[MaskCase], sentinel: Sentinel, report: Report) -> list[Audited]:
    return score_cases(cases, sentinel, report)


@flow(name="audit", validate_parameters=False)
def _audit_flow(
    options: AuditOptions, dataset: MaskDataset, sentinel: Sentinel, display: Display
) -> list[Path]:
    settings = {
        "weights": file_sha256(options.weights),
        "embeddings": file_sha256(options.embeddings) if options.embeddings else None,
        "config": asdict(sentinel.config),
    }
    total = sum(len(case.masks) for case in dataset.cases)
    parts, before = [], 0
    campaigns.record_process(options.work, str(flow_run.id))
    try:
        with display.step("score masks") as report:
            for start in range(0, len(dataset.cases), CHUNK):
                chunk = dataset.cases[start : start + CHUNK]
                parts.append(
                    _part(options.work, start, chunk, settings, sentinel, shifted(report, before, total))
                )
                before += sum(len(case.masks) for case in chunk)
                report(before, total, {})
    finally:
        campaigns.forget_process(options.work)
    return parts


def _part(
    work: Path,
    start: int,
    chunk: Sequence[MaskCase],
    settings: Mapping[str, object],
    sentinel: Sentinel,
    report: Report,
) -> Path:
    inputs = {**settings, "files": [_fingerprint(case) for case in chunk]}

    def make(folder: Path) -> None:
        rows = _score_chunk(chunk, sentinel, report)
        table = pd.DataFrame([asdict(row) for row in rows], columns=[f.name for f in fields(Audited)])
        write_bytes(folder / ROWS, table.to_csv(index=False).encode())

    return run_stage(work, f"cases{start:06d}", inputs, make)


def _fingerprint(case: MaskCase) -> list[object]:
    """What says that the files of a case are still the same: size and time of change of each."""
    listed: list[object] = [case.case_id]
    for path in (case.image, *dict.fromkeys(mask.path for mask in case.masks)):
        about = path.stat() if path.is_file() else None
        listed.append([str(path), about.st_size if about else -1, about.st_mtime_ns if about else -1])
    listed.append([[mask.structure, list(mask.labels)] for mask in case.masks])
    return listed


def _read_rows(path: Path) -> pd.DataFrame:
    return pd.read_csv(
        path,
        dtype=_TEXT,
        keep_default_na=False,
        na_values={"predicted_dsc": [""], "lower": [""], "upper": [""], "raw": [""]},
    )


def _check_names_cases(metadata: pd.DataFrame, dataset: MaskDataset) -> None:
    ids = [case.case_id for case in dataset.cases]
    if not metadata.index.isin(ids).any():
        named = ", ".join(map(repr, metadata.index[:2])) or "no case"
        raise DataError(
            f"The metadata names none of the cases of {dataset.name}: it has {named} and the data set "
            f"{', '.join(map(repr, ids[:2]))}, for example; give it the same case ids"
        )


def _group_columns(metadata: pd.DataFrame | None, asked: Sequence[str]) -> tuple[str, ...]:
    if metadata is None:
        if asked:
            raise DataError(
                f"There is no metadata to group by {', '.join(asked)}; name a table with --metadata"
            )
        return ()
    missing = [name for name in asked if name not in metadata.columns]
    if missing:
        raise DataError(
            f"The metadata has no column {missing[0]!r}; it has {', '.join(map(str, metadata.columns))}"
        )
    taken = [name for name in asked if name in {"case_id", "structure", "predicted_dsc"}]
    if taken:
        raise DataError(
            f"The metadata cannot be grouped by {taken[0]!r}, a column of the scores; give it another name"
        )
    usual = [str(name) for name in metadata.columns if str(name).lower() in GROUPED_BY_DEFAULT]
    return tuple(dict.fromkeys(asked)) or tuple(usual)


def _about(
    options: AuditOptions,
    dataset: MaskDataset,
    sentinel: Sentinel,
    table: pd.DataFrame,
    seconds: float,
) -> dict[str, object]:
    return {
        "data set": dataset.name,
        "sha256 of the files' paths, sizes and times": json_sha256(
            [_fingerprint(case) for case in dataset.cases]
        ),
        "layout": options.layout,
        "masks": "of the data set" if options.masks is None else str(options.masks),
        "weights": options.weights.name,
        "weights sha256": file_sha256(options.weights),
        "backbone": sentinel.config.backbone,
        "precision": sentinel.config.precision,
        "code version": code_version(),
        "cases": len(dataset.cases),
        "masks in all": len(table),
        "masks scored": int(table["predicted_dsc"].notna().sum()),
        "slices": int(table["n_slices"].sum()),
        "seconds of this start": round(seconds, 1),
    }


def _overlays(
    table: pd.DataFrame, dataset: MaskDataset, sentinel: Sentinel, worst: int, report: Report
) -> list[Overlay]:
    """Pictures of the worst masks; one that cannot be drawn is left out."""
    cases = {case.case_id: case for case in dataset.cases}
    rows: list[dict[Any, Any]] = table[table["predicted_dsc"].notna()].head(worst).to_dict("records")
    found = []
    for done, row in enumerate(rows, start=1):
        case = cases[row["case_id"]]
        mask = next(mask for mask in case.masks if mask.structure == row["structure"])
        try:
            image, voxels = read_image(case.image), voxels_of(read_label_map(mask.path), mask)
        except DataError as error:
            _log.warning("no picture of %s of %s: %s", mask.structure, case.case_id, error)
            continue
        found.append(
            Overlay(
                png=draw_overlay(image, voxels),
                case_id=case.case_id,
                structure=mask.structure,
                predicted=float(row["predicted_dsc"]),
                lower=float(row["lower"]),
                upper=float(row["upper"]),
            )
        )
        report(done, len(rows), {})
    return found


def _write(out: Path, table: pd.DataFrame, about: Mapping[str, object]) -> None:
    write_bytes(out, table.to_csv(index=False).encode())
    write_bytes(out.with_suffix(".parquet"), table.to_parquet(index=False))
    write_json(out.with_suffix(".json"), about)
