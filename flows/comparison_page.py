"""The page of a comparison: one HTML file that opens without a server and reads on paper too."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from cohort.comparison.contrasts import Contrast
from cohort.comparison.summaries import ArmSummary, Saving
from flows import comparison_figures as figures
from flows import comparison_notes as notes
from flows.comparison_findings import SHOWN_CURRENCIES, Findings, GroupFindings, declared_runs
from flows.comparison_frame import Frame, few_pairs
from flows.html_parts import bracketed, deviation, html_table, image, number, share, signed


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Frame):
    """The page of a comparison of active-learning campaigns.

    Args:
        findings: computed from the tables.
    """

    findings: Findings

    def write(self, path: Path) -> None:
        """Write the page, atomically."""
        found = self.findings
        measured = f"area under the budget curve, over {self.config.currency}, and final DSC"
        sections = (
            [
                self.primary(found.primary, measured),
                notes.READING,
                self._fallen_back(),
                self._curves(),
                self._arms(),
                self._savings(),
                self.secondary(found.secondary, found.family),
                self._pairwise(),
                self._structures(),
                self._trials(),
                self._overlap(),
                *(self._group(group) for group in found.groups),
            ]
            if found.runs
            else []
        )
        self.write_page(path, sections)

    def _curves(self) -> str:
        declared, alike, control = declared_runs(self.findings), self.findings.alike, self.config.control
        parts = ["<h2>Learning curves over what was spent</h2>"]
        if declared:
            picture = figures.learning_curves(declared, self.look, SHOWN_CURRENCIES, list(declared))
            parts += [image(picture, "learning curves of the declared contrast"), notes.DECLARED_CURVES]
        if len(alike) > len(declared):
            banded = [] if declared else list(alike)
            picture = figures.learning_curves(alike, self.look, SHOWN_CURRENCIES, banded)
            parts += [
                f"<h3>All arms, {self._seeds_alike()}</h3>",
                image(picture, "learning curves of all arms"),
            ]
        parts.append(notes.CURVES)
        if control in self.findings.runs and len(self.findings.runs) > 1:
            picture = figures.differences(self.findings.runs, control, self.config.axis, self.look)
            parts += [
                "<h3>Paired difference to the control, round by round</h3>",
                image(picture, "difference to the control"),
                notes.DIFFERENCES,
            ]
        return "".join(parts)

    def _seeds_alike(self) -> str:
        """Which seeds `Findings.alike` rests on, in words."""
        seeds = {each.seeds for each in self.findings.alike.values()}
        if len(seeds) > 1:
            return "each on its own seeds: none is finished in every arm"
        return f"seeds that every arm has: {', '.join(map(str, next(iter(seeds))))}"

    def _arms(self) -> str:
        currency, summaries = self.config.currency, self.findings.summaries
        others = [name for name in SHOWN_CURRENCIES if name != currency]
        cells = [
            [self.label(each.arm), *(f"{summaries[name][place].area:.4f}" for name in others)]
            for place, each in enumerate(summaries[currency])
        ]
        return (
            "<h2>Arms</h2>"
            + html_table(
                _summary_heads(currency), [self._summary_cells(each) for each in summaries[currency]]
            )
            + html_table(["arm", *(f"#area over {name}" for name in others)], cells)
            + notes.ARMS
        )

    def _summary_cells(self, each: ArmSummary) -> list[str]:
        return [
            self.label(each.arm),
            str(each.n),
            f"{each.area:.4f}{deviation(each.area_sd)} {bracketed(each.area_lower, each.area_upper)}",
            f"{each.final:.4f}{deviation(each.final_sd)} {bracketed(each.final_lower, each.final_upper)}",
            f"{each.spent:.0f}",
        ]

    def _savings(self) -> str:
        found = {(each.arm, each.currency): each for each in self.findings.savings}
        if not found:
            return ""
        arms = list(dict.fromkeys(arm for arm, _ in found))
        rows = [
            [
                self.label(arm),
                str(found[arm, SHOWN_CURRENCIES[0]].n),
                *(_saving(found[arm, currency]) for currency in SHOWN_CURRENCIES),
                f"{found[arm, SHOWN_CURRENCIES[0]].seeds_reached}",
            ]
            for arm in arms
        ]
        heads = ["arm", "#pairs", *(f"#{name} saved" for name in SHOWN_CURRENCIES), "#seeds that got there"]
        return (
            f"<h2>Saved on the way to the final DSC of {escape(self.config.control)}</h2>"
            + html_table(heads, rows)
            + notes.SAVINGS
        )

    def _pairwise(self) -> str:
        table = self.findings.pairwise
        if table.empty:
            return ""
        cells = {
            (str(row.arm), str(row.against)): f"<b>{share(float(str(row.won)))}</b><br>"
            f"<small>{signed(float(str(row.difference)))}, n {row.n}</small>"
            for row in table.itertuples()
        }
        return "<h2>Pair by pair</h2>" + self._matrix(cells) + notes.PAIRWISE

    def _matrix(self, cells: Mapping[tuple[str, str], str]) -> str:
        arms = list(self.findings.runs)
        rows = [[self.label(row), *(cells.get((row, column), "") for column in arms)] for row in arms]
        return html_table(["", *(f"#{arm}" for arm in arms)], rows)

    def _structures(self) -> str:
        runs = self.findings.alike
        structures = next(iter(runs.values())).structures
        picture = figures.structure_curves(runs, self.config.currency, self.look, structures)
        rows = [
            [
                self.label(arm),
                str(len(each.seeds)),
                *(f"{value:.4f}" for value in each.per_structure()[:, -1].mean(axis=0)),
            ]
            for arm, each in runs.items()
        ]
        heads = ["arm", "#seeds", *(f"#{name}" for name in structures)]
        return (
            f"<h2>Structures</h2><p class=note>On {self._seeds_alike()}.</p>"
            + image(picture, "DSC of each structure")
            + "<h3>DSC of the last round</h3>"
            + html_table(heads, rows)
        )

    def _trials(self) -> str:
        trials = self.tables.trials
        if trials.empty:
            return ""
        names = [name for name in ("spearman", "pearson", "mae", "bias") if name in trials.columns]
        rows = []
        for arm, part in trials.groupby("arm", sort=False):
            means = part[names].astype(float).mean()
            rows.append(
                [
                    self.label(str(arm)),
                    str(len(part)),
                    *(number(means[name]) for name in names),
                    *(str(int(part[name].sum())) for name in ("n", "missing")),
                ]
            )
        heads = ["arm", "#rounds", *(f"#{name}" for name in names), "#masks", "#without a score"]
        return (
            "<h2>Estimators on trial</h2>"
            + image(figures.trial_curves(trials, self.look), "agreement of predicted and revealed quality")
            + html_table(heads, rows)
            + notes.TRIALS
        )

    def _fallen_back(self) -> str:
        """Arms of which some rounds were chosen by another strategy."""
        chosen = self.tables.selections
        if chosen.empty:
            return ""
        rounds = chosen.drop_duplicates(["arm", "seed", "round"])
        text = ""
        for arm, own in rounds.groupby("arm", sort=False):
            fell = own[own["fell_back"].astype(bool)]
            if len(fell):
                by = ", ".join(sorted(set(fell["strategy"])))
                told = {"arm": escape(str(arm)), "fell": len(fell), "all": len(own), "by": escape(by)}
                text += notes.FELL_BACK.format(**told)
        return text

    def _overlap(self) -> str:
        table = self.findings.overlap
        if table.empty:
            return ""
        cells = {}
        for row in table.itertuples():
            cell = f"{float(str(row.overlap)):.2f} <small>n {row.n}</small>"
            cells[str(row.arm), str(row.against)] = cells[str(row.against), str(row.arm)] = cell
        return "<h2>Do arms choose the same cases?</h2>" + self._matrix(cells) + notes.OVERLAP

    def _group(self, group: GroupFindings) -> str:
        number_of_cases = len(next(iter(group.runs.values())).cases)
        currency = self.config.currency
        curves = figures.learning_curves(group.alike, self.look, (currency,), [self.config.control])
        return (
            f"<h2>Held-out cases of the group: {escape(group.name)}</h2>"
            + notes.GROUP.format(number=number_of_cases)
            + image(curves, f"learning curves on the group {group.name}")
            + html_table(_summary_heads(currency), [self._summary_cells(each) for each in group.summaries])
            + self._group_contrasts(group.contrasts)
        )

    def _group_contrasts(self, found: Sequence[Contrast]) -> str:
        if not found:
            return ""
        head = f"<h3>Contrasts with {escape(self.config.control)}</h3>"
        return head + self.contrast_table(found, corrected=False) + few_pairs(found)


def _summary_heads(currency: str) -> list[str]:
    return ["arm", "#seeds", f"#area over {currency}", "#final DSC", f"#{currency} spent"]


def _saving(found: Saving) -> str:
    shown, *between = (
        "not reached" if math.isinf(amount) else f"{round(amount, 1) + 0.0:+.1f}"  # never -0.0
        for amount in (found.saved, found.lower, found.upper)
    )
    return f"<b>{shown}</b><br><small>[{between[0]}, {between[1]}]<br>{share(found.reached)} of draws</small>"
