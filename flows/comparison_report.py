"""The report of a comparison: tables, page and a run in MLflow, from what the campaigns' ledgers hold."""

import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import yaml

from cohort.errors import CampaignError
from cohort.volume import write_bytes
from flows.campaign import open_campaign
from flows.comparison_config import Comparison
from flows.comparison_declaration import declare
from flows.comparison_findings import Findings, contrast_table, find, saving_table, summary_table
from flows.comparison_page import Page
from flows.comparison_tables import OTHER_SETTINGS, Tables, read_tables, write_tables
from flows.config_files import as_dict, config_sha256
from flows.environment import code_version
from flows.student_findings import find_students, student_metrics, student_tables
from flows.student_page import StudentPage
from flows.tracking import log_comparison

PAGE, TABLES, CONFIG = "report.html", "tables", "comparison.yaml"


class Reported(NamedTuple):
    """Where a report lies, and how many of the planned campaigns are in it."""

    page: Path
    finished: int
    planned: int


def report(comparison: Comparison) -> Reported:
    """Write the report of what is finished, beside the campaigns and into MLflow.

    Raises:
        CampaignError: for campaigns that are not paired, or where all that is there was made with other
            settings: a page of these is left as it is.
        SentinelLoopError: for a table of groups that cannot be read.
    """
    config = comparison.config
    tables = read_tables(comparison.units)
    _check_settings(config.folder / PAGE, tables.units)
    declaration = declare(comparison)
    about = _about(comparison, tables)
    page: Page | StudentPage
    if config.semi_supervised is None:
        found = find(config, tables)
        page = Page(config=config, tables=tables, findings=found, about=about, declaration=declaration)
        computed, metrics = _computed_tables(found), _metrics(found)
    else:
        learned = find_students(config, tables)
        page = StudentPage(
            config=config, tables=tables, findings=learned, about=about, declaration=declaration
        )
        computed, metrics = student_tables(learned), student_metrics(learned)
    settings = yaml.safe_dump(config.model_dump(mode="json", by_alias=True), sort_keys=False)
    write_bytes(config.folder / CONFIG, settings.encode())
    write_tables(config.folder / TABLES, _filled(tables, computed))
    page.write(config.folder / PAGE)
    finished = tables.units.loc[tables.units["state"] == "finished", "campaign"]
    log_comparison(
        config.folder,
        [open_campaign(config.campaigns_root / str(name)) for name in finished],
        name=config.name,
        settings=as_dict(config),
        about=about,
        metrics={name: value for name, value in metrics.items() if math.isfinite(value)},
    )
    return Reported(config.folder / PAGE, len(finished), len(tables.units))


def _check_settings(page: Path, units: pd.DataFrame) -> None:
    """Refuse to write a page of nothing over one of campaigns that were made with other settings."""
    others = units[units["state"] == OTHER_SETTINGS]
    if others.empty or (units["state"] == "finished").any() or not page.is_file():
        return
    first = others.iloc[0]
    raise CampaignError(
        f"No finished campaign has these settings, so {page} is left as it is: {first['campaign']} and "
        f"{len(others) - 1} more have others ({first['changed']}); give the same --set as when they were made"
    )


def _filled(tables: Tables, computed: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """All tables that have a row, by the names of their files."""
    read = {field.name: getattr(tables, field.name) for field in fields(tables)}
    return {name: table for name, table in {**read, **computed}.items() if not table.empty}


def _computed_tables(findings: Findings) -> dict[str, pd.DataFrame]:
    return {
        "contrasts": contrast_table(findings),
        "arms": summary_table(findings),
        "savings": saving_table(findings),
        "pairwise": findings.pairwise,
        "overlap": findings.overlap,
    }


def _about(comparison: Comparison, tables: Tables) -> Mapping[str, str]:
    config, units = comparison.config, tables.units
    started = units[units["dataset_sha256"] != ""]
    versions = sorted({*started["code_version"], code_version()})
    return {
        "data": ", ".join(sorted(set(started["dataset"]))),
        "data sha256": ", ".join(sorted(set(started["dataset_sha256"]))),
        "code versions": ", ".join(versions),
        "config": config.name,
        "config sha256": config_sha256(as_dict(config)),
        "seeds": "; ".join(f"{arm}: {', '.join(map(str, config.seeds_of(arm)))}" for arm in config.arms),
        "rounds": str(comparison.units[0].rounds),
        "held-out cases": str(tables.results["case_id"].nunique()) if len(tables.results) else "",
        "bootstrap": "2,000 draws, seed 0",
    }


def _metrics(findings: Findings) -> dict[str, float]:
    """What MLflow shows of a comparison: numbers under names that sort by arm."""
    found: dict[str, float] = {}
    for currency, summaries in findings.summaries.items():
        for each in summaries:
            found[f"{each.arm}/area_over_{currency}"] = each.area
            found[f"{each.arm}/final_dsc"] = each.final
            found[f"{each.arm}/seeds"] = each.n
    for kind, contrasts in (("primary", findings.primary), ("secondary", findings.secondary)):
        for contrast in contrasts:
            place = f"{kind}/{contrast.arm}-{contrast.against}/{contrast.measure}"
            found |= {
                f"{place}/difference": contrast.difference,
                f"{place}/lower": contrast.lower,
                f"{place}/upper": contrast.upper,
                f"{place}/p": contrast.t_p,
                f"{place}/p_holm": contrast.holm_p,
                f"{place}/n": contrast.n,
            }
    for saving in findings.savings:
        found[f"{saving.arm}/{saving.currency}_saved"] = saving.saved
    return {name: float(value) for name, value in found.items()}
