"""The page of a comparison of semi-supervised trainings."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

from flows import comparison_figures as figures
from flows import comparison_notes as notes
from flows.comparison_frame import Frame, few_pairs
from flows.html_parts import bracketed, deviation, html_table, image, number
from flows.student_findings import LABELLED_ONLY, StudentFindings

_FILTER: Mapping[str, str] = {
    "kept_fraction": "kept",
    "kept_cases": "cases with a kept mask",
    "dsc": "DSC of all masks",
    "dsc_kept": "DSC of the kept",
    "good": "good of all",
    "precision": "good of the kept",
    "recall": "kept of the good",
}
"""Columns of the table of filters -> their heads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentPage(Frame):
    """The page of a comparison of semi-supervised trainings.

    Args:
        findings: computed from the tables.
    """

    findings: StudentFindings

    def write(self, path: Path) -> None:
        """Write the page, atomically."""
        found = self.findings
        sections = (
            [
                self.primary(found.primary, "DSC and NSD of the last generation"),
                notes.STUDENTS,
                self._arms(),
                self._gains(),
                self.secondary(found.secondary, found.family),
                self._structures(),
                self._filters(),
            ]
            if found.runs
            else []
        )
        self.write_page(path, sections)

    def _arms(self) -> str:
        heads = ["arm", "#seeds", "#DSC", "#NSD", f"#gain over that of {self.config.control}"]
        rows = [
            [
                self.label(each.arm),
                str(each.n),
                f"{each.dsc:.4f}{deviation(each.dsc_sd)} {bracketed(each.dsc_lower, each.dsc_upper)}",
                f"{each.nsd:.4f}{deviation(each.nsd_sd)}",
                self._share(each.arm),
            ]
            for each in self.findings.summaries
        ]
        return "<h2>Arms</h2>" + html_table(heads, rows) + notes.STUDENT_ARMS

    def _share(self, arm: str) -> str:
        share = self.findings.shares_of_gain.get(arm)
        return "-" if share is None else f"{share:.2f} times"

    def _gains(self) -> str:
        found = self.findings.gains
        if not found:
            return ""
        shown = [each for each in found if each.measure == "final"]
        picture = figures.paired_dots(shown, self.look, f"DSC minus {LABELLED_ONLY}, same seed")
        return (
            f"<h2>What the pseudo-labels added: against {LABELLED_ONLY}</h2>"
            + image(picture, "gain of each arm over the teacher")
            + self.contrast_table(found, corrected=False)
            + notes.GAINS
            + few_pairs(found)
        )

    def _structures(self) -> str:
        runs = self.findings.runs
        structures = next(iter(runs.values())).structures
        means = {arm: each.per_structure()[:, -1].mean(axis=0) for arm, each in runs.items()}
        rows = [
            [self.label(arm), str(len(runs[arm].seeds)), *map(number, found)] for arm, found in means.items()
        ]
        heads = ["arm", "#seeds", *(f"#{escape(name)}" for name in structures)]
        return "<h2>DSC of each structure</h2>" + html_table(heads, rows) + notes.STUDENT_STRUCTURES

    def _filters(self) -> str:
        table = self.tables.filters
        if table.empty:
            return ""
        rows = []
        for arm, part in table.groupby("arm", sort=False):
            means = part[list(_FILTER)].astype(float).mean()
            rows.append([self.label(str(arm)), str(len(part)), *(number(means[name]) for name in _FILTER)])
        heads = ["arm", "#generations", *(f"#{head}" for head in _FILTER.values())]
        return "<h2>What the filters kept</h2>" + html_table(heads, rows) + notes.FILTERS
