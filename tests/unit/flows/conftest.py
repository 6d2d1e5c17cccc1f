"""The command line as a function, a small untrained sentinel as a file, and audits without Prefect."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from cohort.layouts.masks import MaskCase
from flows import audit, cli
from flows.audit_options import AuditOptions
from flows.audit_rows import Audited
from segmenters.base import Report
from sentinel.calibration import Calibration, StructureCalibration
from sentinel.config import SentinelConfig
from sentinel.scoring import Sentinel
from sentinel.text import embed_names

STRUCTURES = ("liver", "spleen")


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Arguments of the command line -> exit code, standard output, standard error."""
    monkeypatch.setenv("COLUMNS", "120")

    def start(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sentinel-loop", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert isinstance(ended.value.code, int)
        return (ended.value.code, *capsys.readouterr())

    return start


@pytest.fixture(scope="session")
def make_sentinel() -> Callable[..., Sentinel]:
    """An untrained sentinel of liver and spleen, always the same.

    Args of the callable:
        intensity: that it expects; calibrated: the structures that it has bounds for.
    """

    def make(intensity: str = "per_volume_percentile", calibrated: tuple[str, ...] = ()) -> Sentinel:
        config = SentinelConfig(
            image_size=32, margin=3.0, intensity=intensity, precision="float32", device="cpu"
        )
        line = StructureCalibration(knots=((0.0, 0.5), (1.0, 1.5)), quantile=0.1, patients=9, masks=9)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return Sentinel(
                config=config,
                structures=STRUCTURES,
                embeddings=embed_names(STRUCTURES),
                calibration=Calibration(structures=dict.fromkeys(calibrated, line)),
            )

    return make


@pytest.fixture(scope="session")
def sentinel(make_sentinel: Callable[..., Sentinel]) -> Sentinel:
    return make_sentinel()


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory, sentinel: Sentinel) -> Path:
    """The sentinel's file."""
    path = tmp_path_factory.mktemp("weights") / "sentinel.safetensors"
    sentinel.save(path)
    return path


@pytest.fixture
def without_prefect(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Run audits two cases at a time without Prefect; the cases of each chunk that is scored."""
    flow, task, chunks = audit._audit_flow.fn, audit._score_chunk.fn, []

    def score(cases: Sequence[MaskCase], sentinel: Sentinel, report: Report) -> list[Audited]:
        chunks.append([case.case_id for case in cases])
        return task(cases, sentinel, report)

    monkeypatch.setattr(audit, "CHUNK", 2)
    monkeypatch.setattr(audit, "_score_chunk", score)
    monkeypatch.setattr(audit, "_audit_flow", SimpleNamespace(with_options=lambda **_: flow))
    return chunks


@pytest.fixture
def audit_options(
    make_decathlon: Callable[..., Path], weights: Path, tmp_path: Path
) -> Callable[..., AuditOptions]:
    """Five cases of liver and spleen to audit; what is given replaces a field."""
    root = make_decathlon(5)

    def make(**changes: object) -> AuditOptions:
        fields = {"root": root, "layout": "decathlon", "weights": weights, "worst": 2, **changes}
        return AuditOptions(out=tmp_path / "found" / "scores.csv", **fields)  # type: ignore[arg-type]

    return make
