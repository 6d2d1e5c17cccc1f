"""Campaigns whose segmenter is somebody else's program or bundle, through real Prefect and real MLflow."""

import shlex
import shutil
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from flows.config import load_config
from flows.launch import launch
from flows.progress import Display
from flows.stages import read_json

pytestmark = pytest.mark.slow

THRESHOLDS = """
    import sys
    from pathlib import Path
    import nibabel as nib
    import numpy as np

    images, output = map(Path, sys.argv[1:])
    for path in images.glob("*.nii.gz"):
        image = nib.load(path)
        array = image.get_fdata()
        labels = np.where(array > 60, 11, np.where(array < 0, 12, 0)).astype(np.uint8)
        nib.save(nib.Nifti1Image(labels, image.affine), output / path.name)
    print("segmented", len(list(images.iterdir())))
"""


def test_a_round_with_a_program_that_is_not_trained(
    make_decathlon: Callable[..., Path], make_campaign_yaml: Callable[..., Path], tmp_path: Path
) -> None:
    program = tmp_path / "in house" / "thresholds.py"
    program.parent.mkdir()
    program.write_text(textwrap.dedent(THRESHOLDS))
    segmenter = {
        "family": "command",
        "predict": f"{shlex.join([sys.executable, str(program)])} {{images}} {{output}}",
        "labels": {"liver": 11, "spleen": [12]},
    }
    changes = {"strategy": "quality", "rounds": 2, "segmenter": segmenter}
    path = make_campaign_yaml(make_decathlon(8), changes)

    campaign = launch(load_config(path), Display(quiet=True))

    assert campaign.event("finished") is not None
    first, second = (entry.payload for entry in campaign.events("result"))
    assert first["checkpoint_sha256"] == second["checkpoint_sha256"]
    assert 0.0 < first["dsc"] == second["dsc"] < 1.0
    assert first["dsc_per_structure"].keys() == {"liver", "spleen"}
    folder = campaign.round_folder(0)
    (scores,) = folder.glob("score-*/scores.csv")
    assert set(pd.read_csv(scores)["estimator"]) == {"sentinel"}
    (trained,) = folder.glob("train-*/step_0000.command")
    assert read_json(trained)["labels"] == {"liver": 11, "spleen": [12]}
    (log,) = folder.glob("segment-pool-*/predict.out.log")
    assert log.read_text() == "segmented 3\n"

    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.nii.gz")}
    launch(load_config(path), Display(quiet=True))
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.nii.gz")} == before


@pytest.mark.parametrize("steps", [0, 2])
def test_a_round_with_a_bundle(
    make_decathlon: Callable[..., Path],
    make_campaign_yaml: Callable[..., Path],
    write_bundle: Callable[..., Path],
    tmp_path: Path,
    steps: int,
) -> None:
    bundle = write_bundle(tmp_path / "bundle", channels=("background", "spleen", "liver"))
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", bundle)
    segmenter = {"family": "bundle", "path": packed, "trust": True, "steps": steps, "batch_size": 1}
    changes = {"strategy": "entropy", "rounds": 2, "segmenter": segmenter}

    campaign = launch(load_config(make_campaign_yaml(make_decathlon(8), changes)), Display(quiet=True))

    assert campaign.event("finished") is not None
    first, second = (entry.payload for entry in campaign.events("result"))
    assert (first["checkpoint_sha256"] == second["checkpoint_sha256"]) == (steps == 0)
    (trial,) = (entry.payload for entry in campaign.events("trial"))
    assert trial["estimator"]["n"] > 0
    (weights,) = campaign.round_folder(0).glob("train-*/*.safetensors")
    assert weights.name == f"step_{steps:04d}.safetensors"
    assert len(list((campaign.folder / "segmenter" / "bundles").iterdir())) == 1
