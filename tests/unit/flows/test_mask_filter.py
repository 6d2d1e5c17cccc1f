"""The filter alone, from masks of any tool to kept files, without Prefect around it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cohort.errors import ConfigError, DataError, SelectionError
from cohort.filtering.registry import FilterSettings
from cohort.volume import read_label_map, write_volume
from flows import mask_files
from flows.mask_filter import not_scored, run_filter
from flows.mask_filter_options import FilterOptions, filter_settings, named_labels
from flows.progress import Display
from flows.stages import file_sha256
from sentinel.scoring import Sentinel

QUIET = Display(quiet=True)
Options = Callable[..., FilterOptions]


@pytest.fixture(autouse=True)
def scored(without_prefect: list[list[str]]) -> list[list[str]]:
    return without_prefect


@pytest.fixture
def options(make_decathlon: Callable[..., Path], weights: Path, tmp_path: Path) -> Options:
    """Five cases of liver and spleen to filter; what is given replaces a field."""
    root = make_decathlon(5)

    def make(**changes: object) -> FilterOptions:
        fields = {
            "predictions": root,
            "weights": weights,
            "out": tmp_path / "kept",
            "settings": FilterSettings(keep=0.4),
            **changes,
        }
        return FilterOptions(**fields)  # type: ignore[arg-type]

    return make


def read_kept(options: FilterOptions) -> pd.DataFrame:
    return pd.read_csv(options.out / "kept.csv", keep_default_na=False, na_values=["nan"])


class TestWhatIsKept:
    def test_the_best_of_each_structure_and_why(self, options: Options) -> None:
        asked = options()
        run_filter(asked, QUIET)
        table = read_kept(asked)
        assert len(table) == 10
        for _, own in table.groupby("structure"):
            kept, left = own[own["kept"]], own[~own["kept"]]
            assert len(kept) == 2
            assert kept["raw"].min() > left["raw"].max()
            assert set(kept["reason"]) == {"in the best 40% of each structure"}
            assert set(left["reason"]) == {"not in the best 40% of each structure"}
            assert set(left["file"]) == {""}

    def test_files_hold_what_is_kept_and_nothing_else(self, options: Options) -> None:
        asked = options()
        table = run_filter(asked, QUIET)
        labels = {"liver": 1, "spleen": 2}
        files = {path.relative_to(asked.out) for path in asked.masks.rglob("*") if path.is_file()}
        assert files == {Path(name) for name in table["file"] if name}
        for case_id, own in table[table["kept"]].groupby("case_id"):
            found = read_label_map(asked.masks / f"{case_id}.nii.gz").array
            source = read_label_map(asked.predictions / "labelsTr" / f"{case_id}.nii.gz").array
            kept = [labels[name] for name in own["structure"]]
            np.testing.assert_array_equal(found, np.where(np.isin(source, kept), source, 0))

    def test_hashes_and_manifest_describe_the_files(self, options: Options) -> None:
        asked = options()
        table = run_filter(asked, QUIET)
        manifest = json.loads((asked.out / "manifest.json").read_text())
        assert (manifest["masks"], manifest["kept"]) == (10, 4)
        kept = table[table["kept"]]
        assert manifest["annotated_structures"] == {
            case_id: sorted(own["structure"]) for case_id, own in kept.groupby("case_id")
        }
        for row in kept.to_dict("records"):
            assert file_sha256(asked.out / row["file"]) == row["sha256"]

    def test_a_file_that_is_kept_whole_is_a_link(self, options: Options) -> None:
        asked = options(settings=FilterSettings(keep=1.0))
        run_filter(asked, QUIET)
        source = asked.predictions / "labelsTr" / "case_03.nii.gz"
        assert (asked.masks / "case_03.nii.gz").samefile(source)

    def test_where_links_do_not_work_files_are_copied(
        self, options: Options, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*paths: object) -> None:
            raise OSError("no links here")

        monkeypatch.setattr(mask_files.os, "link", refuse)
        asked = options(settings=FilterSettings(keep=1.0))
        run_filter(asked, QUIET)
        source = asked.predictions / "labelsTr" / "case_03.nii.gz"
        copy = asked.masks / "case_03.nii.gz"
        assert not copy.samefile(source)
        assert copy.read_bytes() == source.read_bytes()

    def test_structures_that_are_not_kept_get_the_ignore_label(self, options: Options) -> None:
        asked = options(ignore_label=9)
        table = run_filter(asked, QUIET)
        counts = table[table["kept"]].groupby("case_id").size()
        half = next(case_id for case_id, count in counts.items() if count == 1)
        found = read_label_map(asked.masks / f"{half}.nii.gz").array
        assert len(set(np.unique(found)) - {0}) == 2
        assert 9 in found

    def test_labels_that_nobody_judged_are_not_passed_on(self, options: Options, tmp_path: Path) -> None:
        """Liver alone was named: a file with a spleen in it is not linked as it is."""
        root = options().predictions
        asked = options(
            predictions=root / "labelsTr",
            images=root / "imagesTr",
            structures={"liver": 1},
            settings=FilterSettings(keep=1.0),
            out=tmp_path / "liver",
            ignore_label=9,
        )
        table = run_filter(asked, QUIET)
        assert set(table["structure"]) == {"liver"}
        found = read_label_map(asked.masks / "case_03.nii.gz").array
        before = read_label_map(root / "labelsTr" / "case_03.nii.gz").array
        np.testing.assert_array_equal(found, np.where(before == 2, 9, before))

    def test_an_empty_mask_is_kept_only_when_asked(
        self, options: Options, tmp_path: Path, affine: np.ndarray, make_label_map: Callable
    ) -> None:
        labels = make_label_map(0)
        labels[labels == 2] = 0
        asked = options(settings=FilterSettings(keep=1.0))
        write_volume(asked.predictions / "labelsTr" / "case_00.nii.gz", labels, affine)
        plain = run_filter(asked, QUIET).set_index(["case_id", "structure"])
        assert plain.loc["case_00", "spleen"]["reason"] == "empty mask"
        assert not plain.loc["case_00", "spleen"]["kept"]
        absent = options(settings=FilterSettings(keep=1.0), keep_absent=True, out=tmp_path / "absent")
        found = run_filter(absent, QUIET).set_index(["case_id", "structure"])
        assert found.loc["case_00", "spleen"]["reason"] == "kept as absent"


class TestMasksOfAnyTool:
    def test_masks_beside_their_data_set(self, options: Options, tmp_path: Path) -> None:
        root = options().predictions
        masks = tmp_path / "model"
        masks.mkdir()
        for number in (1, 3):
            name = f"case_{number:02d}.nii.gz"
            (masks / name).write_bytes((root / "labelsTr" / name).read_bytes())
        table = run_filter(options(predictions=masks, data=root), QUIET)
        assert sorted(set(table["case_id"])) == ["case_01", "case_03"]

    def test_plain_folders(self, options: Options) -> None:
        root = options().predictions
        asked = options(
            predictions=root / "labelsTr", images=root / "imagesTr", structures={"liver": 1, "spleen": 2}
        )
        plain = run_filter(asked, QUIET)
        again = run_filter(options(out=asked.out.with_name("other")), QUIET)
        pd.testing.assert_frame_equal(plain, again)

    def test_one_file_a_structure(
        self,
        options: Options,
        tmp_path: Path,
        affine: np.ndarray,
        make_label_map: Callable,
        make_image: Callable,
    ) -> None:
        root = tmp_path / "totalsegmentator"
        for number in range(3):
            folder = root / f"s{number}"
            write_volume(folder / "ct.nii.gz", make_image(number), affine)
            labels = make_label_map(number)
            for name, label in (("liver", 1), ("spleen", 2)):
                path = folder / "segmentations" / f"{name}.nii.gz"
                write_volume(path, (labels == label).astype(np.uint8), affine)
        asked = options(predictions=root, settings=FilterSettings(keep=0.34))
        table = run_filter(asked, QUIET)
        kept = table[table["kept"]]
        assert len(kept) == 2
        for row in kept.to_dict("records"):
            assert row["file"] == f"masks/{row['case_id']}/{row['structure']}.nii.gz"
            assert (asked.out / row["file"]).samefile(row["source"])

    def test_masks_alone_are_refused_in_words(self, options: Options) -> None:
        with pytest.raises(DataError, match="if it holds masks alone, name their data set with --data"):
            run_filter(options(predictions=options().predictions / "labelsTr"), QUIET)

    def test_a_mask_without_an_image_is_named(self, options: Options, tmp_path: Path) -> None:
        root = options().predictions
        (root / "imagesTr" / "case_02.nii.gz").unlink()
        with pytest.raises(DataError, match=r"case_02.nii.gz has no image case_02.nii.gz in"):
            run_filter(
                options(predictions=root / "labelsTr", images=root / "imagesTr", structures={"liver": 1}),
                QUIET,
            )

    def test_a_broken_mask_is_a_row_and_not_an_end(self, options: Options) -> None:
        asked = options()
        (asked.predictions / "labelsTr" / "case_02.nii.gz").write_bytes(b"broken")
        table = run_filter(asked, QUIET)
        broken = table[table["case_id"] == "case_02"]
        assert not broken["kept"].any()
        assert broken["reason"].str.contains("case_02.nii.gz cannot be read").all()


class TestGoingOn:
    def test_scores_are_not_made_twice(self, options: Options, scored: list[list[str]]) -> None:
        asked = options()
        first = run_filter(asked, QUIET)
        done = len(scored)
        (asked.out / "kept.csv").unlink()
        next(iter(asked.masks.iterdir())).unlink()
        pd.testing.assert_frame_equal(run_filter(asked, QUIET), first)
        assert len(scored) == done

    def test_masks_that_changed_are_judged_anew(
        self, options: Options, affine: np.ndarray, scored: list[list[str]]
    ) -> None:
        asked = options(settings=FilterSettings(keep=1.0))
        run_filter(asked, QUIET)
        (asked.predictions / "labelsTr" / "case_04.nii.gz").unlink()
        write_volume(
            asked.predictions / "labelsTr" / "case_04.nii.gz", np.zeros((8, 12, 16), np.uint8), affine
        )
        table = run_filter(asked, QUIET)
        assert not table[table["case_id"] == "case_04"]["kept"].any()
        assert not (asked.masks / "case_04.nii.gz").exists()

    def test_other_settings_need_another_folder(self, options: Options) -> None:
        run_filter(options(), QUIET)
        with pytest.raises(ConfigError, match=r"kept with other settings \(filter changed\)"):
            run_filter(options(settings=FilterSettings(keep=0.2)), QUIET)

    def test_a_folder_of_someone_else_is_left_alone(self, options: Options) -> None:
        asked = options()
        asked.out.mkdir()
        (asked.out / "kept.csv").write_text("mine")
        with pytest.raises(ConfigError, match=r"kept holds kept\.csv and is not a folder of this command"):
            run_filter(asked, QUIET)
        assert [path.read_text() for path in asked.out.iterdir()] == ["mine"]

    def test_its_own_input_is_no_place_for_masks(self, options: Options) -> None:
        asked = options()
        with pytest.raises(ConfigError, match=r"holds dataset\.json, imagesTr, labelsTr and is not a folder"):
            run_filter(replace(asked, out=asked.predictions), QUIET)

    @pytest.mark.parametrize("theirs", ["[]", "{}"])
    def test_settings_of_another_program(self, options: Options, theirs: str) -> None:
        asked = options()
        asked.out.mkdir()
        (asked.out / "settings.json").write_text(theirs)
        with pytest.raises(ConfigError, match=r"settings\.json is not of this command"):
            run_filter(asked, QUIET)


class TestBadInput:
    def test_nothing_is_kept(self, options: Options) -> None:
        asked = options(settings=FilterSettings(kind="threshold", minimum=1.0))
        with pytest.raises(SelectionError, match=r"keeps none of 10 masks.* To keep some, lower the minimum"):
            run_filter(asked, QUIET)
        assert len(read_kept(asked)) == 10
        assert json.loads((asked.out / "manifest.json").read_text())["kept"] == 0

    def test_masks_that_cannot_be_read_are_told(self, options: Options, affine: np.ndarray) -> None:
        asked = options(settings=FilterSettings(keep=1.0))
        small = np.ones((4, 12, 16), np.uint8)
        for number in range(2):
            path = asked.predictions / "labelsTr" / f"case_0{number}.nii.gz"
            path.unlink()
            write_volume(path, small, affine)
        table = run_filter(asked, QUIET)
        assert not_scored(table).startswith("4 masks could not be scored: liver of case_00")
        assert "has shape (4, 12, 16), but its image" in not_scored(table)
        assert json.loads((asked.out / "manifest.json").read_text())["not_scored"] == 4

    def test_nothing_is_kept_since_nothing_could_be_read(self, options: Options, affine: np.ndarray) -> None:
        asked = options()
        for path in sorted((asked.predictions / "labelsTr").iterdir()):
            path.unlink()
            write_volume(path, np.ones((4, 12, 16), np.uint8), affine)
        with pytest.raises(
            SelectionError, match=r"10 masks could not be scored.*resample the mask"
        ) as caught:
            run_filter(asked, QUIET)
        assert "lower the minimum" not in str(caught.value)

    def test_bounds_of_a_sentinel_without_any(self, options: Options) -> None:
        with pytest.raises(ConfigError, match="this sentinel is not calibrated and has no bounds"):
            run_filter(options(settings=FilterSettings(kind="lower_bound")), QUIET)

    def test_bounds_of_a_calibrated_one(
        self, options: Options, tmp_path: Path, make_sentinel: Callable[..., Sentinel]
    ) -> None:
        path = tmp_path / "calibrated.safetensors"
        make_sentinel(calibrated=("liver",)).save(path)
        asked = options(weights=path, settings=FilterSettings(kind="lower_bound", minimum=0.01))
        table = run_filter(asked, QUIET)
        assert set(table[table["structure"] == "spleen"]["reason"]) == {"no lower bound of the DSC"}
        assert set(table[table["structure"] == "spleen"]["note"]) == {"not calibrated for this structure"}
        kept = table[table["kept"]]
        assert set(kept["structure"]) == {"liver"}
        assert (kept["lower"] >= 0.01).all()

    def test_an_ignore_label_that_is_in_use(self, options: Options) -> None:
        with pytest.raises(ConfigError, match="--ignore-label is 1, which is the label of liver; take one"):
            run_filter(options(ignore_label=1), QUIET)

    def test_an_ignore_label_that_a_file_holds(self, tmp_path: Path, affine: np.ndarray) -> None:
        labels = np.zeros((8, 12, 16), np.uint8)
        labels[0, 0, :3] = 1, 2, 9
        write_volume(tmp_path / "a.nii.gz", labels, affine)
        with pytest.raises(DataError, match="holds the label 9 already"):
            mask_files._written(tmp_path / "a.nii.gz", tmp_path / "b.nii.gz", {1}, 9)

    @pytest.mark.parametrize("keep", [0.0, 1.5])
    def test_a_fraction_outside_0_to_1(self, options: Options, keep: float) -> None:
        with pytest.raises(ConfigError, match="expected a fraction above 0 and up to 1"):
            options(settings=FilterSettings(keep=keep))

    def test_command_lines_that_contradict_themselves(self, options: Options) -> None:
        with pytest.raises(ConfigError, match="both set"):
            filter_settings(0.5, "structure", 0.8, 0.7, None)
        with pytest.raises(ConfigError, match="--per is 'organ'"):
            filter_settings(0.5, "organ", None, None, None)
        with pytest.raises(ConfigError, match="belong together"):
            options(images=Path("somewhere"))
        with pytest.raises(ConfigError, match="--data names the images already"):
            options(images=Path("a"), structures={"liver": 1}, data=Path("b"))
        with pytest.raises(ConfigError, match="--ignore-label is 256"):
            options(ignore_label=256)

    @pytest.mark.parametrize("text", ["liver", "=1", "liver=one"])
    def test_structures_without_a_label(self, text: str) -> None:
        with pytest.raises(ConfigError, match="is not of the form name=label"):
            named_labels([text])

    def test_structures_that_come_twice(self) -> None:
        with pytest.raises(ConfigError, match="a second time"):
            named_labels(["liver=1", "spleen=1"])

    def test_minimums_replace_the_fraction(self) -> None:
        assert filter_settings(0.5, "case", None, None, None).per == "case"
        assert filter_settings(0.5, "case", 0.8, None, 2.0) == FilterSettings(
            kind="threshold", minimum=0.8, balance=2.0
        )
        assert filter_settings(0.5, "case", None, 0.7, None).kind == "lower_bound"
