"""What estimating quality costs: time, memory and disk of each estimator, in a process of its own.

    python -m flows.quality_cost JOB RESULT

measures one job. The parent's memory would count as the child's where a system accounts a process before it
runs its own program, so the child reads its own peak.
"""

import json
import pickle
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cohort.case import CaseView, Structure
from cohort.errors import CampaignError
from cohort.records import Checkpoint, Prediction
from cohort.volume import write_bytes
from flows.stages import MANIFEST, read_json, write_json
from segmenters.base import SegmenterSettings

SEGMENTATION = "segmentation"
"""The name of the job that only segments: what everything else comes on top of."""

_LEARNING = {
    "sentinel": ("sentinel",),
    "fused": ("sentinel0", "sentinel1", "sentinel2", "fused"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CostJob:
    """What is measured.

    Args:
        estimator: whose cost; `SEGMENTATION` for that of the masks alone.
        learned: files of what it learned.
        segmenter: that makes the masks, and the uncertainty that an estimator needs.
        checkpoint: of the segmenter.
        cases: to judge.
        predictions: their masks, for an estimator that needs nothing else.
        structures: of the data set.
        threads: of torch.
    """

    estimator: str
    learned: tuple[Path, ...]
    segmenter: SegmenterSettings
    checkpoint: Checkpoint
    cases: tuple[CaseView, ...]
    predictions: tuple[Prediction, ...]
    structures: tuple[Structure, ...]
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityCost:
    """What a job took.

    Args:
        seconds: of the work, without starting Python, and without loading what an estimator learned.
        loading_seconds: of that, once.
        peak_mb: largest resident set of the process.
        idle_mb: of the same process before the work.
        disk_mb: written beside label maps, and files of what was learned.
    """

    seconds: float
    loading_seconds: float
    peak_mb: float
    idle_mb: float
    disk_mb: float


def measure_apart(job: CostJob, folder: Path) -> QualityCost:
    """Run a job in a process of its own.

    Args:
        job: to measure.
        folder: for its files, which are small; what it predicts is removed again.

    Raises:
        CampaignError: if the process fails, with what it said last.
    """
    path, result = folder / "job.pickle", folder / "cost.json"
    write_bytes(path, pickle.dumps(job))
    command = [sys.executable, "-m", "flows.quality_cost", str(path), str(result)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    path.unlink()
    if done.returncode or not result.is_file():
        last = done.stderr.strip().splitlines()[-1:] or ["nothing was said"]
        raise CampaignError(
            f"The cost of {job.estimator} could not be measured ({last[0]}); set cost_cases to 0 to go on "
            "without it"
        )
    return read_cost(result)


def read_cost(path: Path) -> QualityCost:
    """Read what a job took."""
    return QualityCost(**json.loads(path.read_text()))


def learning_seconds(folder: Path, estimator: str) -> float:
    """Seconds of the stages in which an estimator learned, 0 for one that learns nothing."""
    wanted = _LEARNING.get(estimator, ())
    found = [read_json(path) for path in sorted(folder.glob(f"[!.]*/{MANIFEST}"))]
    return float(
        sum(
            each["seconds"]
            for each in found
            if each["stage"] in wanted or (wanted and each["stage"].startswith(("fold", "repeat")))
        )
    )


def run_job(job: CostJob, scratch: Path) -> tuple[float, float, float]:
    """Do a job here and now.

    Returns:
        Seconds of the work, seconds of loading what was learned, and megabytes on disk.
    """
    from flows.environment import use_threads
    from flows.estimator_stages import load_learned
    from segmenters.registry import make_segmenter
    from sentinel.estimators.registry import build_estimator, estimator_entry

    use_threads(job.threads)
    entry = None if job.estimator == SEGMENTATION else estimator_entry(job.estimator)
    predictions: Sequence[Prediction] = job.predictions
    started = time.monotonic()
    estimator = None
    if entry is not None:
        estimator = build_estimator(job.estimator, load_learned(entry.learns, job.learned))
    loaded = time.monotonic()
    if entry is None or entry.needs:
        kinds = tuple(sorted(entry.needs)) if entry is not None else ()
        segmenter = make_segmenter(job.segmenter, scratch / "workspace")
        predictions = segmenter.predict(job.cases, job.checkpoint, job.structures, scratch, uncertainty=kinds)
    if estimator is not None:
        estimator.estimate(job.cases, predictions, job.structures)
    seconds = time.monotonic() - loaded
    written = [path for path in scratch.rglob("*") if path.is_file() and ".nii" not in path.name]
    disk_mb = sum(path.stat().st_size for path in (*written, *job.learned)) / 1e6
    return seconds, loaded - started, disk_mb


def resident_peak_mb() -> float:
    """Largest resident set of this process so far, in megabytes of 2**20 bytes."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) / 1024.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


def main() -> None:
    """Measure the job that the command line names."""
    import tempfile

    import sentinel.estimators.registry  # noqa: F401

    path, result = Path(sys.argv[1]), Path(sys.argv[2])
    job: CostJob = pickle.loads(path.read_bytes())  # noqa: S301
    idle_mb = resident_peak_mb()
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        seconds, loading_seconds, disk_mb = run_job(job, Path(scratch))
    found = QualityCost(
        seconds=seconds,
        loading_seconds=loading_seconds,
        peak_mb=resident_peak_mb(),
        idle_mb=idle_mb,
        disk_mb=disk_mb,
    )
    write_json(result, asdict(found))


if __name__ == "__main__":
    main()
