"""What is refused is refused before any training, and leaves nothing behind."""

import gzip
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from cohort.volume import write_volume
from flows import cli

Make = Callable[..., Path]
Break = Callable[[Path, np.ndarray], None]

SHAPE = (8, 12, 16)
HOLD = """
import sys, filelock
with filelock.FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def no_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever gets as far as the flow fails the test."""
    monkeypatch.setitem(sys.modules, "flows.active_learning", None)


@pytest.fixture
def refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., str]:
    """Start a campaign with the command line, and give the message that refuses it."""

    def start(path: Path, *overrides: str) -> str:
        before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
        folders = {folder for folder in tmp_path.rglob("*") if folder.is_dir()}
        command = ["sentinel-loop", "active-learning", "--quiet", "--config", str(path)]
        monkeypatch.setattr(sys, "argv", [*command, *(f"--set={text}" for text in overrides)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 2

        assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before
        assert {folder for folder in tmp_path.rglob("*") if folder.is_dir()} == folders, "nothing is left"
        shown = capsys.readouterr()
        assert shown.out == ""
        assert "Traceback" not in shown.err
        assert shown.err.startswith("Error: ")
        assert shown.err.count("Error: ") == 1
        return shown.err.removeprefix("Error: ").strip()

    return start


def image(root: Path, number: int) -> Path:
    return root / "imagesTr" / f"case_{number:02d}.nii.gz"


def label(root: Path, number: int) -> Path:
    return root / "labelsTr" / f"case_{number:02d}.nii.gz"


def edit(root: Path, change: Callable[[dict[str, object]], None]) -> None:
    path = root / "dataset.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def entries(document: dict[str, object]) -> list[dict[str, str]]:
    found = document["training"]
    assert isinstance(found, list)
    return found


def ones(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.ones(shape, np.uint8)


def moved(affine: np.ndarray, row: int, column: int, amount: float) -> np.ndarray:
    changed = affine.copy()
    changed[row, column] += amount
    return changed


def spoiled(value: float) -> np.ndarray:
    array = np.zeros(SHAPE, np.float32)
    array[3, 2, 1] = value
    return array


def rename_all(root: Path, name: str) -> None:
    def change(document: dict[str, object]) -> None:
        entries(document)[2]["image"] = name

    edit(root, change)


def repeat(root: Path, affine: np.ndarray) -> None:
    edit(root, lambda document: entries(document).append(entries(document)[1]))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def same_id_elsewhere(root: Path, affine: np.ndarray) -> None:
    write_volume(root / "more" / "case_01.nii.gz", np.zeros(SHAPE, np.float32), affine)
    edit(root, lambda document: entries(document).append({"image": "more/case_01.nii.gz"}))


def with_spaces(root: Path, affine: np.ndarray) -> None:
    image(root, 2).rename(root / "imagesTr" / "case 02.nii.gz")
    rename_all(root, "imagesTr/case 02.nii.gz")


BROKEN: dict[str, tuple[Break, str]] = {
    "missing label": (
        lambda root, affine: label(root, 4).unlink(),
        "1 problem in 9 cases: Case case_04 has no reference label map; add one or leave the case out",
    ),
    "another shape": (
        lambda root, affine: write_volume(label(root, 4), ones((8, 12, 15)), affine),
        r"case_04.nii.gz has shape (8, 12, 15), but its image",
    ),
    "swapped axes": (
        lambda root, affine: write_volume(label(root, 4), ones((16, 12, 8)), affine),
        r"case_04.nii.gz has shape (16, 12, 8), but its image",
    ),
    "moved origin": (
        lambda root, affine: write_volume(label(root, 4), ones(), moved(affine, 0, 3, 5.0)),
        "have different affines (up to 5 mm apart)",
    ),
    "another spacing": (
        lambda root, affine: write_volume(label(root, 4), ones(), moved(affine, 2, 2, 0.5)),
        "have different affines (up to 4 mm apart)",
    ),
    "NaN": (
        lambda root, affine: write_volume(image(root, 4), spoiled(np.nan), affine),
        "case_04.nii.gz has 1 NaN or infinite voxels of 1536",
    ),
    "infinite": (
        lambda root, affine: write_volume(image(root, 4), spoiled(-np.inf), affine),
        "case_04.nii.gz has 1 NaN or infinite voxels of 1536",
    ),
    "undeclared label": (
        lambda root, affine: write_volume(label(root, 4), 7 * ones(), affine),
        "case_04.nii.gz holds the labels 7, which the data set does not declare (declared: 1, 2)",
    ),
    "fractional label": (
        lambda root, affine: write_volume(label(root, 4), ones() * np.float32(1.5), affine),
        "case_04.nii.gz has fractional voxels",
    ),
    "truncated image": (lambda root, affine: truncate(image(root, 4)), "case_04.nii.gz cannot be read"),
    "truncated label": (lambda root, affine: truncate(label(root, 4)), "case_04.nii.gz cannot be read"),
    "truncated inside": (
        lambda root, affine: image(root, 4).write_bytes(
            gzip.compress(gzip.decompress(image(root, 4).read_bytes())[:-100])
        ),
        "case_04.nii.gz cannot be read",
    ),
    "empty file": (lambda root, affine: image(root, 4).write_bytes(b""), "case_04.nii.gz cannot be read"),
    "missing image": (
        lambda root, affine: image(root, 4).unlink(),
        "lists the image {root}/imagesTr/case_04.nii.gz, which does not exist",
    ),
    "duplicate entry": (repeat, "lists the case 'case_01' twice; every case id must be unique"),
    "duplicate id": (same_id_elsewhere, "lists the case 'case_01' twice; every case id must be unique"),
    "path separators": (
        lambda root, affine: rename_all(root, "../case_02.nii.gz"),
        "points to '../case_02.nii.gz', outside the data set",
    ),
    "absolute path": (
        lambda root, affine: rename_all(root, "/etc/passwd"),
        "points to '/etc/passwd', outside the data set",
    ),
    "backslashes": (
        lambda root, affine: rename_all(root, "..\\case_02.nii.gz"),
        "points to '..\\\\case_02.nii.gz', outside the data set",
    ),
    "spaces": (with_spaces, "Case id 'case 02' cannot be used as a file name"),
    "no dataset.json": (
        lambda root, affine: (root / "dataset.json").unlink(),
        "{root}/dataset.json does not exist",
    ),
    "broken dataset.json": (
        lambda root, affine: (root / "dataset.json").write_text("{"),  # type: ignore[arg-type,return-value]
        "{root}/dataset.json",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_data(
    make_decathlon: Make,
    make_campaign_yaml: Make,
    refused: Callable[..., str],
    affine: np.ndarray,
    what: str,
) -> None:
    spoil, message = BROKEN[what]
    root = make_decathlon(9)
    spoil(root, affine)
    assert message.format(root=root) in " ".join(refused(make_campaign_yaml(root)).split())


@pytest.mark.parametrize("what", ["held-out label", "start label"])
def test_labels_that_a_campaign_of_people_needs_too(
    make_decathlon: Make,
    make_campaign_yaml: Make,
    refused: Callable[..., str],
    affine: np.ndarray,
    what: str,
) -> None:
    root = make_decathlon(9, splits={"held_out": ["case_00", "case_01"]})
    for number in (0,) if what == "held-out label" else range(2, 9):
        label(root, number).unlink()
    message = refused(make_campaign_yaml(root), "annotator.kind=folder")
    if what == "held-out label":
        assert "2 cases are to be held out, but only 1 of the data set 'Tiny' can be" in message
    else:
        assert "The start set needs 3 cases, but only 0 of the data set 'Tiny' have a reference" in message


def test_segmentations_of_slicer_need_their_extra(
    make_decathlon: Make,
    make_campaign_yaml: Make,
    refused: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "slicerio", None)
    path = make_campaign_yaml(make_decathlon(9))
    message = refused(path, "annotator.kind=folder", "annotator.format=seg.nrrd")
    assert "pip install 'sentinel-loop[slicer]'" in message


def test_a_partly_annotated_held_out_case_is_sound(
    make_decathlon: Make, make_campaign_yaml: Make, refused: Callable[..., str]
) -> None:
    """Only the case in which nothing was annotated is refused."""
    listed: dict[str, dict[str, str]] = {f"case_{n:02d}": {"liver": "complete"} for n in range(8)}
    root = make_decathlon(9, extra={"annotated_structures": listed})
    message = refused(make_campaign_yaml(root))
    assert "1 problem in 9 cases" in message
    assert "Case case_08 has a reference, but no structure was annotated in it" in message


def test_all_problems_of_all_cases_are_told_together(
    make_decathlon: Make, make_campaign_yaml: Make, refused: Callable[..., str], affine: np.ndarray
) -> None:
    root = make_decathlon(9)
    label(root, 3).unlink()
    write_volume(image(root, 4), spoiled(np.nan), affine)
    truncate(label(root, 5))
    message = refused(make_campaign_yaml(root))
    assert message.startswith("The data set has 3 problems in 9 cases:")
    assert [name in message for name in ("case_03", "case_04", "case_05")] == [True, True, True]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.root=nowhere/at/all"], "The data set's folder nowhere/at/all does not exist"),
        (["budget.per_round=3"], "The budget is larger than the pool"),
        (["rounds=4"], "The budget is larger than the pool"),
        (["data.held_out_cases=9"], "leaves nothing to learn from; hold out fewer"),
        (
            ["data.held_out_cases=null", "data.held_out_fraction=0.01"],
            "leaves nothing to evaluate on; raise the held-out count or fraction",
        ),
        (
            ["data.held_out_cases=null", "data.held_out_fraction=1.0"],
            "data.held_out_fraction: Input should be less than 1",
        ),
        (["start.cases=8"], "The start set needs 8 cases, but only 7"),
        (["start.cases=7"], "The pool is empty"),
        (["segmenter.stepz=3"], "segmenter.stepz: unknown key; remove it or correct its spelling"),
        (["sentinel.foo=3", "bar=1"], "has 2 mistakes"),
        (["seed"], "--set 'seed' is not of the form key=value"),
        (["name=../../up"], "cannot name a folder"),
        (["data={layout: phantom, held_out_cases: 50}"], "A phantom of 40 cases with 50 held out"),
    ],
)
def test_settings_that_cannot_be(
    make_decathlon: Make,
    make_campaign_yaml: Make,
    refused: Callable[..., str],
    overrides: list[str],
    message: str,
) -> None:
    assert message in refused(make_campaign_yaml(make_decathlon(9)), *overrides)


def test_a_config_file_that_is_not_there(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "The config file nowhere.yaml does not exist" in refused(Path("nowhere.yaml"))


def test_a_case_in_two_folders(
    make_folder: Make, make_campaign_yaml: Make, refused: Callable[..., str]
) -> None:
    folders = {
        "labelled": str(make_folder("known", ("a", "b", "c"))),
        "unlabelled": str(make_folder("new", ("c", "d", "e", "f", "g"))),
        "held_out": str(make_folder("test", ("h",))),
        "structures": {"liver": 1, "spleen": 2},
    }
    message = refused(make_campaign_yaml("", {"data": folders}))
    assert message.startswith("Case 'c' is in two folders")


class TestFolderThatIsThere:
    @pytest.fixture
    def begun(self, make_decathlon: Make, make_campaign_yaml: Make) -> Path:
        """A campaign that was started once; gives the path of its YAML."""
        from flows import campaign as campaigns
        from flows.config import load_config

        path = make_campaign_yaml(make_decathlon(9))
        config = load_config(path)
        with campaigns.locked(config.folder):
            campaigns.create_or_open(config).append("start")
        return path

    def test_of_another_config(self, begun: Path, refused: Callable[..., str]) -> None:
        message = refused(begun, "segmenter.steps=4", "seed=5")
        assert "was made with another config (seed: 0 -> 5; segmenter.steps: 3 -> 4)" in message
        assert message.endswith("or give this one another name with --set name=...")

    def test_renamed_it_goes_on_under_its_new_name(self, begun: Path, refused: Callable[..., str]) -> None:
        """And so does a copy, beside the one that it was copied from."""
        from flows import campaign as campaigns
        from flows.config import load_config
        from flows.launch import campaign_config

        folder = load_config(begun).folder
        copied = folder.with_name("copied")
        shutil.copytree(folder, copied)
        config = campaign_config(campaigns.open_campaign(copied))
        assert config.folder == copied
        assert campaigns.changes(config) == []
        moved = folder.rename(folder.parent.parent / "moved")
        config = campaign_config(campaigns.open_campaign(moved))
        assert config.folder == moved
        assert campaigns.changes(config.model_copy(update={"seed": 5})) == ["seed: 0 -> 5"]
        assert refused(begun, "name=moved", f"campaigns_root={moved.parent}", "seed=6").startswith(
            f"The folder {moved} was made with another config (seed: 0 -> 6)"
        )

    def test_of_another_process(self, begun: Path, refused: Callable[..., str], tmp_path: Path) -> None:
        with held(tmp_path / "campaigns" / "tiny" / ".lock"):
            message = refused(begun)
        assert message == (
            f"Another process works in {tmp_path / 'campaigns' / 'tiny'}; wait for it, or stop it first"
        )

    def test_bad_data_leave_the_campaign_as_it_was(
        self, begun: Path, refused: Callable[..., str], tmp_path: Path
    ) -> None:
        label(tmp_path / "decathlon", 4).unlink()
        assert "case_04 has no reference" in refused(begun)


def test_a_campaign_that_another_process_is_about_to_begin(
    make_decathlon: Make, make_campaign_yaml: Make, refused: Callable[..., str], tmp_path: Path
) -> None:
    folder = tmp_path / "campaigns" / "tiny"
    folder.mkdir(parents=True)
    with held(folder / ".lock"):
        assert "Another process works in" in refused(make_campaign_yaml(make_decathlon(9)))


def test_sound_data_get_as_far_as_the_flow(
    make_decathlon: Make, make_campaign_yaml: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other tests would pass, too, if everything was refused; people need no labels in the pool."""
    root = make_decathlon(9, unlabelled=4)
    command = ["sentinel-loop", "active-learning", "-q", "-c", str(make_campaign_yaml(root))]
    monkeypatch.setattr(sys, "argv", [*command, "--set=annotator.kind=folder"])
    with pytest.raises(ImportError, match=r"flows\.active_learning"):
        cli.main()
    assert (tmp_path / "campaigns" / "tiny" / "config.yaml").is_file()


@contextmanager
def held(lock: Path) -> Iterator[None]:
    """Another process holds a lock."""
    command = [sys.executable, "-c", HOLD, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield
        finally:
            process.communicate("")


def test_a_family_whose_package_is_missing_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    make_decathlon: Make,
    make_campaign_yaml: Make,
    refused: Callable[..., str],
) -> None:
    monkeypatch.setattr("segmenters.nnunet_package.find_spec", lambda name: None)

    message = refused(make_campaign_yaml(make_decathlon(9), {"segmenter": {"family": "nnunet"}}))

    assert message.endswith("pip install 'sentinel-loop[nnunet]'")
