"""Whole-audit wall time of the sentinel against a slice-by-slice baseline, in one run on one machine.

    python benchmarks/sentinel_speed.py --data TotalSegmentator_example --embeddings label_embedding.pkl

The baseline does what the published code does: per slice a PIL image, torchvision's transforms, one forward
pass in float32. Both read the same files, after imports and weights are loaded. Without --weights the network
gets weights made from the names of its tensors, which cost the same time. Repeats alternate between the
contestants; the smallest time of each counts, all are printed. `bare` is the forward passes alone, of the
same slices, already cut, in the same batches and precision.
"""

import argparse
import importlib
import json
import math
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cohort.layouts.masks import MaskDataset, read_masks
from cohort.volume import read_image, read_label_map
from flows.audit_rows import Audited, score_cases
from flows.environment import use_threads
from sentinel.network import QualitySentinel
from sentinel.scoring import BATCH, Sentinel
from sentinel.vision import import_torchvision

import_torchvision()
transforms = importlib.import_module("torchvision.transforms.functional")

SIZE, SLICES, MARGIN = 256, 10, 20


def weights_from_names(network: QualitySentinel) -> dict[str, torch.Tensor]:
    """A state dict that anybody can make again: normal weights seeded by the tensor's name."""
    state = {}
    for name, value in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.zeros_like(value)
        elif name.endswith(("bias", "running_mean")):
            state[name] = torch.zeros(value.shape)
        elif value.ndim == 1:
            state[name] = torch.ones(value.shape)
        else:
            rng = np.random.default_rng(zlib.crc32(name.encode()))
            drawn = rng.standard_normal(tuple(value.shape)) / math.sqrt(math.prod(value.shape[1:]))
            state[name] = torch.from_numpy(drawn.astype(np.float32))
    return state


def baseline(dataset: MaskDataset, sentinel: Sentinel) -> dict[tuple[str, str], float]:
    """Scores of every mask, one slice after the other."""
    network = sentinel.network.to(memory_format=torch.contiguous_format)
    scores = {}
    for case in dataset.cases:
        image = read_image(case.image).array
        grey = np.clip((np.clip(image, -200.0, 200.0) + 200.0) / 400.0, 0.0, 1.0)
        for found in case.masks:
            structure = sentinel.structure_index(found.structure)
            if structure is None:
                continue
            mask = read_label_map(found.path).array > 0
            valid = np.flatnonzero(mask.any(axis=(1, 2)))
            if len(valid) > SLICES:
                valid = valid[[int(len(valid) / SLICES * i) for i in range(SLICES)]]
            text = torch.from_numpy(sentinel.embeddings[[structure]])
            values = [one_slice(network, grey[index], mask[index], text) for index in valid]
            if values:
                scores[case.case_id, found.structure] = sum(values) / len(values)
    return scores


def one_slice(network: QualitySentinel, grey: np.ndarray, mask: np.ndarray, text: torch.Tensor) -> float:
    """Crop, transform and score one slice."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, bottom = max(0, rows[0] - MARGIN), min(mask.shape[0], rows[-1] + MARGIN)
    left, right = max(0, columns[0] - MARGIN), min(mask.shape[1], columns[-1] + MARGIN)
    grow = abs((bottom - top) - (right - left)) // 2
    if bottom - top < right - left:
        top, bottom = max(0, top - grow), min(mask.shape[0], bottom + grow)
    else:
        left, right = max(0, left - grow), min(mask.shape[1], right + grow)
    planes = []
    for plane, mean, std in ((grey, 0.5, 0.25), (mask.astype(np.float64), 0.5, 0.5)):
        picture = Image.fromarray((plane[top:bottom, left:right] * 255).astype(np.uint8))
        resized = transforms.resize(picture, [SIZE, SIZE])
        planes.append(transforms.normalize(transforms.to_tensor(resized), [mean], [std]))
    with torch.inference_mode():
        return float(network(torch.cat(planes)[None], text))


def bare(sentinel: Sentinel, slices: list[np.ndarray], structures: list[np.ndarray]) -> None:
    """The forward passes alone."""
    for batch, structure in zip(slices, structures, strict=True):
        sentinel.judge(batch, structure)


class Recorder:
    """Keeps the batches that a sentinel was given."""

    def __init__(self, sentinel: Sentinel) -> None:
        self.slices: list[np.ndarray] = []
        self.structures: list[np.ndarray] = []
        self._judge = sentinel.judge

    def __call__(self, slices: np.ndarray, structures: np.ndarray) -> np.ndarray:
        """Record and pass on."""
        self.slices.append(slices)
        self.structures.append(structures)
        return self._judge(slices, structures)


def timed(function: Callable[[], object]) -> tuple[float, object]:
    """Seconds, and what the function gave."""
    started = time.perf_counter()
    found = function()
    return time.perf_counter() - started, found


def loaded(options: argparse.Namespace, dataset: MaskDataset) -> Sentinel:
    """The user's weights, or those made from names; without structures that the data set does not have."""
    path = options.weights
    if path is None:
        path = options.out.with_suffix(".weights.pth")
        network = QualitySentinel(backbone="resnet50")
        torch.save(weights_from_names(network), path)
    return Sentinel.load(path, options.embeddings, precision=options.precision)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--layout", default="totalsegmentator")
    parser.add_argument("--embeddings", type=Path, required=True)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("sentinel_speed.json"))
    options = parser.parse_args()
    threads = use_threads(0)
    dataset = read_masks(options.data, options.layout)
    sentinel = loaded(options, dataset)
    reference = loaded(options, dataset)
    reference.network.eval()
    recorder = Recorder(sentinel)
    sentinel.judge = recorder  # type: ignore[method-assign]
    score_cases(dataset.cases, sentinel)  # warms up, and records the batches
    del sentinel.judge
    seconds: dict[str, list[float]] = {"baseline": [], "ours": [], "bare": []}
    for _ in range(options.repeats):
        took, expected = timed(lambda: baseline(dataset, reference))
        seconds["baseline"].append(took)
        took, rows = timed(lambda: score_cases(dataset.cases, sentinel))
        seconds["ours"].append(took)
        took, _ = timed(lambda: bare(sentinel, recorder.slices, recorder.structures))
        seconds["bare"].append(took)
    found = {(row.case_id, row.structure): row.raw for row in _rows(rows) if row.n_slices}
    difference = max(abs(found[key] - value) for key, value in dict(expected).items())  # type: ignore[call-overload]
    best = {name: min(values) for name, values in seconds.items()}
    result = {
        "threads": threads,
        "precision": options.precision,
        "batch": BATCH,
        "masks": len(found),
        "slices": sum(len(batch) for batch in recorder.slices),
        "seconds": seconds,
        "speedup": best["baseline"] / best["ours"],
        "over_bare": best["ours"] / best["bare"],
        "largest_difference": difference,
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def _rows(rows: object) -> list[Audited]:
    assert isinstance(rows, list)
    return rows


if __name__ == "__main__":
    main()
