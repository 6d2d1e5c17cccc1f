"""Fine-tuning of a bundle's network in our own loop, on images that the bundle itself prepared."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from cohort.case import Shape, Spacing, Structure
from cohort.errors import ModelError
from cohort.records import TrainingCase
from cohort.seeds import generator
from cohort.volume import check_same_grid, read_image, read_label_map
from segmenters.bundle_config import BundleConfig
from segmenters.bundle_definition import BundleDefinition
from segmenters.bundle_grid import channels_on_grid, grid_spacing, shape_of
from segmenters.config import SegmenterConfig
from segmenters.preprocessing import PreparedCase, channel_weights, places_of

_HALVED_ONCE = (8, 16)
"""Levels that make the loop's configuration ask for an even patch; they say nothing of a bundle's network."""


def prepare_bundle_cases(
    definition: BundleDefinition,
    cases: Sequence[TrainingCase],
    trained: Sequence[Structure],
    structures: Sequence[Structure],
    seed: int,
) -> tuple[list[PreparedCase], Spacing]:
    """Training cases on the grid that the bundle works on, axes (X, Y, Z), and their median spacing in mm.

    Args:
        definition: of the bundle, whose preparation the images go through.
        cases: to read.
        trained: structures with a channel, in the order of the channels from 1.
        structures: of the cohort, whose labels the label maps may hold.
        seed: of the remembered voxels of large structures.

    Raises:
        DataError: if a file is missing or broken, or a label is not declared.
        GeometryError: if a label map does not lie on its image's grid.
    """
    prepared, spacings = [], []
    for case in cases:
        rng = generator(seed, "places", case.case_id)
        found, spacing = _prepare(definition, case, trained, structures, rng)
        prepared.append(found)
        spacings.append(spacing)
    x, y, z = np.median(spacings, axis=0).tolist()
    return prepared, (x, y, z)


def _prepare(
    definition: BundleDefinition,
    case: TrainingCase,
    trained: Sequence[Structure],
    structures: Sequence[Structure],
    rng: np.random.Generator,
) -> tuple[PreparedCase, Spacing]:
    image = read_image(case.image)
    labels = read_label_map(case.label_map, frozenset(s.label for s in structures))
    check_same_grid(image, labels, case.image, case.label_map)
    table = np.zeros(256, dtype=np.uint8)
    for channel, structure in enumerate(trained, start=1):
        if structure.name in case.annotated:
            table[structure.label] = channel
    prepared = definition.prepare(image)
    stored = table[labels.array].T
    channels = channels_on_grid(stored, image.affine, prepared.affine, shape_of(prepared.array))
    found = PreparedCase(
        case_id=case.case_id,
        image=prepared.array,
        channels=channels,
        known=torch.tensor([True, *(structure.name in case.annotated for structure in trained)]),
        places=places_of(channels, rng),
        pseudo=case.pseudo,
        weight=channel_weights(case, trained),
    )
    return found, grid_spacing(prepared.affine)


def training_config(config: BundleConfig, window: Shape | None) -> SegmenterConfig:
    """The settings of our loop for a bundle, axes (X, Y, Z).

    Args:
        config: of the bundle.
        window: of the bundle, (X, Y, Z), for a config without a patch.

    Raises:
        ModelError: if neither says how large a patch is.
    """
    patch = config.patch[::-1] if config.patch is not None else window
    if patch is None or any(side < 2 or side % 2 for side in patch):
        raise ModelError(
            f"The bundle {config.path} does not say how large a training patch is (its window is {window}); "
            "set patch to three even numbers of voxels (D, H, W)"
        )
    width, height, depth = config.augmentation.flip[::-1]
    return SegmenterConfig(
        channels=_HALVED_ONCE,
        patch=patch,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        foreground_fraction=config.foreground_fraction,
        average_decay=config.average_decay,
        augmentation=replace(config.augmentation, flip=(width, height, depth)),
        precision=config.precision,
    )


def give_first_output(network: nn.Module) -> None:
    """Make a network whose training gives several outputs (deep supervision) give the first one alone."""

    def first(module: nn.Module, inputs: object, output: object) -> object:
        while isinstance(output, list | tuple):
            output = output[0]
        return output[:, 0] if isinstance(output, Tensor) and output.ndim == 6 else output

    network.register_forward_hook(first)
