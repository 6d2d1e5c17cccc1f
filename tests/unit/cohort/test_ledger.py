import hashlib
import json
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cohort.errors import CampaignError
from cohort.ledger import Ledger

AT = "2024-01-02T03:04:05Z"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "campaign" / "ledger.jsonl"


@pytest.fixture
def three(path: Path) -> Ledger:
    ledger = Ledger(path)
    for number in range(3):
        ledger.append("selection", at=AT, round=number, selected=["a", "b"])
    return ledger


def test_a_ledger_without_a_file_is_empty(path: Path) -> None:
    assert Ledger(path).entries() == ()
    assert not path.exists()


def test_entries_come_back_as_they_were_returned(path: Path) -> None:
    ledger = Ledger(path)
    first = ledger.append("started", at=AT, config="é\n\r\u2028", seeds=(1, 2), nothing=None)
    second = ledger.append("result", at="later", dsc={"liver": 0.5})
    assert ledger.entries() == Ledger(path).entries() == (first, second)
    assert (first.seq, first.event, first.at) == (0, "started", AT)
    assert first.payload == {"config": "é\n\r\u2028", "seeds": [1, 2], "nothing": None}
    assert (second.seq, second.payload["dsc"]) == (1, {"liver": 0.5})


def test_a_dsc_that_is_not_defined_stays_so(path: Path) -> None:
    Ledger(path).append("result", at=AT, dsc=math.nan)
    assert math.isnan(Ledger(path).entries()[0].payload["dsc"])


def test_each_line_holds_the_hash_of_the_one_before(three: Ledger) -> None:
    lines = three.path.read_bytes().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["seq"] for record in records] == [0, 1, 2]
    assert records[0]["previous"] == "0" * 64
    assert records[2]["previous"] == hashlib.sha256(lines[1]).hexdigest()


def test_a_second_ledger_goes_on_where_the_first_stopped(three: Ledger) -> None:
    other = Ledger(three.path)
    other.append("x", at=AT)
    three.append("y", at=AT)
    assert [entry.event for entry in other.entries()] == ["selection"] * 3 + ["x", "y"]


@pytest.mark.parametrize("kept", [1, 20, -1])
def test_a_torn_last_line_is_ignored_and_then_cut_off(three: Ledger, kept: int) -> None:
    data = three.path.read_bytes()
    start = data[:-1].rfind(b"\n") + 1
    three.path.write_bytes(data[: start + kept] if kept > 0 else data[:kept])
    ledger = Ledger(three.path)
    assert [entry.payload["round"] for entry in ledger.entries()] == [0, 1]
    assert len(three.entries()) == 2, "a ledger that was open before sees it too"
    ledger.append("selection", at=AT, round=2, selected=["a", "b"])
    assert three.path.read_bytes() == data


@pytest.mark.parametrize("number", [1, 2])
def test_an_edited_line_is_noticed(three: Ledger, number: int) -> None:
    lines = three.path.read_bytes().splitlines(keepends=True)
    lines[number - 1] = lines[number - 1].replace(b'"a"', b'"z"')
    three.path.write_bytes(b"".join(lines))
    message = f"Line {number + 1} of the ledger .*ledger.jsonl does not follow"
    with pytest.raises(CampaignError, match=message):
        Ledger(three.path).entries()
    with pytest.raises(CampaignError, match=message):
        Ledger(three.path).append("x", at=AT)


@pytest.mark.parametrize("order", [(1, 0, 2), (0, 2), (1, 2), (0, 0, 1, 2)])
def test_lines_that_were_moved_removed_or_added_are_noticed(three: Ledger, order: tuple[int, ...]) -> None:
    lines = three.path.read_bytes().splitlines(keepends=True)
    three.path.write_bytes(b"".join(lines[i] for i in order))
    with pytest.raises(CampaignError, match="does not follow from the line before it"):
        Ledger(three.path).entries()


@pytest.mark.parametrize("line", [b"{}\n", b"[1]\n", b"\n", b'{"seq": 1,\n', b"\x00\xff\n"])
def test_a_broken_line_is_named(three: Ledger, line: bytes) -> None:
    lines = three.path.read_bytes().splitlines(keepends=True)
    three.path.write_bytes(lines[0] + line + b"".join(lines[1:]))
    with pytest.raises(CampaignError, match=r"Line 2 of the ledger .* is broken"):
        Ledger(three.path).entries()
    three.path.write_bytes(lines[0] + line)
    with pytest.raises(CampaignError, match=r"Line 2 of the ledger .* is broken"):
        Ledger(three.path).entries()


@pytest.mark.parametrize("name", ["seq", "previous"])
def test_a_field_of_the_ledger_itself_cannot_be_set(path: Path, name: str) -> None:
    with pytest.raises(CampaignError, match=f"'x' has a field '{name}'"):
        Ledger(path).append("x", at=AT, **{name: 3})
    assert not path.exists()


def test_a_payload_that_is_no_json_leaves_the_file_alone(three: Ledger) -> None:
    before = three.path.read_bytes()
    with pytest.raises(CampaignError, match=r"'x' cannot be written .* as JSON"):
        three.append("x", at=AT, path=Path("a"))
    assert three.path.read_bytes() == before
    three.append("y", at=AT)


def test_a_full_disk_leaves_no_half_line(three: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    before = three.path.read_bytes()
    write = os.write
    monkeypatch.setattr("cohort.ledger.os.write", lambda fd, data: write(fd, data[:10]))
    with pytest.raises(CampaignError, match=r"ledger\.jsonl cannot be written: only 10 of"):
        three.append("x", at=AT)
    assert three.path.read_bytes() == before


def test_a_folder_in_its_place_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CampaignError, match="cannot be read"):
        Ledger(tmp_path).entries()


def test_threads_share_a_ledger(path: Path) -> None:
    ledger = Ledger(path)
    with ThreadPoolExecutor(8) as executor:
        list(executor.map(lambda n: ledger.append("x", at=AT, n=n), range(40)))
    assert sorted(entry.payload["n"] for entry in Ledger(path).entries()) == list(range(40))


def test_a_process_killed_while_it_appends_leaves_a_ledger_that_goes_on(path: Path) -> None:
    code = (
        "import os, sys, itertools; from pathlib import Path; from cohort.ledger import Ledger\n"
        "ledger = Ledger(Path(sys.argv[1]))\n"
        "for n in itertools.count():\n"
        "    ledger.append('x', at='now', n=n, text='y' * 5000)\n"
        "    if n == 3: print('ready', flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
    ledger = Ledger(path)
    numbers = [entry.payload["n"] for entry in ledger.entries()]
    assert len(numbers) >= 4
    assert numbers == list(range(len(numbers)))
    ledger.append("y", at=AT)
    assert len(Ledger(path).entries()) == len(numbers) + 1
