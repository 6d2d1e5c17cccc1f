"""An audit through real Prefect: killed or finished, the next start goes on from its parts."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cohort.layouts.masks import MaskCase
from cohort.volume import write_volume
from flows import audit
from flows import campaign as campaigns
from flows.audit_options import AuditOptions
from flows.audit_rows import Audited, score_cases
from flows.launch import launch_audit
from flows.progress import Display
from segmenters.base import Report
from sentinel.config import SentinelConfig
from sentinel.scoring import Sentinel
from sentinel.text import embed_names

pytestmark = pytest.mark.slow


@pytest.fixture
def options(tmp_path: Path, make_decathlon: Callable[..., Path], affine: np.ndarray) -> AuditOptions:
    """Three cases, one of them with an empty label map, and an untrained sentinel."""
    root, names = make_decathlon(3), ("liver", "spleen")
    write_volume(root / "labelsTr" / "case_01.nii.gz", np.zeros((8, 12, 16), dtype=np.uint8), affine)
    config = SentinelConfig(image_size=32, margin=3.0, precision="float32", device="cpu")
    sentinel = Sentinel(config=config, structures=names, embeddings=embed_names(names))
    sentinel.save(tmp_path / "sentinel.safetensors")
    return AuditOptions(
        root=root,
        layout="decathlon",
        weights=tmp_path / "sentinel.safetensors",
        out=tmp_path / "found" / "scores.csv",
        threads=1,
    )


def test_an_audit_that_failed_goes_on(options: AuditOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    chunks: list[list[str]] = []

    def fails_once(cases: Sequence[MaskCase], sentinel: Sentinel, report: Report) -> list[Audited]:
        chunks.append([case.case_id for case in cases])
        if len(chunks) == 2:
            raise OSError(28, "No space left on device")
        return score_cases(cases, sentinel, report)

    monkeypatch.setattr(audit, "CHUNK", 2)
    monkeypatch.setattr(audit, "score_cases", fails_once)
    with pytest.raises(OSError, match="No space left"):
        launch_audit(options, Display(quiet=True))
    assert not options.out.exists()
    launch_audit(options, Display(quiet=True))
    assert chunks == [["case_00", "case_01"], ["case_02"], ["case_02"]], "the finished part stays"

    table = pd.read_csv(options.out)
    assert len(table) == 6
    assert table["predicted_dsc"].notna().tolist() == [True] * 4 + [False] * 2
    assert table["reason"].tail(2).tolist() == ["empty mask"] * 2
    assert options.out.with_suffix(".parquet").is_file()
    assert options.out.with_suffix(".html").read_text().count("<figure>") == 4
    assert not (options.work / campaigns.PROCESS).exists()
    assert not campaigns.is_locked(options.work)
