"""DSC on the held-out cases against minutes of training, for any segmenter: a command an arm, then a figure.

    python benchmarks/dsc_against_minutes.py --config configs/active_learning/hippocampus.yaml \
        --set data.root=DATA --name unet --steps 4000 --checkpoints 8 --out minutes
    python benchmarks/dsc_against_minutes.py ... --name nnunet --set 'segmenter={family: nnunet}'
    python benchmarks/dsc_against_minutes.py --figure --out minutes

Trains on every case that is not held out and measures checkpoints along the way; the minutes are wall time of
`fit` until the checkpoint, reading and preparing the cases included, and nothing that comes after. Every
arm's schedule of the learning rate is laid out for all its steps, so early points are those of an unfinished
training. What is measured is kept; a second start goes on with the checkpoints that are left.
"""

import argparse
import time
from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from campaign_tables import interval

from cohort.case import Dataset
from cohort.records import Checkpoint, TrainingCase
from cohort.volume import write_bytes
from flows.config import ActiveLearningConfig, load_config
from flows.data import read_dataset
from flows.environment import code_version, use_threads
from flows.stages import read_json, write_json
from segmenters.base import Segmenter, find_checkpoints
from segmenters.evaluation import evaluate_case
from segmenters.registry import make_segmenter


class Clock:
    """Told of a training's progress, remembers when each step was done."""

    def __init__(self, name: str) -> None:
        self._name, self._started = name, time.perf_counter()
        self.minutes: dict[int, float] = {}

    def __call__(self, step: int, total: int, metrics: Mapping[str, float]) -> None:
        """Hear of one step."""
        self.minutes[step] = (time.perf_counter() - self._started) / 60.0
        if step % 100 == 0 or step == total:
            shown = {name: round(value, 4) for name, value in metrics.items()}
            print(f"{self._name} {step}/{total} {self.minutes[step]:.1f} min {shown}", flush=True)

    def at(self, step: int) -> float:
        """Minutes until a step, or until the first one after it that was told of."""
        return self.minutes[min(told for told in self.minutes if told >= step)]


def trained(
    options: argparse.Namespace, config: ActiveLearningConfig, dataset: Dataset, held_out: tuple[str, ...]
) -> tuple[Segmenter, tuple[Checkpoint, ...], dict[str, float]]:
    """Checkpoints, and the minutes until each."""
    folder = options.out / options.name
    segmenter = make_segmenter(config.segmenter, folder / "workspace")
    times = folder / "minutes.json"
    if not times.is_file():
        cases = [
            TrainingCase(
                case_id=case.case_id,
                patient_id=case.patient_id,
                image=case.image,
                label_map=case.reference,
                annotated=frozenset(case.annotated),
            )
            for case in dataset.cases
            if case.case_id not in held_out and case.reference is not None
        ]
        wanted = [options.steps * (part + 1) // options.checkpoints for part in range(options.checkpoints)]
        clock = Clock(options.name)
        checkpoints = segmenter.fit(
            cases,
            dataset.structures,
            folder / "weights",
            seed=config.seed,
            steps=options.steps,
            checkpoint_steps=wanted,
            report=clock,
        )
        write_json(times, {str(c.step): clock.at(c.step) for c in checkpoints})
    return segmenter, find_checkpoints(folder / "weights"), read_json(times)


def measured(
    segmenter: Segmenter, checkpoint: Checkpoint, dataset: Dataset, held_out: tuple[str, ...], out: Path
):  # type: ignore[no-untyped-def]
    """DSC and NSD of every held-out case."""
    path = out / f"results-{checkpoint.step:06d}.csv"
    if not path.is_file():
        cases = [dataset.by_id[case_id] for case_id in held_out]
        folder = out / f"masks-{checkpoint.step:06d}"
        predictions = segmenter.predict([c.view() for c in cases], checkpoint, dataset.structures, folder)
        rows = [
            {"case_id": result.case_id, "structure": result.structure, "dsc": result.dsc, "nsd": result.nsd}
            for case, prediction in zip(cases, predictions, strict=True)
            for result in evaluate_case(case, prediction.mask, dataset.structures, tolerance_mm=1.0)
        ]
        write_bytes(path, pd.DataFrame(rows).to_csv(index=False).encode())
    return pd.read_csv(path, dtype={"case_id": str})


def measure(options: argparse.Namespace) -> None:
    """One arm."""
    config = load_config(options.config, options.settings)
    threads = use_threads(config.threads)
    dataset, held_out = read_dataset(config.data, options.out)
    segmenter, checkpoints, minutes = trained(options, config, dataset, held_out)
    rows = []
    for checkpoint in checkpoints:
        table = measured(segmenter, checkpoint, dataset, held_out, options.out / options.name)
        names = [s.name for s in dataset.structures]
        lower, upper = interval(table, names)
        dsc = table.groupby("structure")["dsc"].mean().reindex(names).mean()
        rows.append(
            {
                "arm": options.name,
                "steps": checkpoint.step,
                "minutes": round(minutes[str(checkpoint.step)], 2),
                "threads": threads,
                "dsc": round(float(dsc), 4),
                "lower": round(lower, 4),
                "upper": round(upper, 4),
                "nsd": round(float(table.groupby("structure")["nsd"].mean().mean()), 4),
                "code": code_version(),
            }
        )
        write_bytes(options.out / f"{options.name}.csv", pd.DataFrame(rows).to_csv(index=False).encode())
        print(rows[-1], flush=True)


def draw(out: Path) -> None:
    """All arms in one figure, and as a Markdown table."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    found = [pd.read_csv(path) for path in sorted(out.glob("*.csv"))]
    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for table in found:
        (line,) = axes.plot(table["minutes"], table["dsc"], marker="o", label=table["arm"][0])
        axes.fill_between(
            table["minutes"], table["lower"], table["upper"], alpha=0.15, color=line.get_color()
        )
    axes.set_xlabel("minutes of training")
    axes.set_ylabel("mean DSC of held-out cases, 95 % interval")
    axes.set_xlim(left=0.0)
    axes.set_ylim(bottom=max(0.0, min(float(np.min(table["lower"])) for table in found) - 0.01))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(out / "dsc_against_minutes.png", dpi=150)
    columns = ["arm", "steps", "minutes", "dsc", "lower", "upper", "nsd"]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for table in found:
        lines += ["| " + " | ".join(str(row[c]) for c in columns) + " |" for _, row in table.iterrows()]
    print("\n".join(lines))


def main() -> None:
    """Measure an arm, or draw all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--name", default="unet")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--checkpoints", type=int, default=8)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--figure", action="store_true")
    options = parser.parse_args()
    if options.figure:
        draw(options.out)
    elif options.config is None:
        parser.error("--config is missing: the configuration that names the data and the segmenter")
    else:
        options.out.mkdir(parents=True, exist_ok=True)
        measure(options)


if __name__ == "__main__":
    main()
