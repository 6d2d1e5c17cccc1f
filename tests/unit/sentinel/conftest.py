from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cohort.case import Structure
from cohort.records import GradedMask
from cohort.volume import write_volume

SHAPE = (8, 12, 16)
AFFINE = np.array([[-0.5, 0, 0, 7.0], [0, 1.0, 0, -3.0], [0, 0, 3.0, 11.0], [0, 0, 0, 1.0]])
STRUCTURES = (Structure(name="liver", label=1), Structure(name="spleen", label=3))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def reference_labels() -> np.ndarray:
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[2:6, 3:9, 2:7] = 1
    labels[1:5, 2:6, 9:14] = 3
    return labels


def image_of(labels: np.ndarray, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0.0, 8.0, SHAPE)
    return (labels * 60.0 + noise).astype(np.float32)


@pytest.fixture
def graded(tmp_path: Path) -> Callable[..., list[GradedMask]]:
    def make(
        cases: int = 3, sources: int = 2, evaluated: frozenset[str] = frozenset({"liver", "spleen"})
    ) -> list[GradedMask]:
        found = []
        for case in range(cases):
            reference = reference_labels()
            paths = {what: tmp_path / f"{what}_{case}.nii.gz" for what in ("image", "reference")}
            write_volume(paths["image"], image_of(reference, case), AFFINE)
            write_volume(paths["reference"], reference, AFFINE)
            for source in range(sources):
                mask = tmp_path / f"mask_{case}_{source}.nii.gz"
                write_volume(mask, np.roll(reference, source + 1, axis=1), AFFINE)
                found.append(
                    GradedMask(
                        case_id=f"case_{case}",
                        patient_id=f"patient_{case}",
                        image=paths["image"],
                        mask=mask,
                        reference=paths["reference"],
                        evaluated=evaluated,
                        source=f"fold0/step{source}",
                    )
                )
        return found

    return make


@pytest.fixture
def structures() -> tuple[Structure, ...]:
    return STRUCTURES
