"""A data set as mixed as real ones: a declared minority of its scans degraded by acquisition artefacts.

    pip install 'sentinel-loop[benchmarks]' -c constraints.txt
    python benchmarks/degraded_minority.py path/to/Task04_Hippocampus --held-out 60 --out mixed/hippocampus

Writes a data set in the Decathlon layout: references and splits as they were, `share` of the held-out cases
and the same share of the others degraded, each by one artefact, and `groups.csv` (case_id, group, artefact).
Which cases and which draws follow from the seed and the case's id. The artefacts are TorchIO's: low
resolution along one axis, a bias field, motion in k-space, noise; their strengths were fixed before any
training.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torchio as tio

from cohort.layouts import decathlon
from cohort.seeds import derive_seed
from cohort.volume import read_image, write_bytes, write_volume

ARTEFACTS: dict[str, tio.Transform] = {
    "low resolution": tio.RandomAnisotropy(downsampling=(2.5, 4)),
    "bias field": tio.RandomBiasField(coefficients=0.5),
    "motion": tio.RandomMotion(degrees=(5, 12), translation=(4, 10), num_transforms=2),
    "noise": tio.RandomNoise(std=(0.12, 0.2)),
}
"""Strengths for an image whose 1st to 99th percentile is 0 to 1."""

BORDER = 8
"""Voxels that are repeated at the edges first, so that nothing from outside the image comes in."""


def minority(case_ids: list[str], share: float, seed: int) -> list[str]:
    """The cases to degrade, in an order of their own."""
    order = sorted(case_ids, key=lambda case_id: derive_seed(seed, "minority", case_id))
    return order[: round(share * len(order))]


def degrade(image: np.ndarray, affine: np.ndarray, artefact: str, seed: int) -> np.ndarray:
    """An image with one artefact, in the units that it had.

    Args:
        image: (D, H, W).
        affine: (4, 4), voxel to mm.
        artefact: one of `ARTEFACTS`.
        seed: of its draws.
    """
    low, high = np.percentile(image, (1.0, 99.0))
    scale = max(float(high - low), 1e-6)
    bordered = np.pad((image.astype(np.float32) - low) / scale, BORDER, mode="edge")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = ARTEFACTS[artefact](tio.ScalarImage(tensor=torch.from_numpy(bordered)[None], affine=affine))
    inner = (slice(BORDER, -BORDER),) * 3
    return (made.numpy()[0][inner] * scale + low).astype(np.float32)


def main() -> None:
    """Write the data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--held-out", type=int, required=True, help="first cases of splits.json")
    parser.add_argument("--share", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    dataset = decathlon.read(options.root)
    held_out = list(dataset.held_out[: options.held_out])
    others = [case.case_id for case in dataset.cases if case.case_id not in held_out]
    chosen = [case_id for ids in (held_out, others) for case_id in minority(ids, options.share, options.seed)]
    names = sorted(ARTEFACTS)
    artefact = {case_id: names[number % len(names)] for number, case_id in enumerate(chosen)}
    for case in dataset.cases:
        target = options.out / case.image.relative_to(options.root)
        target.parent.mkdir(parents=True, exist_ok=True)
        if case.case_id in artefact:
            volume = read_image(case.image)
            seed = derive_seed(options.seed, "artefact", case.case_id) % 2**32
            array = degrade(volume.array, volume.affine, artefact[case.case_id], seed)
            write_volume(target, array, volume.affine)
        else:
            shutil.copyfile(case.image, target)
        if case.reference is not None:
            reference = options.out / case.reference.relative_to(options.root)
            reference.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(case.reference, reference)
    rows = [
        {
            "case_id": case.case_id,
            "group": "degraded" if case.case_id in artefact else "as acquired",
            "artefact": artefact.get(case.case_id, ""),
        }
        for case in dataset.cases
    ]
    write_bytes(options.out / "groups.csv", pd.DataFrame(rows).to_csv(index=False).encode())
    described = json.loads((options.root / "dataset.json").read_text())
    described["name"] = f"{described['name']}_degraded_minority"
    write_bytes(options.out / "dataset.json", json.dumps(described, indent=1).encode())
    shutil.copyfile(options.root / "splits.json", options.out / "splits.json")
    print(pd.DataFrame(rows).groupby(["group", "artefact"]).size().to_string())


if __name__ == "__main__":
    main()
