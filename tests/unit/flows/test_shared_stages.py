from pathlib import Path

import pytest

from flows import stages
from flows.shared_stages import take_over
from flows.stages import is_whole, run_stage


def make(parent: Path, name: str, text: str) -> Path:
    def write(folder: Path) -> None:
        (folder / "deep").mkdir(exist_ok=True)
        (folder / "deep" / "out.txt").write_text(text)

    return run_stage(parent, name, {"text": text}, write)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    make(tmp_path / "source", "train", "a")
    make(tmp_path / "source", "segment-pool", "b")
    make(tmp_path / "source", "score", "c")
    return tmp_path / "source"


def test_finished_stages_are_linked_and_not_run_again(source: Path, tmp_path: Path) -> None:
    taken = take_over(source, tmp_path / "target", ("train-", "segment-"))
    assert [name.rpartition("-")[0] for name in taken] == ["segment-pool", "train"]
    found = make(tmp_path / "target", "train", "a")
    assert (found / "deep" / "out.txt").samefile(source / found.name / "deep" / "out.txt")
    assert is_whole(found)
    assert not list((tmp_path / "target").glob("score-*"))
    assert take_over(source, tmp_path / "target", ("train-", "segment-")) == ()


def test_a_damaged_or_unfinished_stage_is_left_alone(source: Path, tmp_path: Path) -> None:
    (next(source.glob("train-*")) / "deep" / "out.txt").write_text("changed")
    partial = source / ".train-123.partial"
    partial.mkdir()
    assert take_over(source, tmp_path / "target", ("train-",)) == ()


def test_a_folder_that_is_not_there_has_nothing(tmp_path: Path) -> None:
    assert take_over(tmp_path / "nowhere", tmp_path / "target", ("train-",)) == ()


def test_where_links_do_not_work_files_are_copied(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*paths: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(stages.os, "link", refuse)
    (name,) = take_over(source, tmp_path / "target", ("train-",))
    copy = tmp_path / "target" / name / "deep" / "out.txt"
    assert copy.read_text() == "a"
    assert not copy.samefile(source / name / "deep" / "out.txt")
