"""What every registered segmenter must do, whatever its network."""

import importlib.util
import json
import shlex
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cohort.case import Case, Structure
from cohort.errors import ModelError
from cohort.records import TrainingCase
from cohort.volume import check_same_grid, read_image, read_label_map, write_volume
from segmenters.base import Segmenter, load_checkpoint, read_prediction
from segmenters.bundle import BundleSegmenter
from segmenters.bundle_config import BundleConfig
from segmenters.command import CommandSegmenter
from segmenters.command_config import CommandConfig
from segmenters.config import NETWORK_NAMES, Augmentation, SegmenterConfig
from segmenters.evaluation import evaluate_case, summarise
from segmenters.inference import Windows, predict_probabilities
from segmenters.networks import build_network
from segmenters.nnunet_config import NnUNetConfig
from segmenters.registry import make_segmenter
from segmenters.torch_segmenter import TorchSegmenter
from segmenters.uncertainty import Variation

SHAPE = (8, 12, 16)
# x runs along world y, y along z, z along x backwards, with 0.5, 1 and 3 mm
AFFINE = np.array([[0, 0, -3.0, 4.0], [0.5, 0, 0, 1.0], [0, 1.0, 0, -9.0], [0, 0, 0, 1.0]])
STRUCTURES = (Structure(name="bright", label=3), Structure(name="dark", label=200))
# DSC to reach: SwinUNETR takes few steps here, because each takes long
EXPECTED_DSC = {"swinunetr": 0.5}
# settings of networks that cannot be as small or as coarse as the others
LARGER = {
    "dynunet": {"channels": (8, 8, 16)},
    "swinunetr": {
        "channels": (12,),
        "patch": (32, 32, 64),
        "spacing_mm": (0.5, 0.25, 1.5),
        "steps": 20,
        "batch_size": 1,
        "learning_rate": 2e-2,
        "average_decay": 0.5,
        "precision": "bfloat16",
    },
}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write_case(folder: Path, name: str, seed: int, annotated: frozenset[str]) -> Case:
    rng = np.random.default_rng(seed)
    labels = np.zeros(SHAPE, dtype=np.uint8)
    first, second = (int(shift) for shift in rng.integers(0, 3, 2))
    labels[1:5, first : first + 7, 1:7] = 3
    labels[2:7, 3 + second : 9 + second, 9:15] = 200
    image = rng.normal(0, 15, SHAPE) + 150.0 * (labels == 3) - 150.0 * (labels == 200)
    write_volume(folder / f"{name}.nii.gz", image.astype(np.float32), AFFINE)
    written = np.where(np.isin(labels, [s.label for s in STRUCTURES if s.name in annotated]), labels, 0)
    write_volume(folder / f"{name}_labels.nii.gz", written.astype(np.uint8), AFFINE)
    return Case(
        case_id=name,
        patient_id=name,
        image=folder / f"{name}.nii.gz",
        reference=folder / f"{name}_labels.nii.gz",
        annotated=dict.fromkeys(sorted(annotated), 1.0),
        shape=SHAPE,
        spacing_mm=(3.0, 1.0, 0.5),
    )


def training_case(case: Case) -> TrainingCase:
    assert case.reference is not None
    return TrainingCase(
        case_id=case.case_id,
        patient_id=case.patient_id,
        image=case.image,
        label_map=case.reference,
        annotated=frozenset(case.annotated),
    )


LEARN_MEANS = """
    import json, sys
    from pathlib import Path
    import nibabel as nib

    images, labels, weights = map(Path, sys.argv[1:])
    cohort = json.loads((labels / "cohort.json").read_text())
    means = {"0": 0.0}
    for path in images.glob("*.nii.gz"):
        image, reference = nib.load(path).get_fdata(), nib.load(labels / path.name).get_fdata()
        for name in cohort["annotated"][path.name.removesuffix(".nii.gz")]:
            means[cohort["labels"][name]] = float(image[reference == cohort["labels"][name]].mean())
    (weights / "means.json").write_text(json.dumps(means))
"""

TAKE_NEAREST = """
    import json, sys
    from pathlib import Path
    import nibabel as nib
    import numpy as np

    images, output, weights = map(Path, sys.argv[1:])
    means = json.loads((weights / "means.json").read_text())
    for path in images.glob("*.nii.gz"):
        image = nib.load(path)
        distance = np.stack([np.abs(image.get_fdata() - mean) for mean in means.values()])
        labels = np.array([int(label) for label in means], dtype=np.uint8)[distance.argmin(axis=0)]
        nib.save(nib.Nifti1Image(labels, image.affine), output / path.name)
"""


def make_command(folder: Path) -> Segmenter:
    """A program of somebody else: it learns the mean intensity of each structure."""

    def line(name: str, code: str, arguments: str) -> str:
        (folder / name).write_text(textwrap.dedent(code))
        return f"{shlex.join([sys.executable, str(folder / name)])} {arguments}"

    return CommandSegmenter(
        CommandConfig(
            predict=line("predict.py", TAKE_NEAREST, "{images} {output} {weights}"),
            fit=line("fit.py", LEARN_MEANS, "{images} {labels} {weights}"),
            steps=60,
        )
    )


def make_bundle(folder: Path, write_bundle: Callable[..., Path]) -> Segmenter:
    """A bundle that knows one of the structures, by name, and works at the spacing of the images."""
    path = write_bundle(folder / "bundle", channels=("background", "Bright", "other"))
    inference = path / "configs" / "inference.json"
    values = json.loads(inference.read_text())
    (spacing,) = (t for t in values["preprocessing"]["transforms"] if t["_target_"] == "Spacingd")
    spacing["pixdim"] = [3.0, 0.5, 1.0]
    inference.write_text(json.dumps(values))
    config = BundleConfig(
        path=str(path),
        trust=True,
        steps=60,
        patch=(12, 16, 8),
        learning_rate=1e-2,
        augmentation=Augmentation(rotation_degrees=5.0),
        precision="float32",
    )
    return BundleSegmenter(config, folder / "workspace")


def settings(name: str, **values: object) -> SegmenterConfig:
    # canonical (D, H, W) is 12 x 16 x 8 voxels of 1 x 0.5 x 3 mm
    small = {"channels": (8, 16), "patch": (12, 16, 8), "steps": 60, "batch_size": 2}
    return SegmenterConfig(
        **{
            "network": name,
            "learning_rate": 1e-2,
            "augmentation": Augmentation(rotation_degrees=5.0),
            "precision": "float32",
            **small,
            **LARGER.get(name, {}),
            **values,
        }
    )


ANNOTATED = (frozenset({"bright"}), frozenset({"dark"}), frozenset({"bright"}), frozenset({"dark"}))
# nnU-Net ignores what may hide an unannotated structure, so one case must show what background is
WITH_BACKGROUND = (*ANNOTATED[:3], frozenset({"bright", "dark"}))

needs_nnunet = pytest.mark.skipif(
    importlib.util.find_spec("nnunetv2") is None, reason="needs pip install 'sentinel-loop[nnunet]'"
)


def make(name: str, folder: Path, write_bundle: Callable[..., Path]) -> Segmenter:
    if name == "command":
        return make_command(folder)
    if name == "bundle":
        return make_bundle(folder, write_bundle)
    if name == "nnunet":
        return make_segmenter(NnUNetConfig(steps=60), folder / "workspace")
    return TorchSegmenter(settings(name))


@pytest.fixture(
    scope="module", params=[*NETWORK_NAMES, "bundle", "command", pytest.param("nnunet", marks=needs_nnunet)]
)
def trained(request, tmp_path_factory, write_bundle):
    """A segmenter that learned from cases of which most annotate only one structure."""
    folder = tmp_path_factory.mktemp(request.param)
    annotated = WITH_BACKGROUND if request.param == "nnunet" else ANNOTATED
    cases = [write_case(folder, f"t{n}", n, names) for n, names in enumerate(annotated)]
    segmenter = make(request.param, folder, write_bundle)
    checkpoints = segmenter.fit(
        [training_case(case) for case in cases], STRUCTURES, folder / "weights", seed=1, checkpoint_steps=[1]
    )
    return segmenter, checkpoints, folder


@pytest.fixture
def unseen(tmp_path):
    both = frozenset({"bright", "dark"})
    return [write_case(tmp_path, f"u{seed}", seed, both) for seed in (10, 11)]


def test_learns_every_structure_from_partly_annotated_cases(trained, unseen, tmp_path):
    segmenter, checkpoints, _ = trained
    predictions = segmenter.predict([c.view() for c in unseen], checkpoints[-1], STRUCTURES, tmp_path / "p")

    results = [
        result
        for case, prediction in zip(unseen, predictions, strict=True)
        for result in evaluate_case(case, prediction.mask, STRUCTURES, tolerance_mm=1.0)
    ]

    summary = summarise(results, [structure.name for structure in STRUCTURES])
    expected = EXPECTED_DSC.get(segmenter.config.architecture, 0.8)
    assert min(summary.per_structure_dsc.values()) > expected
    assert summary.nsd > expected


def test_predictions_lie_on_the_grid_of_their_images(trained, unseen, tmp_path):
    segmenter, checkpoints, _ = trained
    kinds = sorted({"entropy"} & segmenter.config.measures)
    predictions = segmenter.predict(
        [c.view() for c in unseen], checkpoints[0], STRUCTURES, tmp_path / "p", uncertainty=kinds
    )

    assert [prediction.case_id for prediction in predictions] == ["u10", "u11"]
    for case, prediction in zip(unseen, predictions, strict=True):
        labels = read_label_map(prediction.mask, frozenset({3, 200}))
        check_same_grid(read_image(case.image), labels, case.image, prediction.mask)
        assert prediction.voxels == {s.name: int((labels.array == s.label).sum()) for s in STRUCTURES}
        assert prediction.checkpoint_sha256 == checkpoints[0].sha256
        assert all(set(prediction.uncertainty[kind]) == {"bright", "dark"} for kind in kinds)
        assert read_prediction(tmp_path / "p" / f"{case.case_id}.json").voxels == prediction.voxels


def test_checkpoints_come_in_order_and_can_be_read(trained):
    segmenter, checkpoints, _ = trained

    assert [checkpoint.step for checkpoint in checkpoints] == [1, segmenter.config.steps]
    assert all(load_checkpoint(checkpoint.path) == checkpoint for checkpoint in checkpoints)
    assert checkpoints[-1].structures == ("bright", "dark")


def test_prediction_does_not_depend_on_the_order_of_cases(trained, unseen, tmp_path):
    segmenter, checkpoints, _ = trained
    views = [case.view() for case in unseen]

    forward = segmenter.predict(views, checkpoints[-1], STRUCTURES, tmp_path / "a")
    backward = segmenter.predict(views[::-1], checkpoints[-1], STRUCTURES, tmp_path / "b")

    moved = [replace(prediction, mask=tmp_path / "a" / prediction.mask.name) for prediction in backward]
    assert list(forward) == moved[::-1]
    assert all(
        first.mask.read_bytes() == second.mask.read_bytes()
        for first, second in zip(forward, backward[::-1], strict=True)
    )


def test_refuses_a_checkpoint_of_another_family(trained, unseen, tmp_path):
    segmenter, checkpoints, _ = trained
    beside = checkpoints[-1].path.with_suffix(".json")
    kept = beside.read_text()
    beside.write_text(kept.replace(f'"family": "{segmenter.config.family}"', '"family": "other"'))
    try:
        with pytest.raises(ModelError, match=r"is a checkpoint of the family 'other'"):
            segmenter.predict([unseen[0].view()], checkpoints[-1], STRUCTURES, tmp_path / "p")
    finally:
        beside.write_text(kept)


def test_refuses_a_checkpoint_that_changed(trained, unseen, tmp_path):
    segmenter, checkpoints, _ = trained
    kept = checkpoints[-1].path.read_bytes()
    checkpoints[-1].path.write_bytes(kept[:-1])
    try:
        with pytest.raises(ModelError, match=r"has sha256 .* replaced or are truncated"):
            segmenter.predict([unseen[0].view()], checkpoints[-1], STRUCTURES, tmp_path / "p")
    finally:
        checkpoints[-1].path.write_bytes(kept)
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize("name", NETWORK_NAMES)
def test_passes_differ_with_dropout_and_only_then(name):
    config = settings(name, dropout=0.3)
    network = build_network(config, 3).eval()
    prepared = torch.randn(config.patch, generator=torch.Generator().manual_seed(0))

    def passes(*variations: Variation) -> list[torch.Tensor]:
        return [
            predict_probabilities(network, prepared, config, Windows.of(config), variation)
            for variation in variations
        ]

    plain, again, first, first_again, second = passes(
        Variation(),
        Variation(),
        Variation(dropout=True, seed=1),
        Variation(dropout=True, seed=1),
        Variation(dropout=True, seed=2),
    )

    assert torch.equal(plain, again)
    assert torch.equal(first, first_again)
    assert not torch.equal(first, second)
    assert not torch.equal(first, plain)
    assert "mc_dropout" in config.measures
    assert "mc_dropout" not in settings(name).measures
