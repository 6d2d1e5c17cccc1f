"""Small anisotropic cases on disk, stored with flipped and swapped axes."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from cohort.case import Case, Structure
from cohort.records import TrainingCase
from cohort.volume import write_volume
from segmenters.config import Augmentation, SegmenterConfig

SHAPE = (8, 12, 16)
# voxel (x, y, z) runs left, back and up in steps of 0.5, 1 and 3 mm
AFFINE = np.array([[-0.5, 0, 0, 7.5], [0, -1.0, 0, 20.0], [0, 0, 3.0, -5.0], [0, 0, 0, 1.0]])
STRUCTURES = (
    Structure(name="liver", label=2),
    Structure(name="spleen", label=5),
    Structure(name="stomach", label=9),
)


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def needs_nnunet():
    if find_spec("nnunetv2") is None:
        pytest.skip("needs pip install 'sentinel-loop[nnunet]'")


@pytest.fixture
def structures():
    return STRUCTURES


@pytest.fixture
def affine():
    return AFFINE


@pytest.fixture
def config():
    return SegmenterConfig(
        channels=(4, 8),
        patch=(8, 12, 16),
        steps=3,
        batch_size=2,
        augmentation=Augmentation(),
        precision="float32",
    )


def make_arrays(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.zeros(SHAPE, dtype=np.uint8)
    at = int(rng.integers(0, 3))
    labels[2:6, 2 + at : 7 + at, 1:6] = 2
    labels[3:7, 4:9, 9 + at : 13 + at] = 5
    image = rng.normal(0.0, 10.0, SHAPE)
    image[labels == 2] += 100.0
    image[labels == 5] -= 100.0
    return image.astype(np.float32), labels


@pytest.fixture
def write_case(tmp_path: Path):
    def write(name: str, seed: int, annotated=("liver", "spleen"), image=None, labels=None) -> TrainingCase:
        made_image, made_labels = make_arrays(seed)
        image = made_image if image is None else image
        labels = made_labels if labels is None else labels
        folder = tmp_path / "cohort"
        write_volume(folder / f"{name}.nii.gz", image, AFFINE)
        write_volume(folder / f"{name}_labels.nii.gz", labels, AFFINE)
        return TrainingCase(
            case_id=name,
            patient_id=name,
            image=folder / f"{name}.nii.gz",
            label_map=folder / f"{name}_labels.nii.gz",
            annotated=frozenset(annotated),
        )

    return write


@pytest.fixture
def as_case():
    def turn(case: TrainingCase) -> Case:
        return Case(
            case_id=case.case_id,
            patient_id=case.patient_id,
            image=case.image,
            reference=case.label_map,
            annotated=dict.fromkeys(case.annotated, 1.0),
            shape=SHAPE,
            spacing_mm=(3.0, 1.0, 0.5),
        )

    return turn
