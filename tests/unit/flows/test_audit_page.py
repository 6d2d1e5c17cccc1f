"""The page of an audit: it opens without a network, whatever names it shows, and holds the pictures."""

import base64
import io
import math
import re
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import image as images

from cohort.groups import Group, GroupComparison
from cohort.layouts.masks import MaskCase
from cohort.volume import Volume
from flows import audit, audit_page
from flows.audit_options import AuditOptions
from flows.audit_page import Overlay, draw_overlay, write_page
from flows.audit_rows import Audited
from flows.progress import Display
from segmenters.base import Report
from sentinel.scoring import Sentinel

SHAPE = (8, 12, 16)
EVIL = "<script>alert('&\"')</script>"
QUIET = Display(quiet=True)


class Page(HTMLParser):
    """What a browser would make of a page: tags, what it would load, and the text of each cell."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.alts: list[str] = []
        self.texts: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in {"src", "href", "srcset", "action"}]
        self.alts += [value or "" for name, value in attrs if name == "alt"]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def table(rows: Sequence[tuple[str, str, float, float, float, str]]) -> pd.DataFrame:
    columns = ["case_id", "structure", "predicted_dsc", "lower", "upper", "reason"]
    return pd.DataFrame(rows, columns=columns).assign(n_slices=3)


def overlay(**changes: object) -> Overlay:
    fields = {"png": b"\x89PNG", "case_id": "a", "structure": "liver", "predicted": 0.42}
    return Overlay(**{**fields, "lower": 0.3, "upper": 0.55, **changes})  # type: ignore[arg-type]


ROWS = [
    ("a", "liver", 0.42, 0.3, 0.55, ""),
    ("b", "liver", 0.91, math.nan, math.nan, "not calibrated for this structure"),
    ("a", "spleen", math.nan, math.nan, math.nan, "empty mask"),
    ("b", "spleen", math.nan, math.nan, math.nan, "b.nii.gz cannot be read"),
]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Page]:
    def make(**changes: object) -> Page:
        path = tmp_path / "scores.html"
        fields = {"title": "Audit", "about": {"layout": "nnunet"}, "table": table(ROWS), "overlays": []}
        write_page(path, **{**fields, "groups": [], "level": 0.8, **changes})  # type: ignore[arg-type]
        return Page(path)

    return make


def comparison(p: float, name: str = "F") -> GroupComparison:
    groups = (
        Group(name=name, cases=7, mean=0.8, median=0.812),
        Group(name="M", cases=6, mean=0.7, median=0.7),
    )
    return GroupComparison(
        column="sex", structure="liver", groups=groups, test="Mann-Whitney U", p=p, left_out=2
    )


class TestPage:
    def test_nothing_is_loaded_from_elsewhere(self, write: Callable[..., Page]) -> None:
        page = write(overlays=[overlay()], groups=[[comparison(0.01)]])
        assert len(page.loads) == 2, "the overlay and the chart"
        assert all(load.startswith("data:image/png;base64,") for load in page.loads)
        assert not {"link", "iframe", "object", "embed", "base"} & set(page.tags)
        assert not re.search(r"https?://|url\(|@import|import\(|fetch\(|XMLHttpRequest", page.source)

    def test_names_are_text_wherever_they_stand(self, write: Callable[..., Page]) -> None:
        rows = [(EVIL, EVIL, 0.5, 0.4, 0.6, EVIL), ("a", "liver", math.nan, math.nan, math.nan, EVIL)]
        page = write(
            title=EVIL,
            about={EVIL: EVIL},
            table=table(rows),
            overlays=[overlay(case_id=EVIL, structure=EVIL)],
            groups=[[comparison(0.01, EVIL)]],
        )
        assert page.tags.count("script") == 1, "the page's own"
        assert "<script>alert" not in page.source
        assert f"{EVIL} of {EVIL}" in page.alts
        assert page.texts.count(EVIL) == 10

    def test_overlays(self, write: Callable[..., Page]) -> None:
        page = write(overlays=[overlay(), overlay(case_id="b", lower=math.nan, upper=math.nan)])
        assert page.alts[:2] == ["liver of a", "liver of b"]
        assert base64.b64decode(page.loads[0].partition(",")[2]) == b"\x89PNG"
        assert page.texts.count("0.42") == 2
        assert page.texts.count("0.30 to 0.55") == 1
        assert not any("nan" in text for text in page.texts)

    def test_numbers_of_masks(self, write: Callable[..., Page]) -> None:
        texts = write().texts
        for name, count in {"masks scored": 2, "empty": 1, "could not be scored": 1, "below 0.7": 1}.items():
            assert texts[texts.index(name) - 1] == str(count)

    def test_rows(self, write: Callable[..., Page]) -> None:
        source = write().source
        assert (
            "<tr><td>a</td><td>liver</td><td class=n>0.420</td><td class=n>0.300</td><td class=n>0.550</td>"
            "<td class=n>3</td><td class=why></td></tr>"
        ) in source
        assert (
            "<tr><td>a</td><td>spleen</td><td class=n></td><td class=n></td><td class=n></td>"
            "<td class=n>3</td><td class=why>empty mask</td></tr>"
        ) in source
        assert source.index("<td>b</td><td>liver") < source.index("<td>a</td><td>spleen")

    def test_a_long_table_is_cut(self, write: Callable[..., Page], monkeypatch: pytest.MonkeyPatch) -> None:
        assert "all are in" not in write().source
        monkeypatch.setattr(audit_page, "ROWS", 3)
        source = write().source
        assert "The first 3 of 4; all are in scores.csv." in source
        assert "cannot be read" not in source

    def test_what_bounds_mean_depends_on_whether_there_are_any(self, write: Callable[..., Page]) -> None:
        assert "Bounds, which 1 of 2 masks have, should hold the true DSC of 80% of masks" in write().source
        source = write(table=table(ROWS[1:])).source
        assert "Bounds" not in source
        assert "not calibrated for these structures" in source

    def test_no_score_at_all(self, write: Callable[..., Page]) -> None:
        page = write(table=table(ROWS[2:]))
        assert page.loads == []
        assert page.texts[page.texts.index("masks scored") - 1] == "0"

    def test_groups(self, write: Callable[..., Page]) -> None:
        page = write(groups=[[comparison(0.0123)], [comparison(math.nan)], []])
        assert page.texts.count("By sex") == 2
        assert "F: 0.812 <small>(7 cases)</small>; M: 0.700 <small>(6 cases)</small>" in page.source
        assert "<td class=n>0.0123</td><td>Mann-Whitney U</td><td class=n>2</td>" in page.source
        assert "<td class=n>-</td>" in page.source

    def test_more_structures_than_the_chart_shows(self, write: Callable[..., Page]) -> None:
        rows = [("a", f"structure {number}", 0.5, 0.4, 0.6, "") for number in range(40)]
        page = write(table=table(rows))
        assert len(page.loads) == 1
        assert page.source.count("<td>structure") == 40


def picture_of(image: Volume, mask: np.ndarray) -> np.ndarray:
    return images.imread(io.BytesIO(draw_overlay(image, mask)))[..., :3]


def drawn(image: Volume, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the outline in the picture, from 0 to 1."""
    picture = picture_of(image, mask)
    orange = np.abs(picture - np.array([255, 159, 28]) / 255).max(axis=2) < 0.1
    rows, columns = np.nonzero(orange)
    return rows / picture.shape[0], columns / picture.shape[1]


class TestOverlay:
    @pytest.fixture
    def image(self, affine: np.ndarray, make_image: Callable[[int], np.ndarray]) -> Volume:
        return Volume(array=make_image(0), affine=affine)

    def test_right_is_on_the_left_and_anterior_on_top(self, image: Volume) -> None:
        """x runs to the left and y to anterior: low columns are right, high rows anterior."""
        mask = np.zeros(SHAPE, dtype=bool)
        mask[3, 8:11, 1:6] = True
        rows, columns = drawn(image, mask)
        assert len(rows) > 20
        assert rows.max() < 0.5
        assert columns.max() < 0.5

    def test_the_outline_lies_on_what_the_mask_covers(self, image: Volume) -> None:
        mask = np.zeros(SHAPE, dtype=bool)
        mask[3, 8:11, 1:6] = True
        bright = np.where(mask, np.float32(200.0), np.float32(0.0))
        picture = picture_of(Volume(array=bright, affine=image.affine), mask)
        white_rows, white_columns = np.nonzero((picture > 0.99).all(axis=2))
        rows, columns = drawn(Volume(array=bright, affine=image.affine), mask)
        height, width = picture.shape[:2]
        assert white_rows.mean() / height == pytest.approx(rows.mean(), abs=0.03)
        assert white_columns.mean() / width == pytest.approx(columns.mean(), abs=0.03)

    def test_the_largest_slice_is_shown(self, image: Volume) -> None:
        mask = np.zeros(SHAPE, dtype=bool)
        mask[2, 1:4, 1:4] = True
        mask[6, 5:11, 2:14] = True
        largest = mask.copy()
        largest[2] = False
        assert draw_overlay(image, mask) == draw_overlay(image, largest)

    def test_a_mask_that_fills_its_image_has_an_outline(self, image: Volume) -> None:
        rows, columns = drawn(image, np.ones(SHAPE, dtype=bool))
        assert rows.min() < 0.02
        assert rows.max() > 0.98
        assert columns.max() - columns.min() > 0.6, "8 mm of 12"

    def test_one_voxel(self, image: Volume) -> None:
        mask = np.zeros(SHAPE, dtype=bool)
        mask[4, 0, 15] = True
        rows, columns = drawn(image, mask)
        assert rows.min() > 0.85, "posterior"
        assert columns.min() > 0.7, "left"

    def test_an_image_of_one_row(self, image: Volume) -> None:
        thin = Volume(array=image.array[:, :1], affine=image.affine)
        mask = np.zeros(thin.array.shape, dtype=bool)
        mask[4, 0, 5:9] = True
        assert len(drawn(thin, mask)[0]) > 0


class TestOfAnAudit:
    @pytest.fixture(autouse=True)
    def scored(self, without_prefect: list[list[str]]) -> list[list[str]]:
        return without_prefect

    def test_pictures_of_the_worst(self, audit_options: Callable[..., AuditOptions]) -> None:
        options = audit_options()
        worst = audit.run_audit(options, QUIET).head(2)
        page = Page(options.out.with_suffix(".html"))
        shown = [f"{s} of {c}" for c, s in zip(worst["case_id"], worst["structure"], strict=True)]
        assert page.alts == [*shown, "distribution"]
        assert "Audit of Tiny" in page.texts

    def test_a_picture_that_cannot_be_drawn_is_left_out(
        self, audit_options: Callable[..., AuditOptions], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        options, score = audit_options(worst=10), audit._score_chunk

        def lose(cases: Sequence[MaskCase], sentinel: Sentinel, report: Report) -> list[Audited]:
            rows = score(cases, sentinel, report)
            if cases[0].case_id == "case_02":
                cases[0].image.unlink()
            return rows

        monkeypatch.setattr(audit, "_score_chunk", lose)
        assert audit.run_audit(options, QUIET)["predicted_dsc"].notna().all()
        alts = Page(options.out.with_suffix(".html")).alts
        assert len(alts) == 9
        assert not any("case_02" in alt for alt in alts)

    def test_groups_of_the_metadata(self, audit_options: Callable[..., AuditOptions], tmp_path: Path) -> None:
        path = tmp_path / "meta.csv"
        path.write_text("case_id;Sex;weight\n" + "".join(f"case_{i:02d};F;{50 + i}\n" for i in range(4)))
        options = audit_options(metadata=path)
        audit.run_audit(options, QUIET)
        page = Page(options.out.with_suffix(".html"))
        assert "By Sex" in page.texts
        assert page.source.count("<small>(4 cases)</small>") == 3, "overall, liver and spleen"
        assert "By weight" not in page.texts
        options = audit_options(metadata=path, group_by=("weight", "weight"))
        audit.run_audit(options, QUIET)
        texts = Page(options.out.with_suffix(".html")).texts
        assert (texts.count("By weight"), texts.count("By Sex")) == (1, 0)
