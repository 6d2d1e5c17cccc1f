"""The page of a comparison: one HTML file that opens without a server and reads on paper too."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from cohort.comparison.contrasts import Contrast
from cohort.comparison.paired import MIN_PAIRS_FOR_RANKS
from cohort.comparison.summaries import ArmSummary, Saving
from cohort.volume import write_bytes
from flows import comparison_figures as figures
from flows import comparison_notes as notes
from flows.comparison_config import ComparisonConfig
from flows.comparison_findings import SHOWN_CURRENCIES, Findings, GroupFindings, declared_runs
from flows.comparison_tables import Tables
from flows.html_parts import bracketed, deviation, ends, html_table, image, number, p_value, signed

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1b1f24;background:#fff;max-width:1120px;margin:2rem auto;
padding:0 1.2rem}h1{font-size:1.6rem;margin:0}h2{font-size:1.2rem;margin:2.2rem 0 .5rem}
h3{font-size:1rem;margin:1.4rem 0 .3rem}p,ul.notes{max-width:54rem;margin:.3rem 0 .7rem}
ul.notes{color:#4a535c;font-size:.9rem;padding-left:1.2rem}p.note,td small{color:#4a535c}
p.note{font-size:.9rem}
p.warning{background:#fff4d6;border-left:4px solid #e69f00;padding:.5rem .8rem}
table{border-collapse:collapse;font-size:.88rem;margin:.4rem 0 .9rem}
th,td{padding:.28rem .7rem;text-align:left;border-bottom:1px solid #d8dde3;vertical-align:top}
th{border-bottom:2px solid #aab2ba}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
table.first td{font-size:1rem}img{max-width:100%;height:auto;display:block;margin:.4rem 0}
.wide{overflow-x:auto}table.about td{overflow-wrap:anywhere}
@media print{body{margin:0;max-width:none;font-size:11px}h2,h3{break-after:avoid}
img,table{break-inside:avoid}.wide{overflow:visible}}
"""
_MEASURES = {"area": "area under curve", "final": "final DSC"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What the page is made of.

    Args:
        config: of the comparison.
        tables: of its finished campaigns.
        findings: computed from them.
        about: what made it, in words.
    """

    config: ComparisonConfig
    tables: Tables
    findings: Findings
    about: Mapping[str, str]

    @property
    def reading(self) -> list[str]:
        """Arms that read references."""
        units = self.tables.units
        return list(dict.fromkeys(units.loc[units["reads_references"], "arm"]))

    @property
    def look(self) -> dict[str, figures.Look]:
        """How each arm is drawn; the same whichever arms are finished."""
        return figures.looks(list(self.config.arms), self.config.control, self.reading)

    def write(self, path: Path) -> None:
        """Write the page, atomically."""
        title = f"Comparison {self.config.name}"
        sections = [f"<h1>{escape(title)}</h1>", self._state()]
        if self.findings.runs:
            sections += [
                self._primary(),
                notes.READING,
                self._curves(),
                self._arms(),
                self._savings(),
                self._secondary(),
                self._pairwise(),
                self._structures(),
                self._trials(),
                self._overlap(),
                *(self._group(group) for group in self.findings.groups),
            ]
        sections.append(self._about())
        html = (
            "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport "
            f'content="width=device-width,initial-scale=1"><title>{escape(title)}</title>'
            f"<style>{_STYLE}</style><body>{''.join(sections)}</body></html>\n"
        )
        write_bytes(path, html.encode())

    def label(self, arm: str) -> str:
        """An arm's name, marked where it reads references."""
        mark = " <small>(reads references)</small>" if arm in self.reading else ""
        return escape(arm) + mark

    def _state(self) -> str:
        units = self.tables.units
        finished = units[units["state"] == "finished"]
        counts = "; ".join(
            f"{arm}: seeds {', '.join(map(str, part['seed']))}"
            for arm, part in finished.groupby("arm", sort=False)
        )
        text = f"<p>{len(finished)} of {len(units)} campaigns are finished. {escape(counts)}.</p>"
        left = units[units["state"] != "finished"]
        if len(left):
            names = ", ".join(f"{row['campaign']} ({row['state']})" for row in left.to_dict("records"))
            text += f"<p class=warning>Not in this report: {escape(names)}.</p>"
        if self.reading:
            text += notes.READS_REFERENCES.format(arms=escape(", ".join(self.reading)))
        return text

    def _primary(self) -> str:
        declared = self.config.primary
        if declared is None:
            return "<p class=note>No primary contrast was declared: all contrasts are secondary.</p>"
        seeds = ", ".join(map(str, self.config.primary_seeds))
        head = (
            f"<h2>Declared before any run: {escape(declared.arm)} against {escape(declared.against)}</h2>"
            f"<p class=note>On {len(self.config.primary_seeds)} seeds ({seeds}), over "
            f"{escape(self.config.currency)}; area under the budget curve and final DSC. Not corrected for "
            "other contrasts.</p>"
        )
        found = self.findings.primary
        if not found:
            return head + "<p class=warning>No pair of it is finished yet.</p>"
        if found[0].n < len(self.config.primary_seeds):
            head += (
                f"<p class=warning>Interim: {found[0].n} of its {len(self.config.primary_seeds)} pairs are "
                "finished.</p>"
            )
        return head + self._contrast_table(found, corrected=False, first=True) + _few_pairs(found)

    def _contrast_table(self, found: Sequence[Contrast], *, corrected: bool, first: bool = False) -> str:
        heads = ["arm", "measure", "#pairs", "#difference", "#95 % bootstrap", "#95 % over seeds"]
        heads += ["#seeds won", "#p (t)", "#p (ranks)", *(["#p (t), Holm"] if corrected else [])]
        rows = [
            [
                self.label(each.arm),
                _MEASURES[each.measure],
                str(each.n),
                f"<b>{signed(each.difference)}</b>",
                ends(each.lower, each.upper),
                ends(each.t_lower, each.t_upper),
                f"{each.won:.0%}",
                p_value(each.t_p),
                p_value(each.rank_p),
                *([p_value(each.holm_p)] if corrected else []),
            ]
            for each in found
        ]
        return html_table(heads, rows, "first" if first else "")

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
            picture = figures.differences(self.findings.runs, control, self.config.currency, self.look)
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

    def _secondary(self) -> str:
        found = self.findings.secondary
        if not found:
            return ""
        return (
            f"<h2>Secondary contrasts with {escape(self.config.control)}</h2>"
            + self._contrast_table(found, corrected=True)
            + f"<p class=note>Holm's correction is over these {len(found)} contrasts.</p>"
            + _few_pairs(found)
        )

    def _pairwise(self) -> str:
        table = self.findings.pairwise
        if table.empty:
            return ""
        cells = {
            (str(row.arm), str(row.against)): f"<b>{float(str(row.won)):.0%}</b><br>"
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
            + notes.TRIALS.format(more=self._fallen_back())
        )

    def _fallen_back(self) -> str:
        chosen = self.tables.selections
        fell = (
            chosen[chosen["fell_back"].astype(bool)].groupby(["arm", "seed", "round"]) if len(chosen) else ()
        )
        if not len(fell):
            return ""
        return f" In {len(fell)} rounds an arm fell back to another strategy; see selections.csv."

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
        return head + self._contrast_table(found, corrected=False) + _few_pairs(found)

    def _about(self) -> str:
        rows = [[escape(name), escape(value)] for name, value in self.about.items()]
        units = self.tables.units
        columns = ["campaign", "state", "rounds", "code_version", "config_sha256"]
        listed = [
            [
                escape(str(value)[:12] if name == "config_sha256" else str(value))
                for name, value in row.items()
            ]
            for row in units[columns].to_dict("records")
        ]
        return (
            "<h2>What made this page</h2>" + html_table(["", ""], rows, "about") + html_table(columns, listed)
        )


def _few_pairs(found: Iterable[Contrast]) -> str:
    least = min(each.n for each in found)
    if least >= MIN_PAIRS_FOR_RANKS:
        return ""
    return notes.FEW_PAIRS.format(pairs=least, least=min(1.0, 2.0 / 2**least), needed=MIN_PAIRS_FOR_RANKS)


def _summary_heads(currency: str) -> list[str]:
    return ["arm", "#seeds", f"#area over {currency}", "#final DSC", f"#{currency} spent"]


def _saving(found: Saving) -> str:
    shown = "not reached" if math.isinf(found.saved) else f"{found.saved:+.1f}"
    between = ["not reached" if math.isinf(end) else f"{end:+.1f}" for end in (found.lower, found.upper)]
    return f"<b>{shown}</b><br><small>[{between[0]}, {between[1]}]<br>{found.reached:.0%} of draws</small>"
