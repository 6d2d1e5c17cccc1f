import re
from collections.abc import Callable
from pathlib import Path

import pytest

from flows import campaign as campaigns
from flows.comparison_config import Comparison
from flows.comparison_declaration import declare
from flows.comparison_findings import find
from flows.comparison_page import Page
from flows.comparison_tables import read_tables

Make = Callable[..., Comparison]
Write = Callable[..., None]


@pytest.fixture(autouse=True)
def new_year(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaigns, "now", lambda: "2026-01-01T00:00:00.000+00:00")


@pytest.fixture
def written(tmp_path: Path) -> Callable[[Comparison], str]:
    """The page of a comparison."""

    def write(comparison: Comparison) -> str:
        tables = read_tables(comparison.units)
        findings = find(comparison.config, tables)
        page = Page(
            config=comparison.config,
            tables=tables,
            findings=findings,
            about={"data": "Tiny <&>"},
            declaration=declare(comparison),
        )
        page.write(tmp_path / "report.html")
        return (tmp_path / "report.html").read_text()

    return write


def text_of(html: str) -> str:
    without = re.sub(r"<img[^>]*>|<style>.*?</style>", " ", html, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", without).split())


def test_the_declared_contrast_comes_first(
    measured: Comparison, written: Callable[[Comparison], str]
) -> None:
    heads = re.findall(r"<h2>(.*?)</h2>", written(measured))
    assert heads == [
        "Declared on 2026-01-01: quality against random",
        "Learning curves over what was spent",
        "Arms",
        "Saved on the way to the final DSC of random",
        "Secondary contrasts with random",
        "Pair by pair",
        "Structures",
        "Estimators on trial",
        "Do arms choose the same cases?",
        "What made this page",
    ]


def test_it_needs_nothing_else(measured: Comparison, written: Callable[[Comparison], str]) -> None:
    html = written(measured)
    assert "<script" not in html
    assert "http" not in html
    assert all(source.startswith("data:image/png;base64,") for source in re.findall(r'src="([^"]*)"', html))
    assert "Tiny &lt;&amp;&gt;" in html


def test_numbers_and_their_limits_are_told(
    measured: Comparison, written: Callable[[Comparison], str]
) -> None:
    text = text_of(written(measured))
    assert "6 of 6 campaigns are finished" in text
    assert "quality area under curve 2 +0.0200 +0.0200 to +0.0200" in text
    assert "With fewer than 6 pairs (here 2) a rank test cannot come below p = 0.5" in text
    assert "oracle-worst: reads references that only annotation could reveal" in text
    assert "quality 2 +2.7" in text


def test_what_was_declared_before_any_run_says_so(
    make_comparison: Make, write_measured: Write, written: Callable[[Comparison], str]
) -> None:
    comparison = make_comparison()
    declare(comparison)
    for unit in comparison.units:
        write_measured(unit)
    assert "Declared before any run: quality against random" in text_of(written(comparison))
    more = make_comparison(seeds=[0, 1, 2])
    text = text_of(written(more))
    assert "This is not what was declared on 2026-01-01: seeds were [0, 1], now [0, 1, 2]." in text


def test_a_declaration_that_came_late_says_so(
    measured: Comparison, written: Callable[[Comparison], str]
) -> None:
    text = text_of(written(measured))
    assert "The declaration was first written down on 2026-01-01, when 6 of the campaigns had begun." in text


def test_campaigns_that_are_unlike_are_told(
    make_comparison: Make, write_measured: Write, written: Callable[[Comparison], str]
) -> None:
    """One ended early; one has another round 0; one is of another configuration."""
    comparison = make_comparison()
    for unit in comparison.units:
        early, other = unit.name == "oracle-worst-seed0", unit.name == "quality-seed1"
        write_measured(unit, rounds=2 if early else 3, model="other" if other else "same")
    config = next(u for u in comparison.units if u.name == "oracle-worst-seed1").folder / "config.yaml"
    config.write_text(config.read_text().replace("rounds: 3", "rounds: 4"))
    config = next(u for u in comparison.units if u.name == "quality-seed0").folder / "config.yaml"
    config.write_text(config.read_text().replace("retrain_every: 1", "retrain_every: 2"))
    text = text_of(written(comparison))
    assert "quality-seed0: made with other settings (trial.retrain_every: 2 -&gt; 1)." in text
    assert "oracle-worst-seed0 ended after 2 of 3 measurements (all rounds are done)" in text
    assert "Round 0 is not the same model in all arms of seed 1." in text
    assert "Made with another configuration: oracle-worst: seeds 1." in text
    assert "quality area under curve 2 +0.0200" in text, "the others are not cut"


def test_rounds_that_a_fallback_chose_are_told(
    make_comparison: Make, write_measured: Write, written: Callable[[Comparison], str]
) -> None:
    comparison = make_comparison()
    for unit in comparison.units:
        write_measured(unit, fallback="stratified" if unit.name == "quality-seed0" else "")
    text = text_of(written(comparison))
    assert "quality: 2 of 4 selections were made by stratified, because" in text
    assert "random: 2 of 4" not in text


def test_an_unfinished_comparison_says_so(
    make_comparison: Make, write_measured: Write, written: Callable[[Comparison], str]
) -> None:
    comparison = make_comparison()
    for unit in comparison.units[:3]:
        write_measured(unit)
    text = text_of(written(comparison))
    assert "3 of 6 campaigns are finished" in text
    left = "3 are not in this report. Not started: quality: seeds 1; oracle-worst: seeds 0, 1."
    assert left in text
    assert "Interim: 1 of its 2 pairs are finished" in text


def test_nothing_finished_is_a_page_too(make_comparison: Make, written: Callable[[Comparison], str]) -> None:
    assert "0 of 6 campaigns are finished" in text_of(written(make_comparison()))


def test_an_arm_that_never_gets_there_is_told(
    make_comparison: Make, write_measured: Write, written: Callable[[Comparison], str]
) -> None:
    """Against the control quality, random does not reach what it ends with."""
    comparison = make_comparison(control="quality", primary=None)
    for unit in comparison.units:
        write_measured(unit)
    assert "random 2 not reached [not reached, not reached] 0% of draws" in text_of(written(comparison))


def test_groups_have_a_section_each(
    make_comparison: Make, write_measured: Write, written: Callable[[Comparison], str], tmp_path: Path
) -> None:
    groups = tmp_path / "groups.csv"
    groups.write_text("case_id,group\nheld_0,easy\nheld_1,easy\nheld_2,hard\n")
    comparison = make_comparison(groups=str(groups))
    for unit in comparison.units:
        write_measured(unit)
    text = text_of(written(comparison))
    assert "Held-out cases of the group: easy 2 held-out cases; exploratory" in text
    assert "Held-out cases of the group: hard 1 held-out cases; exploratory" in text
