"""The commands `score` and `audit`: what they print, and one clear sentence for what they refuse."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock

from cohort.volume import write_volume
from flows import campaign as campaigns
from flows import environment, launch
from flows.audit_options import AuditOptions
from flows.progress import Display
from flows.stages import file_sha256

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def scan(
    tmp_path: Path,
    affine: np.ndarray,
    make_image: Callable[[int], np.ndarray],
    make_label_map: Callable[[int], np.ndarray],
    weights: Path,
) -> tuple[str, ...]:
    """Arguments that name an image, its label map and the sentinel."""
    write_volume(tmp_path / "ct.nii.gz", make_image(0), affine)
    write_volume(tmp_path / "labels.nii.gz", make_label_map(0), affine)
    named = {"image": tmp_path / "ct.nii.gz", "mask": tmp_path / "labels.nii.gz", "weights": weights}
    return tuple(f"--{name}={value}" for name, value in named.items())


def sentence(found: tuple[int, str, str]) -> str:
    """The one message of a command that was refused."""
    code, out, err = found
    assert (code, out) == (2, "")
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    return err.removeprefix("Error: ").strip()


class TestScore:
    def test_a_table_for_people(self, run: Run, scan: tuple[str, ...]) -> None:
        structures = ("--structure=liver", "--label=1", "--structure=Spleen", "--label=2")
        code, out, err = run("score", *scan, *structures)
        assert (code, err) == (0, "")
        for text in ("predicted DSC", "worst slice", "liver", "Spleen", "not calibrated for this structure"):
            assert text in out

    def test_json_for_programs(self, run: Run, scan: tuple[str, ...], weights: Path) -> None:
        names = ("--structure=liver", "--label=1", "--structure=spleen", "--label=9", "--json")
        code, out, _ = run("score", *scan, *names)
        assert code == 0
        found = json.loads(out)
        assert found["image"].endswith("ct.nii.gz")
        assert found["weights_sha256"] == file_sha256(weights)
        liver, spleen = found["scores"]
        assert liver["predicted_dsc"] == liver["raw"]
        assert len({each["raw"] for each in liver["slices"]}) > 1
        assert [each["index"] for each in liver["slices"]] == [1, 2, 3]
        assert (spleen["predicted_dsc"], spleen["reason"]) == (None, "empty mask")

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            (("--structure=liver", "--label=1", "--label=2"), "2 labels are named for 1 structures"),
            (("--structure=liver", "--structure=spleen"), "One mask is named for 2 structures; say with"),
            (("--structure=liver", "--mask=b.nii.gz"), "2 masks are named for 1 structures"),
            (("--structure=brain", "--label=1"), "not trained for structure 'brain'; it knows liver, spleen"),
            (("--structure=liver", "--image=gone.nii.gz"), "gone.nii.gz does not exist"),
            (("--structure=liver", "--weights=gone.safetensors"), "gone.safetensors do not exist"),
            (("--structure=liver", "--weights=gone.pth"), "gone.pth do not exist"),
            (("--structure=liver", "--precision=half"), "precision is 'half', expected one of"),
        ],
    )
    def test_refused_in_one_sentence(
        self, run: Run, scan: tuple[str, ...], more: tuple[str, ...], message: str
    ) -> None:
        assert message in sentence(run("score", *scan, *more))

    @pytest.mark.parametrize("left_out", ["--image", "--mask", "--weights", "--structure"])
    def test_something_is_not_named(self, run: Run, scan: tuple[str, ...], left_out: str) -> None:
        given = [text for text in (*scan, "--structure=liver") if not text.startswith(left_out)]
        code, out, err = run("score", *given)
        assert (code, out) == (2, "")
        assert f"Missing option '{left_out}'" in err


class TestAudit:
    def test_the_options_and_what_is_printed(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[tuple[AuditOptions, bool]] = []

        def stand_in(options: AuditOptions, display: Display) -> pd.DataFrame:
            asked.append((options, display.quiet))
            return pd.DataFrame({"predicted_dsc": [0.25, 0.5, float("nan")]})

        monkeypatch.setattr(launch, "launch_audit", stand_in)
        named = ("--layout=nnunet", "--weights=w.pth", "--embeddings=e.pkl", "--out=found/a.csv", "--quiet")
        more = ("--masks=p", "--metadata=m.csv", "--group-by=sex", "--group-by=age", "--precision=float32")
        code, out, _ = run("audit", "scans", *named, *more, "--device=cpu", "--threads=2", "--worst=5")
        assert code == 0
        assert out.splitlines() == [
            "2 of 3 masks scored, worst first: found/a.csv",
            "Look at the worst: found/a.html",
        ]
        expected = AuditOptions(
            root=Path("scans"),
            layout="nnunet",
            weights=Path("w.pth"),
            embeddings=Path("e.pkl"),
            out=Path("found/a.csv"),
            masks=Path("p"),
            metadata=Path("m.csv"),
            group_by=("sex", "age"),
            precision="float32",
            device="cpu",
            threads=2,
            worst=5,
        )
        assert asked == [(expected, True)]

    def test_what_is_left_open(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[AuditOptions] = []

        def stand_in(options: AuditOptions, display: Display) -> pd.DataFrame:
            asked.append(options)
            return pd.DataFrame({"predicted_dsc": [0.25]})

        monkeypatch.setattr(launch, "launch_audit", stand_in)
        assert run("audit", "scans", "--layout=nnunet", "--weights=w.safetensors")[0] == 0
        assert asked == [AuditOptions(root=Path("scans"), layout="nnunet", weights=Path("w.safetensors"))]
        assert asked[0].work == Path("scores.audit")


class TestRefusedAudit:
    @pytest.fixture(autouse=True)
    def threads_stay(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(environment, "use_threads", lambda threads: threads)

    @pytest.fixture
    def refused(
        self,
        run: Run,
        make_decathlon: Callable[..., Path],
        tmp_path: Path,
        weights: Path,
        without_prefect: list[list[str]],
    ) -> Callable[..., str]:
        """What an audit of a sound data set says to further options; it scores and leaves nothing."""
        root = make_decathlon(2)

        def start(*more: str) -> str:
            before = set(tmp_path.rglob("*"))
            named = ("--layout=decathlon", f"--weights={weights}", f"--out={tmp_path / 'found' / 'a.csv'}")
            found = sentence(run("audit", str(root), *named, "--quiet", *more))
            assert without_prefect == []
            assert set(tmp_path.rglob("*")) == before
            return found

        return start

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            ("--out=scores.xlsx", "--out is scores.xlsx, expected a name that ends in .csv"),
            ("--layout=dicom", "Unknown layout 'dicom'; expected one of decathlon, nnunet, totalsegmentator"),
            ("--layout=totalsegmentator", "No mask was found in"),
            ("--masks=nowhere", "The folder of masks nowhere does not exist"),
            ("--metadata=gone.csv", "The table of metadata gone.csv does not exist"),
            ("--group-by=sex", "There is no metadata to group by sex; name a table with --metadata"),
            ("--weights=gone.safetensors", "The weights gone.safetensors do not exist"),
            ("--precision=half", "precision is 'half', expected one of auto, float32, bfloat16"),
            ("--device=tpu", "device is 'tpu', expected one of auto, cpu, cuda"),
        ],
    )
    def test_in_one_sentence(self, refused: Callable[..., str], more: str, message: str) -> None:
        assert message in refused(more)

    def test_a_column_that_the_metadata_lacks(self, refused: Callable[..., str], tmp_path: Path) -> None:
        (tmp_path / "meta.csv").write_text("case_id,sex\ncase_00,F\n")
        message = refused(f"--metadata={tmp_path / 'meta.csv'}", "--group-by=age")
        assert message == "The metadata has no column 'age'; it has sex"

    def test_while_another_process_works_there(self, refused: Callable[..., str], tmp_path: Path) -> None:
        work = tmp_path / "found" / "a.audit"
        work.mkdir(parents=True)
        with FileLock(work / campaigns.LOCK):
            assert refused() == f"Another process works in {work}; wait for it, or stop it first"
