"""One round of the hippocampus campaign with every family of segmenters, as a table.

    python benchmarks/family_rounds.py --data Task04_Hippocampus --out families --set threads=1

Each trains on the same 12 labelled cases and is measured on the same 60 held-out cases. Steps differ, so that
each takes minutes on a processor: the table shows that a campaign runs with each, not which one is best. What
is finished is not run again.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from campaign_tables import rows

from flows.campaign import open_campaign

CONFIG = "configs/active_learning/hippocampus.yaml"
OWN = "spacing_mm: [1.0, 1.0, 1.0], batch_size: 4, overlap: 0.25"
ALONE = "spacing_mm: [1.0, 1.0, 1.0], batch_size: 1, overlap: 0.25"
PROGRAM = f"{sys.executable} {Path(__file__).with_name('program_segmenter.py')}"
ARMS = {
    "unet": f"{{network: unet, channels: [8, 16, 32, 64, 128], full_resolution: true, {OWN}, "
    "patch: [40, 56, 40], steps: 300}",
    "segresnet": f"{{network: segresnet, channels: [8, 16, 32, 64], {OWN}, patch: [40, 56, 40], steps: 300}}",
    "dynunet": f"{{network: dynunet, channels: [16, 32, 64, 128], {OWN}, patch: [40, 56, 40], steps: 300}}",
    "swinunetr": f"{{network: swinunetr, channels: [12], {ALONE}, patch: [32, 64, 32], steps: 60}}",
    "stunet_small": f"{{network: stunet_small, {ALONE}, patch: [64, 64, 64], steps: 60}}",
    "nnunet": "{family: nnunet, modality: MRI, batch_size: 2, steps: 240}",
    "bundle": "{family: bundle, path: BUNDLE, trust: true, patch: [40, 56, 40], batch_size: 4, steps: 300, "
    "learning_rate: 3.0e-3}",
    "command": f"{{family: command, fit: '{PROGRAM} fit {{images}} {{labels}} {{weights}} --steps {{steps}} "
    f"--seed {{seed}}', predict: '{PROGRAM} predict {{images}} {{output}} {{weights}}', steps: 300}}",
}


def write_bundle(root: Path) -> Path:
    """A MONAI bundle of a U-Net with random weights; fine-tuning teaches it everything."""
    import json

    import torch
    from monai.networks.nets import UNet

    if (root / "models" / "model.pt").is_file():
        return root
    network = {
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 3,
        "channels": [8, 16, 32, 64, 128],
        "strides": [1, 2, 2, 2],
    }
    key = {"keys": "image"}
    inference = {
        "network_def": {"_target_": "UNet", **network},
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", **key},
                {"_target_": "EnsureChannelFirstd", **key},
                {"_target_": "Orientationd", **key, "axcodes": "RAS"},
                {"_target_": "Spacingd", **key, "pixdim": [1.0, 1.0, 1.0], "mode": "bilinear"},
                {"_target_": "NormalizeIntensityd", **key},
                {"_target_": "EnsureTyped", **key},
            ],
        },
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [40, 56, 40], "overlap": 0.25},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [{"_target_": "Activationsd", "keys": "pred", "softmax": True}],
        },
    }
    meaning = {"0": "background", "1": "anterior hippocampus", "2": "posterior hippocampus"}
    data = {
        "inputs": {"image": {"type": "image", "num_channels": 1, "spatial_shape": [40, 56, 40]}},
        "outputs": {"pred": {"type": "image", "num_channels": 3, "channel_def": meaning}},
    }
    (root / "configs").mkdir(parents=True, exist_ok=True)
    (root / "models").mkdir(exist_ok=True)
    (root / "configs" / "inference.json").write_text(json.dumps(inference))
    (root / "configs" / "metadata.json").write_text(
        json.dumps({"version": "0.1.0", "network_data_format": data})
    )
    torch.manual_seed(0)
    torch.save(UNet(**network).state_dict(), root / "models" / "model.pt")
    return root


def run(arm: str, options: argparse.Namespace) -> None:
    """One campaign of one round."""
    settings = ARMS[arm].replace("BUNDLE", str(write_bundle(options.out / "bundle_with_random_weights")))
    values = {
        "data.root": options.data,
        "campaigns_root": options.out,
        "name": arm,
        "strategy": "random",
        "rounds": 1,
        "start.cases": 12,
        "segmenter": settings,
    }
    command = [sys.executable, "-c", "from flows.cli import main; main()", "active-learning"]
    command += ["--config", CONFIG, *(f"--set={key}={value}" for key, value in values.items())]
    command += [f"--set={setting}" for setting in options.settings]
    subprocess.run(command, check=True)


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--set", action="append", default=[], dest="settings")
    options = parser.parse_args()
    options.out = options.out.resolve()
    for arm in options.arms:
        run(arm, options)
    for arm in options.arms:
        print("\n".join(rows(open_campaign(options.out / arm))), flush=True)


if __name__ == "__main__":
    main()
