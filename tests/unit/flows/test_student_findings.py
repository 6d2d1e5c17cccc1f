import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flows.comparison_config import ComparisonConfig
from flows.comparison_declaration import Declaration
from flows.comparison_tables import Tables
from flows.student_findings import LABELLED_ONLY, find_students, student_metrics, student_tables
from flows.student_page import StudentPage

ARMS = {"random": {}, "quality": {}, "oracle": {"seeds": [0]}}
GAINS = {"random": 0.01, "quality": 0.03, "oracle": 0.05}
"""What the student of each arm adds to the teacher's DSC; NSD gains twice as much."""


FIRST = Declaration(at="2026-01-01T00:00:00+00:00", begun=0, changed={})


@pytest.fixture
def config() -> ComparisonConfig:
    return ComparisonConfig.model_validate(
        {
            "name": "students",
            "semi_supervised": "semi.yaml",
            "seeds": [0, 1],
            "primary": {"arm": "quality", "against": "random"},
            "arms": ARMS,
        }
    )


def tables(seeds: dict[str, list[int]]) -> Tables:
    """Teacher and student of each arm on three held-out cases, one of which lacks the spleen."""
    results, rounds, units, filters = [], [], [], []
    for arm, own in seeds.items():
        for seed in own:
            units.append(
                {"arm": arm, "seed": seed, "campaign": f"{arm}-seed{seed}", "state": "finished"}
                | {
                    "reads_references": arm == "oracle",
                    "rounds": 2,
                    "planned": 2,
                    "ended": "all rounds are done",
                    "changed": "",
                    "round_zero_sha256": f"z{seed}",
                    "code_version": "1",
                    "config_sha256": "c",
                }
            )
            for number in range(2):
                gain = GAINS[arm] * number
                spent = dict.fromkeys(("structures", "slices", "foreground_voxels", "minutes"), 8.0)
                rounds.append({"arm": arm, "seed": seed, "round": number, "cases": 4.0, **spent})
                results += [
                    {"arm": arm, "seed": seed, "round": number, "case_id": f"h{place}", "structure": name}
                    | {"dsc": np.nan if (place, name) == (2, "spleen") else 0.6 + 0.1 * seed + gain}
                    | {"nsd": 0.5 + 2.0 * gain}
                    for place in range(3)
                    for name in ("liver", "spleen")
                ]
            filters.append(
                {"arm": arm, "seed": seed, "round": 0, "kept_fraction": 0.5, "dsc": 0.7, "dsc_kept": 0.8}
                | {"kept_cases": 3.0}
                | {"good": 0.4, "precision": 0.6, "recall": None}
            )
    empty = pd.DataFrame(columns=["arm", "seed"])
    return Tables(
        units=pd.DataFrame(units),
        rounds=pd.DataFrame(rounds),
        results=pd.DataFrame(results),
        selections=empty,
        trials=empty,
        filters=pd.DataFrame(filters, columns=None if filters else ["arm", "seed"]),
    )


@pytest.fixture
def finished() -> Tables:
    return tables({"random": [0, 1], "quality": [0, 1], "oracle": [0]})


def test_gains_by_hand(config: ComparisonConfig, finished: Tables) -> None:
    found = find_students(config, finished)
    assert list(found.runs) == [LABELLED_ONLY, "random", "quality", "oracle"]
    dsc, nsd = found.primary
    assert (dsc.measure, dsc.n, dsc.difference) == ("final", 2, pytest.approx(0.02))
    assert (nsd.measure, nsd.n, nsd.difference) == ("final_nsd", 2, pytest.approx(0.04))
    assert [(each.arm, each.measure, each.n) for each in found.secondary] == [
        ("oracle", "final", 1),
        ("oracle", "final_nsd", 1),
    ]
    gains = {(each.arm, each.measure): each.difference for each in found.gains}
    assert gains["random", "final"] == pytest.approx(0.01)
    assert gains["quality", "final"] == pytest.approx(0.03)
    assert gains["oracle", "final_nsd"] == pytest.approx(0.10)
    assert found.shares_of_gain == {
        "random": pytest.approx(1.0),
        "quality": pytest.approx(3.0),
    }, "the control's gain on the one seed of the oracle has no interval"


def test_the_teacher_is_the_controls(config: ComparisonConfig, finished: Tables) -> None:
    teacher = find_students(config, finished).summaries[0]
    assert (teacher.arm, teacher.n, teacher.dsc) == (LABELLED_ONLY, 2, pytest.approx(0.65))
    assert teacher.dsc_sd == pytest.approx(np.std([0.6, 0.7], ddof=1))


def test_a_control_that_gains_nothing_is_no_measure(
    config: ComparisonConfig, finished: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(GAINS, "random", -0.01)
    assert find_students(config, tables({"random": [0], "quality": [0]})).shares_of_gain == {}


def test_without_the_control_there_is_no_contrast(config: ComparisonConfig) -> None:
    found = find_students(config, tables({"quality": [0]}))
    assert list(found.runs) == ["quality"]
    assert (found.primary, found.secondary, found.gains, found.shares_of_gain) == ((), (), (), {})


def test_tables_and_metrics(config: ComparisonConfig, finished: Tables) -> None:
    found = find_students(config, finished)
    written = student_tables(found)
    assert written["contrasts"]["declared"].tolist() == ["primary"] * 2 + ["secondary"] * 2 + ["gain"] * 6
    assert written["arms"]["share_of_gain"].isna().tolist() == [True, False, False, True]
    assert student_metrics(found)["quality/dsc"] == pytest.approx(0.68)


def test_the_page(config: ComparisonConfig, finished: Tables, tmp_path: Path) -> None:
    found = find_students(config, finished)
    StudentPage(config=config, tables=finished, findings=found, about={}, declaration=FIRST).write(
        tmp_path / "report.html"
    )
    html = (tmp_path / "report.html").read_text()
    assert re.findall(r"<h2>(.*?)</h2>", html) == [
        "Declared before any run: quality against random",
        "Arms",
        "What the pseudo-labels added: against labelled only",
        "Secondary contrasts with random",
        "DSC of each structure",
        "What the filters kept",
        "What made this page",
    ]
    text = " ".join(re.sub(r"<[^>]*>", " ", re.sub(r"<img[^>]*>", "", html)).split())
    assert "quality final DSC 2 +0.0200" in text
    assert "oracle: reads references" in text
    assert "quality 2 0.6800 ± 0.0707" in text
    assert "3.00 times" in text


def test_a_page_of_nothing(config: ComparisonConfig, tmp_path: Path) -> None:
    none = tables({})
    none.units[["state", "campaign", "arm", "seed", "reads_references", "rounds"]] = None
    none.units[["code_version", "config_sha256", "planned", "ended", "changed", "round_zero_sha256"]] = None
    found = find_students(config, none)
    StudentPage(config=config, tables=none, findings=found, about={}, declaration=FIRST).write(
        tmp_path / "report.html"
    )
    assert "0 of 0 campaigns are finished" in (tmp_path / "report.html").read_text()
