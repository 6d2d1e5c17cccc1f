"""What the pages of all comparisons have in common: arms and their look, contrasts, what made the page."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import pandas as pd

from cohort.comparison.contrasts import Contrast
from cohort.comparison.paired import MIN_PAIRS_FOR_RANKS
from cohort.volume import write_bytes
from flows import comparison_figures as figures
from flows import comparison_notes as notes
from flows.comparison_config import ComparisonConfig
from flows.comparison_declaration import Declaration
from flows.comparison_tables import Tables
from flows.html_parts import ends, html_table, p_value, share, signed

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
_MEASURES = {"area": "area under curve", "final": "final DSC", "final_nsd": "final NSD"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What every page of a comparison is made of.

    Args:
        config: of the comparison.
        tables: of its finished campaigns.
        about: what made it, in words.
        declaration: what was declared, and when.
    """

    config: ComparisonConfig
    tables: Tables
    about: Mapping[str, str]
    declaration: Declaration

    @property
    def reading(self) -> list[str]:
        """Arms that read references."""
        units = self.tables.units
        return list(dict.fromkeys(units.loc[units["reads_references"], "arm"]))

    @property
    def look(self) -> dict[str, figures.Look]:
        """How each arm is drawn; the same whichever arms are finished."""
        return figures.looks(list(self.config.arms), self.config.control, self.reading)

    def label(self, arm: str) -> str:
        """An arm's name, marked where it reads references."""
        mark = " <small>(reads references)</small>" if arm in self.reading else ""
        return escape(arm) + mark

    def write_page(self, path: Path, sections: Iterable[str]) -> None:
        """Write the page, atomically: title and state, the sections, and what made it."""
        title = f"Comparison {self.config.name}"
        body = [f"<h1>{escape(title)}</h1>", self._state(), *sections, self._about()]
        html = (
            "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport "
            f'content="width=device-width,initial-scale=1"><title>{escape(title)}</title>'
            f"<style>{_STYLE}</style><body>{''.join(body)}</body></html>\n"
        )
        write_bytes(path, html.encode())

    def primary(self, found: Sequence[Contrast], measured: str) -> str:
        """The declared contrast.

        Args:
            found: of it, so far.
            measured: in which measures, in words.
        """
        declared = self.config.primary
        if declared is None:
            return "<p class=note>No primary contrast was declared: all contrasts are secondary.</p>"
        seeds = ", ".join(map(str, self.config.primary_seeds))
        when = "before any run" if not self.declaration.begun else f"on {self.declaration.at[:10]}"
        head = (
            f"<h2>Declared {when}: {escape(declared.arm)} against {escape(declared.against)}</h2>"
            f"<p class=note>On {len(self.config.primary_seeds)} seeds ({seeds}); {escape(measured)}. Holm's "
            "correction is over these two measures, and not for other contrasts.</p>" + self._doubts()
        )
        if not found:
            return head + "<p class=warning>No pair of it is finished yet.</p>"
        if found[0].n < len(self.config.primary_seeds):
            head += (
                f"<p class=warning>Interim: {found[0].n} of its {len(self.config.primary_seeds)} pairs are "
                "finished.</p>"
            )
        return head + self.contrast_table(found, corrected=True, first=True) + few_pairs(found)

    def _doubts(self) -> str:
        """What keeps a contrast from being one that was declared before any run."""
        declaration = self.declaration
        text = ""
        if declaration.begun:
            text += notes.DECLARED_LATE.format(at=declaration.at[:10], begun=declaration.begun)
        if declaration.changed:
            changes = "; ".join(
                f"{key} {'were' if key == 'seeds' else 'was'} {was}, now {now}"
                for key, (was, now) in declaration.changed.items()
            )
            text += notes.DECLARED_OTHERWISE.format(at=declaration.at[:10], changes=escape(changes))
        return text

    def secondary(self, found: Sequence[Contrast], family: int) -> str:
        """Contrasts of the other arms with the control; nothing where there is none.

        Args:
            found: so far.
            family: how many the configuration plans.
        """
        if not found:
            return ""
        return (
            f"<h2>Secondary contrasts with {escape(self.config.control)}</h2>"
            + self.contrast_table(found, corrected=True)
            + f"<p class=note>Holm's correction is over the {family} contrasts that were planned; "
            f"{len(found)} of them are here.</p>" + few_pairs(found)
        )

    def contrast_table(self, found: Sequence[Contrast], *, corrected: bool, first: bool = False) -> str:
        """Contrasts, a row each."""
        heads = ["arm", "measure", "#pairs", "#difference", "#95 % bootstrap", "#95 % over seeds"]
        heads += ["#seeds won", "#p (t)", "#p (ranks)", *(["#p (t), Holm"] if corrected else [])]
        rows = [
            [
                self.label(each.arm),
                self._measure(each),
                str(each.n),
                f"<b>{signed(each.difference)}</b>",
                ends(each.lower, each.upper),
                ends(each.t_lower, each.t_upper),
                share(each.won),
                p_value(each.t_p),
                p_value(each.rank_p),
                *([p_value(each.holm_p)] if corrected else []),
            ]
            for each in found
        ]
        return html_table(heads, rows, "first" if first else "")

    def _measure(self, found: Contrast) -> str:
        other = found.currency != self.config.currency
        return _MEASURES[found.measure] + (f", over {found.currency}" if other else "")

    def _state(self) -> str:
        units = self.tables.units
        finished = units[units["state"] == "finished"]
        counts = escape(_seeds(finished))
        text = f"<p>{len(finished)} of {len(units)} campaigns are finished. {counts}.</p>"
        left = units[units["state"] != "finished"]
        if len(left):
            states = ". ".join(
                f"{str(state).capitalize()}: {_seeds(part)}"
                for state, part in left.groupby("state", sort=False)
            )
            text += f"<p class=warning>{len(left)} are not in this report. {escape(states)}.</p>"
        text += "".join(f"<p class=warning>{escape(warning)}</p>" for warning in self._unlike())
        if self.reading:
            text += notes.READS_REFERENCES.format(arms=escape(", ".join(self.reading)))
        return text

    def _unlike(self) -> list[str]:
        """What finished campaigns do not have in common although pairs should."""
        units = self.tables.units
        finished = units[units["state"] == "finished"]
        short = finished[finished["rounds"] < finished["planned"]]
        told = [
            f"{row.campaign} ended after {row.rounds} of {row.planned} measurements ({row.ended}): contrasts "
            "with its arm are taken over what both arms spent."
            for row in short.itertuples()
        ]
        for changed, own in finished[finished["changed"] != ""].groupby("changed", sort=False):
            told.append(f"{', '.join(own['campaign'])}: made with other settings ({changed}).")
        models = finished.groupby("seed")["round_zero_sha256"].nunique()
        other = ", ".join(str(seed) for seed, number in models.items() if number > 1)
        if other:
            told.append(f"Round 0 is not the same model in all arms of seed {other}.")
        return told

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


def _seeds(units: pd.DataFrame) -> str:
    """Arms with their seeds, in words."""
    arms = units.groupby("arm", sort=False)["seed"]
    return "; ".join(f"{arm}: seeds {', '.join(map(str, seeds))}" for arm, seeds in arms)


def few_pairs(found: Iterable[Contrast]) -> str:
    """A warning below contrasts with too few pairs for a rank test; nothing where there are enough."""
    least = min(each.n for each in found)
    if least >= MIN_PAIRS_FOR_RANKS:
        return ""
    return notes.FEW_PAIRS.format(pairs=least, least=min(1.0, 2.0 / 2**least), needed=MIN_PAIRS_FOR_RANKS)
