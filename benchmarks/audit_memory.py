"""Peak memory of an audit against the number of cases.

    python benchmarks/audit_memory.py --data OpenKBP_HeadNeck --weights sentinel.safetensors --cases 10 100

Each audit is a process of its own on the first n cases of a data set in the Decathlon layout, linked into a
folder of their own. Printed and written: the largest resident set of the process, as the system accounts it.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def subset(data: Path, count: int, folder: Path) -> Path:
    """A data set of the first cases of another."""
    document = json.loads((data / "dataset.json").read_text())
    listed = document["training"][:count]
    if len(listed) < count:
        raise SystemExit(f"{data} has {len(listed)} labelled cases, fewer than {count}")
    for case in listed:
        for key in ("image", "label"):
            target = folder / case[key]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to((data / case[key]).resolve())
    ids = {Path(case["image"]).name.removesuffix(".gz").removesuffix(".nii") for case in listed}
    annotated = document.get("annotated_structures", {})
    document["annotated_structures"] = {key: value for key, value in annotated.items() if key in ids}
    document |= {"training": listed, "numTraining": count, "test": [], "numTest": 0}
    (folder / "dataset.json").write_text(json.dumps(document))
    return folder


def peak_mb(options: argparse.Namespace, root: Path, out: Path) -> tuple[float, float]:
    """Peak resident memory in MB and seconds of one audit."""
    command = [sys.executable, "-c", "from flows.cli import main; main()", "audit", str(root), "--quiet"]
    command += ["--layout", "decathlon", "--weights", str(options.weights), "--out", str(out / "scores.csv")]
    started = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"The audit of {root} failed")
    seconds = time.perf_counter() - started
    return _mb(usage), seconds


def _mb(usage: resource.struct_rusage) -> float:
    return usage.ru_maxrss / 1024.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--cases", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--out", type=Path, default=Path("audit_memory.json"))
    options = parser.parse_args()
    found = []
    for count in options.cases:
        with tempfile.TemporaryDirectory() as folder:
            root = subset(options.data, count, Path(folder) / "data")
            peak, seconds = peak_mb(options, root, Path(folder))
        found.append({"cases": count, "peak_mb": round(peak, 1), "seconds": round(seconds, 1)})
        print(found[-1], flush=True)
    ratio = found[-1]["peak_mb"] / found[0]["peak_mb"]
    result = {"audits": found, "ratio": round(ratio, 3)}
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"ratio of the last to the first: {ratio:.3f}")


if __name__ == "__main__":
    main()
