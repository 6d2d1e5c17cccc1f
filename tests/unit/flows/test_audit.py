"""An audit from a data set to its files, without Prefect around it: what it writes, and how it goes on."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cohort.errors import DataError
from cohort.layouts.masks import MaskCase
from cohort.volume import write_volume
from flows import audit
from flows import campaign as campaigns
from flows.audit import run_audit, worst_first
from flows.audit_options import AuditOptions
from flows.audit_rows import Audited
from flows.progress import Display
from segmenters.base import Report
from sentinel.scoring import Sentinel

Options = Callable[..., AuditOptions]
COLUMNS = [
    "case_id",
    "structure",
    "predicted_dsc",
    "lower",
    "upper",
    "n_slices",
    "reason",
    "raw",
    "worst_slice",
]
QUIET = Display(quiet=True)


@pytest.fixture(autouse=True)
def scored(without_prefect: list[list[str]]) -> list[list[str]]:
    return without_prefect


@pytest.fixture
def read_out(tmp_path: Path) -> Callable[[], pd.DataFrame]:
    def read() -> pd.DataFrame:
        path = tmp_path / "found" / "scores.csv"
        return pd.read_csv(path, keep_default_na=False, na_values=[""])

    return read


def label_map(options: AuditOptions, number: int) -> Path:
    return options.root / "labelsTr" / f"case_{number:02d}.nii.gz"


def remove_spleen(path: Path, affine: np.ndarray) -> None:
    labels = np.zeros((8, 12, 16), dtype=np.uint8)
    labels[2:6, 3:9, 2:7] = 1
    write_volume(path, labels, affine)


class TestMetadata:
    def test_of_other_cases_is_refused(self, audit_options: Options, tmp_path: Path) -> None:
        """Most often an id with the ending of its file."""
        path = tmp_path / "cases.csv"
        path.write_text("case_id,sex\ncase_00.nii.gz,f\ncase_01.nii.gz,m\n")
        asked = audit_options(metadata=path, group_by=("sex",))
        with pytest.raises(DataError, match=r"names none of the cases .*'case_00\.nii\.gz', .* 'case_00', "):
            run_audit(asked, QUIET)
        assert not asked.out.exists()


class TestTable:
    def test_every_mask_is_a_row_worst_first(
        self, audit_options: Options, read_out: Callable[[], pd.DataFrame]
    ) -> None:
        table = run_audit(audit_options(), QUIET)
        written = read_out()
        assert list(written.columns) == COLUMNS
        assert sorted(zip(written["case_id"], written["structure"], strict=True)) == [
            (f"case_{number:02d}", name) for number in range(5) for name in ("liver", "spleen")
        ]
        assert written["predicted_dsc"].is_monotonic_increasing
        assert written["predicted_dsc"].nunique() == 10
        assert written["n_slices"].between(3, 5).all()
        assert written["case_id"].tolist() == table["case_id"].tolist()
        assert written["predicted_dsc"].tolist() == table["predicted_dsc"].tolist()

    def test_parquet_holds_what_the_csv_holds(
        self, audit_options: Options, read_out: Callable[[], pd.DataFrame], affine: np.ndarray
    ) -> None:
        asked = audit_options()
        remove_spleen(label_map(asked, 1), affine)
        run_audit(asked, QUIET)
        parquet = pd.read_parquet(asked.out.with_suffix(".parquet"))
        pd.testing.assert_frame_equal(
            parquet, read_out().fillna({"reason": ""}), check_exact=True, check_dtype=False
        )

    def test_what_has_no_score_is_last_and_never_0(
        self, audit_options: Options, read_out: Callable[[], pd.DataFrame], affine: np.ndarray
    ) -> None:
        asked = audit_options()
        remove_spleen(label_map(asked, 1), affine)
        label_map(asked, 3).write_bytes(b"broken")
        run_audit(asked, QUIET)
        written = read_out()
        last = written.tail(3)
        assert last[["case_id", "structure"]].to_numpy().tolist() == [
            ["case_01", "spleen"],
            ["case_03", "liver"],
            ["case_03", "spleen"],
        ]
        assert last[["predicted_dsc", "lower", "upper", "raw"]].isna().all(axis=None)
        assert last["reason"].iloc[0] == "empty mask"
        assert "case_03.nii.gz cannot be read" in last["reason"].iloc[1]
        assert written["predicted_dsc"].notna().sum() == 7

    def test_bounds(
        self,
        audit_options: Options,
        read_out: Callable[[], pd.DataFrame],
        make_sentinel: Callable[..., Sentinel],
        tmp_path: Path,
    ) -> None:
        make_sentinel(calibrated=("liver",)).save(tmp_path / "calibrated.safetensors")
        run_audit(audit_options(weights=tmp_path / "calibrated.safetensors"), QUIET)
        written = read_out().set_index("structure")
        liver, spleen = written.loc["liver"], written.loc["spleen"]
        assert (liver["lower"] < liver["predicted_dsc"]).all()
        assert (liver["predicted_dsc"] < liver["upper"]).all()
        assert spleen["lower"].isna().all()
        assert set(spleen["reason"]) == {"not calibrated for this structure"}

    def test_other_masks(self, audit_options: Options, tmp_path: Path, affine: np.ndarray) -> None:
        remove_spleen(tmp_path / "predicted" / "case_02.nii.gz", affine)
        table = run_audit(audit_options(masks=tmp_path / "predicted"), QUIET)
        assert table[["case_id", "structure"]].to_numpy().tolist() == [
            ["case_02", "liver"],
            ["case_02", "spleen"],
        ]

    def test_what_made_it(self, audit_options: Options, affine: np.ndarray) -> None:
        asked = audit_options()
        remove_spleen(label_map(asked, 1), affine)
        run_audit(asked, QUIET)
        about = json.loads(asked.out.with_suffix(".json").read_text())
        assert (about["data set"], about["layout"], about["masks"]) == (
            "Tiny",
            "decathlon",
            "of the data set",
        )
        assert (about["cases"], about["masks in all"], about["masks scored"]) == (5, 10, 9)
        assert (about["backbone"], about["weights"]) == ("resnet18", "sentinel.safetensors")
        assert len(about["weights sha256"]) == 64

    def test_equal_scores_are_in_the_order_of_cases(self) -> None:
        rows = [("b", "liver", 0.5), ("a", "spleen", 0.5), ("c", "liver", None), ("a", "liver", 0.5)]
        rows.append(("d", "liver", 0.1))
        table = pd.DataFrame(rows, columns=["case_id", "structure", "predicted_dsc"])
        table["raw"] = table["predicted_dsc"]
        found = worst_first(table)
        assert (found["case_id"] + found["structure"]).tolist() == [
            "dliver",
            "aliver",
            "aspleen",
            "bliver",
            "cliver",
        ]

    def test_masks_that_calibration_made_equal_are_in_the_order_of_their_raw_scores(self) -> None:
        rows = [("a", 0.9, 0.97), ("b", 0.9, 0.91), ("c", 0.2, 0.3), ("d", 0.9, 0.94)]
        table = pd.DataFrame(rows, columns=["case_id", "predicted_dsc", "raw"]).assign(structure="liver")
        assert worst_first(table)["case_id"].tolist() == ["c", "b", "d", "a"]


class TestResumed:
    def test_what_is_finished_is_not_scored_again(
        self, audit_options: Options, scored: list[list[str]]
    ) -> None:
        asked = audit_options()
        run_audit(asked, QUIET)
        before = asked.out.read_bytes()
        assert scored == [["case_00", "case_01"], ["case_02", "case_03"], ["case_04"]]
        asked.out.unlink()
        run_audit(asked, QUIET)
        assert len(scored) == 3
        assert asked.out.read_bytes() == before

    def test_a_killed_audit_goes_on(
        self,
        audit_options: Options,
        scored: list[list[str]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        asked, score = audit_options(), audit._score_chunk

        def killed(cases: Sequence[MaskCase], sentinel: Sentinel, report: Report) -> list[Audited]:
            if cases[0].case_id == "case_02":
                raise KeyboardInterrupt
            return score(cases, sentinel, report)

        with monkeypatch.context() as changed:
            changed.setattr(audit, "_score_chunk", killed)
            with pytest.raises(KeyboardInterrupt):
                run_audit(asked, QUIET)
        assert not asked.out.exists()
        run_audit(asked, QUIET)
        assert scored == [["case_00", "case_01"], ["case_02", "case_03"], ["case_04"]]

    def test_a_file_that_changed_since_is_scored_again(
        self, audit_options: Options, scored: list[list[str]], affine: np.ndarray
    ) -> None:
        asked = audit_options()
        before = run_audit(asked, QUIET).set_index(["case_id", "structure"])
        scored.clear()
        remove_spleen(label_map(asked, 3), affine)
        after = run_audit(asked, QUIET).set_index(["case_id", "structure"]).reindex(before.index)
        assert scored == [["case_02", "case_03"]]
        changed = after.index[after["raw"].ne(before["raw"])].tolist()
        assert sorted(changed) == [("case_03", "liver"), ("case_03", "spleen")]

    def test_so_is_one_of_the_same_size(self, audit_options: Options, scored: list[list[str]]) -> None:
        options = audit_options()
        run_audit(options, QUIET)
        scored.clear()
        image = options.root / "imagesTr" / "case_04.nii.gz"
        os.utime(image, ns=(0, image.stat().st_mtime_ns + 1))
        run_audit(options, QUIET)
        assert scored == [["case_04"]]

    def test_a_part_that_was_damaged_is_made_again(
        self, audit_options: Options, scored: list[list[str]]
    ) -> None:
        asked = audit_options()
        run_audit(asked, QUIET)
        scored.clear()
        (part,) = asked.work.glob("cases000002-*")
        (part / audit.ROWS).write_text("torn")
        run_audit(asked, QUIET)
        assert scored == [["case_02", "case_03"]]

    def test_another_sentinel_scores_everything_again(
        self,
        audit_options: Options,
        scored: list[list[str]],
        make_sentinel: Callable[..., Sentinel],
        tmp_path: Path,
    ) -> None:
        run_audit(audit_options(), QUIET)
        make_sentinel(calibrated=("liver",)).save(tmp_path / "other.safetensors")
        run_audit(audit_options(weights=tmp_path / "other.safetensors"), QUIET)
        assert len(scored) == 6

    def test_a_server_that_a_kill_leaves_behind_is_known_while_it_runs(
        self, audit_options: Options, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked, score, seen = audit_options(), audit._score_chunk, []

        def look(cases: Sequence[MaskCase], sentinel: Sentinel, report: Report) -> list[Audited]:
            seen.append((asked.work / campaigns.PROCESS).is_file())
            return score(cases, sentinel, report)

        monkeypatch.setattr(audit, "_score_chunk", look)
        run_audit(asked, QUIET)
        assert seen == [True, True, True]
        assert not (asked.work / campaigns.PROCESS).exists()
