"""A segmenter behind a command line, as a lab's own container would be: for `family: command`.

    python benchmarks/program_segmenter.py fit IMAGES LABELS WEIGHTS --steps 300 --seed 0
    python benchmarks/program_segmenter.py predict IMAGES OUTPUT WEIGHTS

Trains the project's U-Net on the cases in a folder, in a process of its own.
"""

import argparse
import json
from pathlib import Path

from cohort.case import CaseView, Structure
from cohort.records import TrainingCase
from segmenters.base import find_checkpoints
from segmenters.config import SegmenterConfig
from segmenters.torch_segmenter import TorchSegmenter

CONFIG = SegmenterConfig(
    channels=(8, 16, 32, 64, 128), full_resolution=True, patch=(40, 56, 40), spacing_mm=(1.0, 1.0, 1.0)
)
STRUCTURES = "structures.json"


def fit(images: Path, labels: Path, weights: Path, steps: int, seed: int) -> None:
    """Learn from `images/<case>.nii.gz`, `labels/<case>.nii.gz` and `labels/cohort.json`."""
    cohort = json.loads((labels / "cohort.json").read_text())
    structures = [Structure(name=name, label=label) for name, label in cohort["labels"].items()]
    cases = [
        TrainingCase(
            case_id=case_id,
            patient_id=case_id,
            image=images / f"{case_id}.nii.gz",
            label_map=labels / f"{case_id}.nii.gz",
            annotated=frozenset(annotated),
        )
        for case_id, annotated in sorted(cohort["annotated"].items())
    ]
    TorchSegmenter(CONFIG).fit(cases, structures, weights, seed=seed, steps=steps)
    (weights / STRUCTURES).write_text(json.dumps(cohort["labels"]))


def predict(images: Path, output: Path, weights: Path) -> None:
    """Write `output/<case>.nii.gz` for every image."""
    labels = json.loads((weights / STRUCTURES).read_text())
    structures = [Structure(name=name, label=label) for name, label in labels.items()]
    found = {path.name.removesuffix(".nii.gz"): path for path in sorted(images.glob("*.nii.gz"))}
    views = [CaseView(case_id=name, patient_id=name, image=path) for name, path in found.items()]
    TorchSegmenter(CONFIG).predict(views, find_checkpoints(weights)[-1], structures, output)


def main() -> None:
    """Fit or predict."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("fit", "predict"))
    parser.add_argument("images", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.what == "fit":
        fit(options.images, options.other, options.weights, options.steps, options.seed)
    else:
        predict(options.images, options.other, options.weights)


if __name__ == "__main__":
    main()
