import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cohort.errors import CampaignError, DataError
from cohort.ledger import Ledger
from flows.comparison_config import Comparison
from flows.comparison_tables import arm_runs, read_groups, read_tables, write_tables

Make = Callable[..., Comparison]
Write = Callable[..., None]


def test_a_row_an_observation(measured: Comparison) -> None:
    tables = read_tables(measured.units)
    assert len(tables.units) == 6
    assert len(tables.rounds) == 6 * 3
    assert len(tables.results) == 6 * 3 * 3 * 2
    assert len(tables.selections) == 6 * 2 * 2
    assert len(tables.trials) == 4 * 2, "the control has no estimator"
    first = tables.results.iloc[0].to_dict()
    assert first == {
        "arm": "random",
        "seed": 0,
        "round": 0,
        "case_id": "held_0",
        "structure": "liver",
        "dsc": pytest.approx(0.6),
        "nsd": 0.5,
    }


def test_arrays_agree_with_the_ledgers(measured: Comparison) -> None:
    tables = read_tables(measured.units)
    runs = arm_runs(tables, measured.config.arms)
    assert list(runs) == ["random", "quality", "oracle-worst"]
    for arm, found in runs.items():
        rounds = tables.rounds[tables.rounds["arm"] == arm]
        expected = rounds.pivot(index="seed", columns="round", values="dsc").to_numpy()
        np.testing.assert_allclose(found.curves(), expected)
        np.testing.assert_allclose(found.spent["cases"], [[2.0, 4.0, 6.0]] * 2)
        np.testing.assert_allclose(found.spent["structures"], [[4.0, 8.0, 12.0]] * 2)


def test_what_is_not_finished_is_listed_and_left_out(make_comparison: Make, write_measured: Write) -> None:
    comparison = make_comparison()
    for unit in comparison.units[:-1]:
        write_measured(unit, finished=unit.name != "quality-seed1")
    tables = read_tables(comparison.units)
    states = dict(zip(tables.units["campaign"], tables.units["state"], strict=True))
    assert states["quality-seed1"] == "interrupted"
    assert states["oracle-worst-seed1"] == "not started"
    assert arm_runs(tables, comparison.config.arms)["quality"].seeds == (0,)


def test_nothing_finished_is_no_error(make_comparison: Make) -> None:
    tables = read_tables(make_comparison().units)
    assert arm_runs(tables, ["random"]) == {}
    assert set(tables.units["state"]) == {"not started"}


@pytest.mark.parametrize(
    ("key", "value"), [("dataset_sha256", "e" * 64), ("held_out", ["held_0"]), ("start", ["s0", "s2"])]
)
def test_campaigns_that_are_not_paired_are_refused(
    make_comparison: Make, write_measured: Write, key: str, value: object
) -> None:
    comparison = make_comparison()
    for unit in comparison.units:
        write_measured(unit, {key: value} if unit.name == "quality-seed0" else None)
    with pytest.raises(
        CampaignError, match=f"random-seed0 and quality-seed0 cannot be compared: {key} differs"
    ):
        read_tables(comparison.units)


def test_another_start_for_another_seed_is_right(make_comparison: Make, write_measured: Write) -> None:
    comparison = make_comparison()
    for unit in comparison.units:
        write_measured(unit, {"start": [f"s{unit.seed}"]})
    assert len(read_tables(comparison.units).rounds) == 18


def test_a_lost_table_is_told(measured: Comparison) -> None:
    unit = measured.units[0]
    (unit.folder / "rounds" / "001" / "evaluate-0123456789ab" / "results.csv").unlink()
    with pytest.raises(
        CampaignError, match=r"Round 1 of .*random-seed0 has a result, but its table results.csv"
    ):
        read_tables(measured.units)


def test_a_round_that_fell_back_is_marked(make_comparison: Make, write_measured: Write) -> None:
    comparison = make_comparison(arms={"random": {"set": {"strategy": "random"}}}, primary=None, seeds=[0])
    (unit,) = comparison.units
    write_measured(unit)
    path = unit.folder / "ledger.jsonl"
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    path.unlink()
    for entry in entries:
        payload = {k: v for k, v in entry.items() if k not in ("seq", "previous", "event", "at")}
        if entry["event"] == "selection" and entry["round"] == 1:
            payload |= {"strategy": "quality", "used_strategy": "random"}
        Ledger(path).append(entry["event"], at=entry["at"], **payload)
    chosen = read_tables(comparison.units).selections
    assert chosen["fell_back"].tolist() == [False, False, True, True]
    assert chosen["strategy"].tolist() == ["random"] * 4


class TestGroups:
    def test_cases_keep_their_order(self, tmp_path: Path) -> None:
        path = tmp_path / "groups.csv"
        path.write_text(
            "case_id,group,artefact\nb,degraded,noise\na,as acquired,\nc,degraded,motion\nz,other,\n"
        )
        found = read_groups(path, ("a", "c", "b", "d"))
        assert found == {"as acquired": ("a",), "degraded": ("c", "b"), "not named": ("d",)}

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("case_id,artefact\na,noise\n", "has no column group"),
            ("case_id,group\na,x\na,y\n", "names cases twice: a"),
            ("", "cannot be read"),
        ],
    )
    def test_mistakes(self, tmp_path: Path, text: str, message: str) -> None:
        path = tmp_path / "groups.csv"
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            read_groups(path, ("a",))

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"nowhere.csv cannot be read"):
            read_groups(tmp_path / "nowhere.csv", ("a",))


def test_files_hold_the_same_in_both_forms(measured: Comparison, tmp_path: Path) -> None:
    tables = read_tables(measured.units)
    write_tables(tmp_path, {"results": tables.results})
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "results.parquet"), tables.results)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "results.csv"), tables.results)
