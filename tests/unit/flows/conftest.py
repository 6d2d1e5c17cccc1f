"""The command line as a function, an untrained sentinel, audits without Prefect, comparisons."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import yaml

from cohort.budget import CURRENCIES
from cohort.layouts.masks import MaskCase
from cohort.ledger import Ledger
from flows import audit, cli
from flows.audit_options import AuditOptions
from flows.audit_rows import Audited
from flows.comparison_config import Comparison, Unit, load_comparison
from flows.config_files import as_dict
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


HELD_OUT = ("held_0", "held_1", "held_2")


def measured_dsc(arm: str, seed: int, number: int, place: int) -> float:
    """Of the liver of a held-out case; arms differ after round 0 alone, and the spleen is 0.1 below."""
    gain = {"random": 0.01, "quality": 0.03, "oracle-worst": 0.05}[arm]
    return 0.6 + 0.02 * seed + gain * number + 0.05 * place


def write_measured(
    unit: Unit,
    changes: Mapping[str, object] | None = None,
    *,
    finished: bool = True,
    rounds: int = 3,
    model: str = "same",
    fallback: str = "",
) -> None:
    """Write ledger and tables of a unit of three rounds, which starts with two cases and takes two more."""
    unit.folder.mkdir(parents=True)
    (unit.folder / "config.yaml").write_text(yaml.safe_dump(as_dict(unit.config)))
    ledger, at = Ledger(unit.folder / "ledger.jsonl"), "2026-01-01T00:00:00.000+00:00"
    start = {
        "config_sha256": "c" * 64,
        "code_version": "0.1.0",
        "dataset": "Tiny",
        "dataset_sha256": "d" * 64,
        "structures": [{"name": "liver", "label": 1}, {"name": "spleen", "label": 2}],
        "held_out": list(HELD_OUT),
        "start": ["s0", "s1"],
        "pool": [f"p{number}" for number in range(9)],
    }
    ledger.append("start", at=at, **{**start, **(changes or {})})
    for number in range(rounds):
        rows = [
            {"case_id": case_id, "structure": name, "dsc": value - below, "nsd": 0.5}
            for place, case_id in enumerate(HELD_OUT)
            for name, below in (("liver", 0.0), ("spleen", 0.1))
            for value in (measured_dsc(unit.arm, unit.seed, number, place),)
        ]
        folder = unit.folder / "rounds" / f"{number:03d}" / "evaluate-0123456789ab"
        folder.mkdir(parents=True)
        pd.DataFrame(rows).to_csv(folder / "results.csv", index=False)
        spent = {currency: (2.0 + 2.0 * number) * (1 + place) for place, currency in enumerate(CURRENCIES)}
        mean = measured_dsc(unit.arm, unit.seed, number, 1) - 0.05
        ledger.append(
            "result",
            at=at,
            round=number,
            labelled_cases=2 + 2 * number,
            budget=spent,
            dsc=mean,
            nsd=0.5,
            checkpoint_sha256=f"{model}-{number}",
        )
        if number < rounds - 1:
            chosen = [f"p{2 * number}", f"p{2 * number + (1 if unit.arm == 'random' else 5)}"]
            strategy = as_dict(unit.config)["strategy"]
            made = {"strategy": strategy, "used_strategy": fallback or strategy, "selected": chosen}
            ledger.append("selection", at=at, round=number, **made)
            agreed = {"pearson": 0.4, "spearman": 0.5, "mae": None, "bias": None, "n": 4, "missing": 0}
            ledger.append("trial", at=at, round=number, estimator={} if unit.arm == "random" else agreed)
    if finished:
        ledger.append("finished", at=at, why="all rounds are done")


@pytest.fixture
def make_comparison(tmp_path: Path, write_campaign_yaml: Callable[..., Path]) -> Callable[..., Comparison]:
    """A comparison of three arms, one of which reads references; what is given replaces a key."""

    def make(**changes: object) -> Comparison:
        write_campaign_yaml(tmp_path / "base.yaml", tmp_path / "scans", {"name": None})
        arms = {name: {"set": {"strategy": name}} for name in ("random", "quality", "oracle-worst")}
        values = {
            "campaign": "base.yaml",
            "root": str(tmp_path / "comparisons"),
            "seeds": [0, 1],
            "primary": {"arm": "quality", "against": "random"},
            "arms": arms,
            **changes,
        }
        path = tmp_path / "which.yaml"
        path.write_text(yaml.safe_dump(values, sort_keys=False))
        return load_comparison(path)

    return make


@pytest.fixture
def measured(make_comparison: Callable[..., Comparison]) -> Comparison:
    """The comparison with all its campaigns finished."""
    comparison = make_comparison()
    for unit in comparison.units:
        write_measured(unit)
    return comparison


@pytest.fixture(name="write_measured")
def _write_measured() -> Callable[..., None]:
    return write_measured
