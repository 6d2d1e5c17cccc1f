from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cohort.case import Case, Structure
from cohort.errors import CampaignError
from cohort.records import TrainingCase
from flows.cost_stages import cost_row
from flows.quality_cost import (
    SEGMENTATION,
    CostJob,
    QualityCost,
    learning_seconds,
    measure_apart,
    resident_peak_mb,
    run_job,
)
from flows.stages import write_json
from segmenters.config import SegmenterConfig
from segmenters.torch_segmenter import TorchSegmenter

CONFIG = SegmenterConfig(channels=(4, 8), patch=(8, 8, 8), precision="float32")


@pytest.fixture
def job(
    case: Case, structures: tuple[Structure, ...], tmp_path: Path, weights: Path
) -> Callable[..., CostJob]:
    """A job on one case; what is given replaces a field."""
    assert case.reference is not None
    training = TrainingCase(
        case_id=case.case_id,
        patient_id=case.patient_id,
        image=case.image,
        label_map=case.reference,
        annotated=frozenset({"liver", "spleen"}),
    )
    segmenter = TorchSegmenter(CONFIG, "cpu")
    checkpoint = segmenter.fit([training], structures, tmp_path / "train", seed=0, steps=2)[-1]
    predictions = segmenter.predict([case.view()], checkpoint, structures, tmp_path / "pool")

    def make(estimator: str, **changes: object) -> CostJob:
        fields = {
            "estimator": estimator,
            "learned": (weights,) if estimator == "sentinel" else (),
            "segmenter": CONFIG,
            "checkpoint": checkpoint,
            "cases": (case.view(),),
            "predictions": predictions,
            "structures": structures,
            "threads": 1,
            **changes,
        }
        return CostJob(**fields)  # type: ignore[arg-type]

    return make


def test_uncertainty_leaves_no_maps_on_disk_and_a_sentinel_its_weights(
    job: Callable[..., CostJob], tmp_path: Path, weights: Path
) -> None:
    for name, expected in ((SEGMENTATION, 0.0), ("entropy", 0.0), ("sentinel", weights.stat().st_size / 1e6)):
        scratch = tmp_path / name
        scratch.mkdir()
        seconds, loading_seconds, disk_mb = run_job(job(name), scratch)
        assert min(seconds, loading_seconds) >= 0.0
        assert disk_mb == pytest.approx(expected, abs=0.01)


def test_a_job_is_measured_in_a_process_of_its_own(job: Callable[..., CostJob], tmp_path: Path) -> None:
    ballast = np.ones(2**27, dtype=np.uint8)  # 128 MB of this process must not count
    found = measure_apart(job("entropy"), tmp_path)
    assert ballast.any()
    assert 50.0 < found.idle_mb < found.peak_mb
    assert found.idle_mb < resident_peak_mb()
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["cost.json"]


def test_a_job_that_fails_says_why(job: Callable[..., CostJob], tmp_path: Path) -> None:
    broken = job("sentinel", learned=(tmp_path / "nowhere.safetensors",))
    with pytest.raises(CampaignError, match=r"cost of sentinel could not be measured \(.*nowhere"):
        measure_apart(broken, tmp_path)


def test_learning_is_what_its_stages_took(tmp_path: Path) -> None:
    seconds = {
        "train": 10.0,
        "fold0": 3.0,
        "fold0-step20": 0.5,
        "sentinel": 4.0,
        "sentinel0": 7.0,
        "fused": 1.0,
    }
    for name, took in seconds.items():
        write_json(tmp_path / f"{name}-123" / "stage.json", {"stage": name, "seconds": took})
    assert learning_seconds(tmp_path, "sentinel") == 7.5
    assert learning_seconds(tmp_path, "fused") == 11.5
    assert learning_seconds(tmp_path, "entropy") == 0.0


def test_a_row_says_what_comes_on_top_of_the_masks(tmp_path: Path) -> None:
    plain = QualityCost(seconds=2.0, loading_seconds=0.0, peak_mb=500.0, idle_mb=400.0, disk_mb=0.1)
    again = QualityCost(seconds=6.0, loading_seconds=0.5, peak_mb=650.0, idle_mb=400.0, disk_mb=0.3)
    entropy = cost_row("entropy", again, plain, 4, tmp_path)
    assert entropy["seconds_per_case"] == 1.0
    assert entropy["loading_seconds"] == 0.5
    assert entropy["peak_over_idle_mb"] == 250.0
    assert entropy["disk_mb"] == pytest.approx(0.2)
    assert cost_row("sentinel", again, plain, 4, tmp_path)["seconds_per_case"] == 1.5
