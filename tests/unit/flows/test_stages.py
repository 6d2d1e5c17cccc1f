import json
import logging
from collections.abc import Mapping
from pathlib import Path

import pytest

from flows.stages import (
    content_sha256,
    file_sha256,
    is_whole,
    json_sha256,
    read_json,
    run_stage,
    share,
    stage_sha256,
    write_json,
)


class Counted:
    """A stage that writes two files and counts how often it ran."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, folder: Path) -> None:
        self.runs += 1
        (folder / "deep").mkdir(exist_ok=True)
        (folder / "mask.txt").write_text("liver")
        (folder / "deep" / "score.txt").write_text("0.9")


@pytest.fixture
def make() -> Counted:
    return Counted()


def run(parent: Path, make: Counted, inputs: Mapping[str, object] | None = None) -> Path:
    return run_stage(parent, "segment", {"seed": 1} if inputs is None else inputs, make)


def test_a_finished_stage_is_not_run_again(tmp_path: Path, make: Counted) -> None:
    first = run(tmp_path, make)
    assert (first / "mask.txt").read_text() == "liver"
    assert run(tmp_path, make) == first
    assert make.runs == 1


def test_the_folder_is_named_after_the_inputs_whatever_their_order(tmp_path: Path, make: Counted) -> None:
    one = run(tmp_path, make, {"a": 1, "b": [2, 3]})
    assert one.name.startswith("segment-")
    assert run(tmp_path, make, {"b": [2, 3], "a": 1}) == one
    assert make.runs == 1


def test_other_inputs_are_another_stage(tmp_path: Path, make: Counted) -> None:
    one, other = run(tmp_path, make, {"seed": 1}), run(tmp_path, make, {"seed": 2})
    assert one != other
    assert make.runs == 2
    assert is_whole(one)


@pytest.mark.parametrize("name", ["mask.txt", "deep/score.txt"])
@pytest.mark.parametrize("harm", ["damaged", "missing"])
def test_harm_to_any_file_makes_the_stage_run_again(
    tmp_path: Path, make: Counted, caplog: pytest.LogCaptureFixture, name: str, harm: str
) -> None:
    folder = run(tmp_path, make)
    if harm == "damaged":
        (folder / name).write_text("Liver")
    else:
        (folder / name).unlink()
    assert not is_whole(folder)
    with caplog.at_level(logging.WARNING, logger="flows.stages"):
        assert run(tmp_path, make) == folder
    assert "is damaged; the stage runs again" in caplog.text
    assert make.runs == 2
    assert is_whole(folder)
    assert (folder / "mask.txt").read_text() == "liver"


def test_a_folder_without_a_manifest_was_not_finished(tmp_path: Path, make: Counted) -> None:
    folder = run(tmp_path, make)
    (folder / "stage.json").unlink()
    assert run(tmp_path, make) == folder
    assert make.runs == 2


def test_nothing_is_visible_when_the_stage_fails_half_way(tmp_path: Path, make: Counted) -> None:
    def fail(folder: Path) -> None:
        (folder / "half.txt").write_text("half")
        raise RuntimeError("the lamp went out")

    with pytest.raises(RuntimeError, match="the lamp went out"):
        run_stage(tmp_path, "segment", {"seed": 1}, fail)
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == []

    folder = run(tmp_path, make)
    assert make.runs == 1
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_a_stage_goes_on_from_what_a_killed_one_left(tmp_path: Path) -> None:
    def first_half(folder: Path) -> None:
        (folder / "case_0.txt").write_text("0")
        raise KeyboardInterrupt

    def second_half(folder: Path) -> None:
        assert (folder / "case_0.txt").read_text() == "0"
        (folder / "case_1.txt").write_text("1")

    with pytest.raises(KeyboardInterrupt):
        run_stage(tmp_path, "segment", {}, first_half)
    folder = run_stage(tmp_path, "segment", {}, second_half)
    assert read_json(folder / "stage.json")["files"].keys() == {"case_0.txt", "case_1.txt"}


def test_the_manifest_says_what_went_in_and_what_came_out(tmp_path: Path, make: Counted) -> None:
    manifest = read_json(run(tmp_path, make, {"seed": 1, "images": {"case_00": "abc"}}) / "stage.json")
    assert manifest["stage"] == "segment"
    assert manifest["inputs"] == {"seed": 1, "images": {"case_00": "abc"}}
    # printf liver | sha256sum
    known = "ebaf48a9725795ea8b3a5e458be64fd1be59d9e8"
    assert manifest["files"]["mask.txt"][:40] == known
    assert manifest["seconds"] >= 0


def test_the_hash_of_a_stage_is_that_of_its_files(tmp_path: Path, make: Counted) -> None:
    one, other = run(tmp_path, make, {"seed": 1}), run(tmp_path, make, {"seed": 2})
    assert stage_sha256(one) == stage_sha256(other)
    different = run_stage(tmp_path, "segment", {"seed": 3}, lambda folder: write_json(folder / "x.json", 1))
    assert stage_sha256(different) != stage_sha256(one)


def test_what_a_killed_run_was_writing_is_no_output(tmp_path: Path, make: Counted) -> None:
    def killed(folder: Path) -> None:
        (folder / ".mask.nii.gz.123.tmp").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stage(tmp_path, "segment", {"seed": 1}, killed)
    folder = run(tmp_path, make)
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == {
        "mask.txt",
        "deep/score.txt",
        "stage.json",
    }


def test_json_is_written_as_it_is_read(tmp_path: Path) -> None:
    value = {"b": [1, 2.5, None], "a": {"ä": "ö"}}
    write_json(tmp_path / "value.json", value)
    assert read_json(tmp_path / "value.json") == value
    assert json_sha256(value) == json_sha256(json.loads(json.dumps(value, sort_keys=True)))


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    known = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert file_sha256(tmp_path / "empty") == known


@pytest.mark.parametrize("text", ["", "{", "[]", '{"stage": "segment"}', '{"files": 3}'])
def test_a_damaged_manifest_makes_the_stage_run_again(tmp_path: Path, make: Counted, text: str) -> None:
    folder = run(tmp_path, make)
    (folder / "stage.json").write_text(text)
    assert not is_whole(folder)
    assert run(tmp_path, make) == folder
    assert make.runs == 2


def test_what_lies_in_a_folder_counts_and_not_where_it_lies(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "configs").mkdir(parents=True)
        (tmp_path / name / "configs" / "a.json").write_text("{}")
    before = content_sha256(tmp_path / "one")
    assert content_sha256(tmp_path / "two") == before
    (tmp_path / "one" / "__pycache__").mkdir()
    (tmp_path / "one" / "__pycache__" / "a.pyc").write_bytes(b"compiled")
    assert content_sha256(tmp_path / "one") == before
    (tmp_path / "one" / ".git").mkdir()
    (tmp_path / "one" / ".git" / "index").write_bytes(b"fetched")
    assert content_sha256(tmp_path / "one") == before
    (tmp_path / "one" / "configs" / "a.json").write_text("[]")
    assert content_sha256(tmp_path / "one") != before
    assert content_sha256(tmp_path / "nowhere") == ""


class TestSharing:
    """A stage that is finished in another folder is taken from there."""

    def test_it_is_linked_and_not_run(self, tmp_path: Path, make: Counted) -> None:
        theirs = run(tmp_path / "theirs", make)
        share(tmp_path / "ours", [tmp_path / "nobody", tmp_path / "theirs"])
        ours = run(tmp_path / "ours", make)
        assert make.runs == 1
        assert is_whole(ours)
        assert stage_sha256(ours) == stage_sha256(theirs)
        assert (ours / "deep" / "score.txt").samefile(theirs / "deep" / "score.txt")
        assert sorted(path.name for path in (tmp_path / "ours").iterdir()) == [".shared.json", ours.name]

    def test_it_is_copied_where_links_do_not_work(
        self, tmp_path: Path, make: Counted, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(source: Path, target: Path) -> None:
            raise OSError("no links on this disk")

        theirs = run(tmp_path / "theirs", make)
        share(tmp_path / "ours", [tmp_path / "theirs"])
        monkeypatch.setattr("flows.stages.os.link", refuse)
        ours = run(tmp_path / "ours", make)
        assert make.runs == 1
        assert (ours / "mask.txt").read_text() == "liver"
        assert not (ours / "mask.txt").samefile(theirs / "mask.txt")

    def test_other_inputs_or_damage_are_not_taken(self, tmp_path: Path, make: Counted) -> None:
        theirs = run(tmp_path / "theirs", make)
        share(tmp_path / "ours", [tmp_path / "theirs"])
        run(tmp_path / "ours", make, {"seed": 2})
        assert make.runs == 2
        (theirs / "mask.txt").write_text("spleen")
        assert (run(tmp_path / "ours", make) / "mask.txt").read_text() == "liver"
        assert make.runs == 3

    def test_a_half_taken_or_half_made_stage_is_replaced(self, tmp_path: Path, make: Counted) -> None:
        theirs = run(tmp_path / "theirs", make)
        ours = tmp_path / "ours"
        share(ours, [tmp_path / "theirs"])
        for left in (f".{theirs.name}.taken", f".{theirs.name}.partial"):
            (ours / left).mkdir()
            (ours / left / "mask.txt").write_text("half")
        assert (run(ours, make) / "mask.txt").read_text() == "liver"
        assert make.runs == 1
        assert sorted(path.name for path in ours.iterdir()) == [".shared.json", theirs.name]
