"""nnU-Net's fingerprint of a data set, and the plan that it makes of it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cohort.case import Spacing
from cohort.errors import ModelError
from cohort.volume import read_image, read_label_map, to_canonical, write_bytes
from segmenters.nnunet_config import CONFIGURATIONS
from segmenters.nnunet_package import PREPROCESSED, RAW, inside_nnunet, planner_class, seeded

DATASET, FINGERPRINT = "dataset.json", "dataset_fingerprint.json"

_SAMPLES_PER_CASE = 100_000
_PERCENTILES = (0.5, 50.0, 99.5)
_FEWEST_LEVELS = 2


def read_arrays(image: Path, labels: Path) -> tuple[NDArray[np.float32], NDArray[np.int16], Spacing]:
    """What nnU-Net works on: canonical image and labels (1, D, H, W), and their spacing in mm."""
    stored, mask = to_canonical(read_image(image)), to_canonical(read_label_map(labels))
    return stored.array[None], mask.array[None].astype(np.int16), stored.spacing_mm


def fingerprint(files: Sequence[tuple[Path, Path]], ignored: int) -> dict[str, Any]:
    """Sizes, spacings and intensities of cases, as nnU-Net's planners read them.

    nnU-Net's own extractor starts worker processes, and takes the voxels to ignore for foreground.

    Args:
        files: image and label map of every case.
        ignored: label of the voxels to ignore.
    """
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import (
        DatasetFingerprintExtractor,
    )
    from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero

    shapes, spacings, kept, intensities = [], [], [], []
    for image, label_map in files:
        data, labels, spacing_mm = read_arrays(image, label_map)
        labels[labels == ignored] = 0
        cropped, cropped_labels, _ = crop_to_nonzero(data, labels)
        found, _ = DatasetFingerprintExtractor.collect_foreground_intensities(
            cropped_labels, cropped, num_samples=_SAMPLES_PER_CASE
        )
        shapes.append([int(size) for size in cropped.shape[1:]])
        spacings.append(list(spacing_mm))
        kept.append(cropped.size / data.size)
        intensities.append(np.asarray(found[0], dtype=np.float64))
    return {
        "spacings": spacings,
        "shapes_after_crop": shapes,
        "foreground_intensity_properties_per_channel": {"0": _summary(np.concatenate(intensities))},
        "median_relative_size_after_cropping": float(np.median(kept)),
    }


def make_plan(
    planner: str, dataset: Mapping[str, Any], found: Mapping[str, Any], scratch: Path
) -> dict[str, Any]:
    """Let one of nnU-Net's planners make a plan.

    Args:
        planner: name of its class.
        dataset: nnU-Net's dataset.json.
        found: the fingerprint.
        scratch: an empty folder to plan in.

    Raises:
        ConfigError: if nnU-Net has no planner of that name.
    """
    make, name = planner_class(planner), str(dataset["name"])
    folder = scratch / PREPROCESSED / name
    write_bytes(scratch / RAW / name / DATASET, json.dumps(dataset).encode())
    write_bytes(folder / FINGERPRINT, json.dumps(found).encode())
    with inside_nnunet(scratch), seeded(0):  # it builds networks to see how large they are
        planning = make(name)
        planning.plan_experiment()
    plan: dict[str, Any] = json.loads((folder / f"{planning.plans_identifier}.json").read_bytes())
    return plan


def check_plan(plan: Mapping[str, Any], configuration: str) -> None:
    """Refuse a plan that does not serve a configuration.

    Raises:
        ModelError: if it has none of that name, or a network without any lower resolution.
    """
    planned = plan["configurations"]
    if configuration not in planned:
        raise ModelError(
            f"segmenter.configuration is {configuration!r}, but for these images nnU-Net planned only "
            f"{', '.join(sorted(set(planned) & set(CONFIGURATIONS)))}; take one of those"
        )
    strides = planned[configuration]["architecture"]["arch_kwargs"]["strides"]
    if len(strides) < _FEWEST_LEVELS:
        raise ModelError(
            "These images are too small for nnU-Net: it planned patches of "
            f"{tuple(planned[configuration]['patch_size'])} voxels, which its network cannot reduce; it "
            "takes 8 voxels or more along two axes"
        )


def _summary(values: NDArray[np.float64]) -> dict[str, float]:
    low, median, high = (float(value) for value in np.percentile(values, _PERCENTILES))
    return {
        "mean": float(values.mean()),
        "median": median,
        "std": float(values.std()),
        "min": float(values.min()),
        "max": float(values.max()),
        "percentile_99_5": high,
        "percentile_00_5": low,
    }
