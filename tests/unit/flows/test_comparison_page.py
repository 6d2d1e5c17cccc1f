import re
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.comparison_config import Comparison
from flows.comparison_findings import find
from flows.comparison_page import Page
from flows.comparison_tables import read_tables

Make = Callable[..., Comparison]
Write = Callable[..., None]


@pytest.fixture
def written(tmp_path: Path) -> Callable[[Comparison], str]:
    """The page of a comparison."""

    def write(comparison: Comparison) -> str:
        tables = read_tables(comparison.units)
        findings = find(comparison.config, tables)
        page = Page(config=comparison.config, tables=tables, findings=findings, about={"data": "Tiny <&>"})
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
        "Declared before any run: quality against random",
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
