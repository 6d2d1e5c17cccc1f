"""Time and memory of ranking and selecting from a large pool, for every strategy.

    python benchmarks/selection_load.py                    # 100,000 cases of 7 structures
    python benchmarks/selection_load.py --unit structure   # each structure of each case is a candidate

Every strategy runs in a process of its own on the same random pool. Seconds are those of the selection
alone; memory is the peak of the process, candidates included. Prints a table in Markdown.
"""

import argparse
import resource
import time
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np

from cohort.budget import Budget, Cost
from cohort.selection import PRESETS, Candidate, Selection, resolve, select

STRUCTURES = tuple(f"structure_{number}" for number in range(7))
FEATURES = 32


class Measured(NamedTuple):
    """What one strategy took."""

    strategy: str
    candidates: int
    seconds: float
    cpu_seconds: float
    peak_mib: float
    selected: int
    held_back: int


def make_pool(cases: int, unit: str) -> tuple[list[Candidate], dict[str, np.ndarray]]:
    """Random candidates and 200 labelled cases; a tenth of the masks are empty, one case in 50 is a copy."""
    rng = np.random.default_rng(0)
    scores = rng.beta(8.0, 2.0, (cases, len(STRUCTURES)))
    scores[rng.random(scores.shape) < 0.1] = np.nan
    features = rng.normal(size=(cases + 200, FEATURES)).astype(np.float32) / np.float32(FEATURES**0.5)
    features[: cases // 50] = features[cases // 50 : 2 * (cases // 50)]
    slices = rng.integers(5, 40, scores.shape)
    pool = []
    for row in range(cases):
        pool.extend(_candidates(row, scores[row], slices[row], features[row], unit))
    return pool, {f"labelled_{n:03d}": features[cases + n] for n in range(200)}


def _candidates(
    row: int, scores: np.ndarray, slices: np.ndarray, features: np.ndarray, unit: str
) -> list[Candidate]:
    found = dict(zip(STRUCTURES, scores.tolist(), strict=True))
    volumes = {
        name: 0.0 if np.isnan(score) else float(n)
        for (name, score), n in zip(found.items(), slices, strict=True)
    }
    case_id, patient_id = f"case_{row:06d}", f"patient_{row:06d}"
    if unit == "case":
        minutes = 2.0 + len(STRUCTURES) + 0.2 * float(slices.sum())
        cost = Cost(cases=1.0, structures=float(len(STRUCTURES)), minutes=minutes)
        return [
            Candidate(
                case_id=case_id,
                patient_id=patient_id,
                structures=STRUCTURES,
                scores=found,
                volumes_ml=volumes,
                features=features,
                cost=cost,
            )
        ]
    return [
        Candidate(
            case_id=case_id,
            patient_id=patient_id,
            part=name,
            structures=(name,),
            scores={name: found[name]},
            volumes_ml={name: volumes[name]},
            features=features,
            cost=Cost(cases=1.0, structures=1.0, minutes=3.0 + 0.2 * float(n)),
            further=Cost(structures=1.0, minutes=1.0 + 0.2 * float(n)),
        )
        for name, n in zip(STRUCTURES, slices, strict=True)
    ]


def measure(name: str, cases: int, unit: str, budget: Budget, options: dict[str, object]) -> Measured:
    """Select once; meant for a fresh process."""
    pool, labelled = make_pool(cases, unit)
    strategy, _ = resolve(name, options=options)
    started, started_cpu = time.perf_counter(), time.process_time()
    selection: Selection = select(strategy, pool, budget, round=1, rounds=5, seed=0, labelled=labelled)
    seconds, cpu = time.perf_counter() - started, time.process_time() - started_cpu
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
    chosen = sum(len(request.structures) for request in selection.requests)
    return Measured(name, len(pool), seconds, cpu, peak_mib, chosen, len(selection.held_back))


def main() -> None:
    """Measure every strategy and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--unit", choices=("case", "structure"), default="case")
    parser.add_argument("--currency", default="structures")
    parser.add_argument("--per-round", type=float, default=700.0)
    given = parser.parse_args()
    budget = Budget(currency=given.currency, per_round=given.per_round)
    runs: list[tuple[str, str, dict[str, object]]] = [(name, name, {}) for name in _distinct()]
    runs.append(("quality_diverse, spread 4", "quality_diverse", {"spread": 4.0}))
    print(f"{given.cases} cases, {len(STRUCTURES)} structures, unit {given.unit}, ", end="")
    print(f"{given.per_round:g} {given.currency}\n")
    print("| strategy | candidates | seconds | CPU seconds | peak MiB | structures selected | held back |")
    print("|---|---|---|---|---|---|---|")
    for shown, name, options in runs:
        with get_context("spawn").Pool(1) as process:
            found = process.apply(measure, (name, given.cases, given.unit, budget, options))
        times = f"{found.seconds:.1f} | {found.cpu_seconds:.1f} | {found.peak_mib:.0f}"
        counts = f"{found.selected} | {found.held_back}"
        print(f"| {shown} | {found.candidates} | {times} | {counts} |", flush=True)


def _distinct() -> list[str]:
    """Names of the presets without those that differ in their estimator alone."""
    seen: dict[object, str] = {}
    for name in ("quality", *PRESETS):
        seen.setdefault(PRESETS[name][0], name)
    return list(seen.values())


if __name__ == "__main__":
    main()
