"""The stage that trains a sentinel on graded masks, for any flow that needs one."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path

from cohort.case import Structure
from cohort.records import GradedMask
from cohort.slabs import bounds
from flows import tasks
from flows.progress import recorded
from flows.segmenter_stages import CURVES
from flows.stages import file_sha256, run_stage, write_json
from segmenters.base import Report
from sentinel.config import SentinelConfig

SENTINEL_FILE = "sentinel.safetensors"


def train_sentinel_stage(
    parent: Path,
    name: str,
    graded: Sequence[GradedMask],
    structures: Sequence[Structure],
    config: SentinelConfig,
    *,
    seed: int,
    step: Callable[[str], AbstractContextManager[Report]],
) -> Path:
    """Train a sentinel unless it is there.

    Args:
        parent: folder that gets the stage's folder.
        name: of the stage.
        graded: masks to learn from.
        structures: of the data set.
        config: of the sentinel.
        seed: of everything random.
        step: opens the display of a step by its description.

    Returns:
        The sentinel's file.
    """
    inputs = {
        "graded": [
            [
                mask.case_id,
                mask.source,
                file_sha256(mask.mask),
                file_sha256(mask.reference),
                sorted(mask.evaluated),
                *bounds(mask.slabs),
            ]
            for mask in graded
        ],
        "sentinel": asdict(config),
        "structures": [asdict(structure) for structure in structures],
        "seed": seed,
    }

    def make(folder: Path) -> None:
        with step(f"train {name}") as report:
            curve, recorder = recorded(report)
            trained = tasks.train_sentinel(graded, structures, config, seed=seed, report=recorder)
        trained.save(folder / SENTINEL_FILE)
        write_json(folder / CURVES, curve)

    return run_stage(parent, name, inputs, make) / SENTINEL_FILE
