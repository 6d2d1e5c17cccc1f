"""What estimating the quality of masks costs: time, peak memory and disk, with and without probability maps.

    python benchmarks/quality_cost.py --training campaigns/hippocampus-sentinel-seed0 --cases 20

Works on a semi-supervised training that is finished: its teacher, its sentinel and the masks of its first
unlabelled cases. Each row is a process of its own. `sentinel` reads images and masks; `entropy` and others
reduce what the network says while a case is predicted, as the flows do; the rows with `maps kept` write the
probabilities of every pass to disk first and read them again, as tools do whose models and estimators are
apart. Seconds and disk are for all cases, and what is needed for the masks themselves is in the row `masks`.
"""

import argparse
import dataclasses
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from cohort.case import Structure
from cohort.volume import read_image
from flows import campaign as campaigns
from flows import data
from flows.quality_cost import SEGMENTATION, CostJob, resident_peak_mb, run_job
from flows.semi_supervised_config import SemiSupervisedConfig
from segmenters.base import find_checkpoints
from segmenters.checkpoints import load_network
from segmenters.inference import Windows, labels_on_image, predict_probabilities
from segmenters.predictions import read_prediction, write_prediction
from segmenters.preprocessing import prepare_image
from segmenters.torch_segmenter import channel_labels
from segmenters.uncertainty import DROPOUT_PASSES, Passes, Variation, measure

MAPS = {"entropy, maps kept": ("entropy", 0), "mc_dropout, maps kept": ("mc_dropout", DROPOUT_PASSES)}
"""Row -> uncertainty, and passes with dropout beside the plain one."""


def job_of(folder: Path, cases: int, threads: int) -> CostJob:
    """What the first unlabelled cases of a training need to be judged."""
    campaign = campaigns.open_campaign(folder)
    config = SemiSupervisedConfig.model_validate(dict(campaign.values))
    cohort = data.load_cohort(config.campaign.model_copy(update={"rounds": 1}))
    start = campaign.event("start")
    teacher = campaign.round_folder(0)
    (trained,), (segmented,) = sorted(teacher.glob("train-*")), sorted(teacher.glob("segment-pool-*"))
    sentinels = sorted(teacher.glob("sentinel-*/sentinel.safetensors"))
    if start is None or not sentinels:
        raise SystemExit(f"{folder} has no sentinel; run a training with filter.estimator=sentinel first")
    wanted = sorted(start.payload["pool"])[:cases]
    return CostJob(
        estimator=SEGMENTATION,
        learned=tuple(sentinels),
        segmenter=config.segmenter,
        checkpoint=find_checkpoints(trained)[-1],
        cases=tuple(cohort.dataset.by_id[case_id].view() for case_id in wanted),
        predictions=tuple(read_prediction(segmented / f"{case_id}.json") for case_id in wanted),
        structures=tuple(cohort.dataset.structures),
        threads=threads,
    )


def with_maps(job: CostJob, kind: str, passes: int, scratch: Path) -> tuple[float, float]:
    """Segment and keep every pass's probabilities as float32 files, then judge from the files alone."""
    started = time.monotonic()
    network, recipe = load_network(job.checkpoint, job.segmenter.architecture)
    windows = Windows.of(recipe.config)
    variations = [Variation(), *(Variation(dropout=True, seed=n) for n in range(passes))]
    for case in job.cases:
        image = read_image(case.image)
        prepared = prepare_image(image, recipe.spacing_mm, recipe.config)
        for number, variation in enumerate(variations):
            prob = predict_probabilities(network, prepared, recipe.config, windows, variation)
            np.save(scratch / f"{case.case_id}_{number}.npy", prob.numpy())
    for case in job.cases:
        _judge(job, case, recipe.structures, kind, passes, scratch)
    seconds = time.monotonic() - started
    kept = [path for path in scratch.rglob("*") if path.is_file() and ".nii" not in path.name]
    return seconds, sum(path.stat().st_size for path in kept) / 1e6


def _judge(
    job: CostJob, case: object, trained: tuple[str, ...], kind: str, passes: int, scratch: Path
) -> None:
    case_id, image = case.case_id, read_image(case.image)  # type: ignore[attr-defined]
    maps = [torch.from_numpy(np.load(scratch / f"{case_id}_{number}.npy")) for number in range(passes + 1)]
    later = iter(maps[1:])
    structures: tuple[Structure, ...] = job.structures
    names = [structure.name for structure in structures]
    found = measure(Passes(prob=maps[0], again=lambda variation: next(later)), (kind,), trained, names)
    labels = channel_labels(trained, structures, job.checkpoint.path)
    write_prediction(
        scratch,
        case_id,
        labels_on_image(maps[0], image, labels),
        image.affine,
        structures,
        job.checkpoint.sha256,
        found,
    )


def measure_here(path: Path, row: str, result: Path) -> None:
    """Run one row in this process and write what it took."""
    job: CostJob = pickle.loads(path.read_bytes())
    torch.set_num_threads(job.threads)
    torch.set_flush_denormal(True)
    idle_mb = resident_peak_mb()
    loading_seconds = 0.0
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        if row in MAPS:
            seconds, disk_mb = with_maps(job, *MAPS[row], Path(scratch))
        else:
            learned = job.learned if row == "sentinel" else ()
            name = SEGMENTATION if row == "masks" else row
            own = dataclasses.replace(job, estimator=name, learned=learned)
            seconds, loading_seconds, disk_mb = run_job(own, Path(scratch))
    peak_mb = resident_peak_mb()
    found = {"seconds": seconds, "loading_seconds": loading_seconds, "peak_mb": peak_mb, "idle_mb": idle_mb}
    found["disk_mb"] = disk_mb
    result.write_text(json.dumps({"row": row, **{name: round(value, 3) for name, value in found.items()}}))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--training", type=Path, required=True, help="Folder of a finished training.")
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=Path("quality_cost.json"))
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        measure_here(options.job, options.row, options.out)
        return
    job = job_of(options.training, options.cases, options.threads)
    rows = ["masks", "sentinel", "entropy", "inconsistency", "entropy, maps kept"]
    if "mc_dropout" in job.segmenter.measures:
        rows += ["mc_dropout", "mc_dropout, maps kept"]
    found = []
    with tempfile.TemporaryDirectory(dir=options.out.resolve().parent) as folder:
        path, result = Path(folder) / "job.pickle", Path(folder) / "row.json"
        path.write_bytes(pickle.dumps(job))
        for row in rows:
            command = [sys.executable, __file__, "--training", str(options.training), "--row", row]
            subprocess.run([*command, "--job", str(path), "--out", str(result)], check=True)
            found.append(json.loads(result.read_text()))
            print(found[-1], flush=True)
    about = {"training": options.training.name, "cases": len(job.cases), "threads": options.threads}
    options.out.write_text(json.dumps({**about, "rows": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
