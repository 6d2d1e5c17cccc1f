"""How good predictions are: DSC and NSD per structure and case, and their means."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from monai.metrics import compute_surface_dice
from numpy.typing import NDArray

from cohort.case import Case, Spacing, Structure
from cohort.errors import ConfigError, DataError
from cohort.metrics import dsc_per_structure
from cohort.volume import check_same_grid, read_label_map
from segmenters.denormals import denormals

_Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class StructureResult:
    """How well one structure of one case was segmented.

    Args:
        case_id: of the case.
        structure: name.
        dsc: Dice similarity coefficient in [0, 1], NaN where the reference is empty.
        nsd: normalised surface Dice in [0, 1], NaN where the reference is empty.
    """

    case_id: str
    structure: str
    dsc: float
    nsd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Means over cases, and the mean over structures of those; NaN where nothing could be evaluated."""

    per_structure_dsc: Mapping[str, float]
    per_structure_nsd: Mapping[str, float]
    dsc: float
    nsd: float


def evaluate_case(
    case: Case, mask: Path, structures: Sequence[Structure], *, tolerance_mm: float | Mapping[str, float]
) -> tuple[StructureResult, ...]:
    """DSC and NSD of a predicted label map.

    Args:
        case: with its reference.
        mask: path of the predicted label map, on the image's own grid.
        structures: of the cohort; only those in `case.evaluated` are evaluated.
        tolerance_mm: of the NSD, for all structures or by name.

    Returns:
        One result per evaluated structure, in the order of `structures`. Both numbers are NaN where the
        reference is empty, and 0 where only the prediction is.

    Raises:
        DataError: if the case has no reference, or a file is missing or broken.
        GeometryError: if the mask does not lie on the reference's grid.
        ConfigError: if a tolerance is missing or negative.
    """
    if case.reference is None:
        raise DataError(f"Case {case.case_id} has no reference; only cases with one can be evaluated")
    labels = frozenset(structure.label for structure in structures)
    reference, predicted = read_label_map(case.reference, labels), read_label_map(mask, labels)
    check_same_grid(reference, predicted, case.reference, mask)
    evaluated = [structure for structure in structures if structure.name in case.evaluated]
    dscs = dsc_per_structure(predicted.array, reference.array, evaluated)
    return tuple(
        StructureResult(
            case_id=case.case_id,
            structure=structure.name,
            dsc=dscs[structure.name],
            nsd=nsd(
                predicted.array == structure.label,
                reference.array == structure.label,
                reference.spacing_mm,
                _tolerance(tolerance_mm, structure.name),
            ),
        )
        for structure in evaluated
    )


def nsd(prediction: _Mask, reference: _Mask, spacing_mm: Spacing, tolerance_mm: float) -> float:
    """Normalised surface Dice: the share of both surfaces that lies within a tolerance of the other.

    Args:
        prediction: (D, H, W) bool.
        reference: (D, H, W) bool.
        spacing_mm: (D, H, W).
        tolerance_mm: 0 or more.

    Returns:
        In [0, 1]; NaN where the reference is empty, 0 where only the prediction is.

    Source:
        Nikolov et al., arXiv 1809.04430; MONAI's `compute_surface_dice` with subvoxel surface elements,
        which equals DeepMind's surface-distance.
    """
    if not reference.any():
        return math.nan
    if not prediction.any():
        return 0.0
    box = _bounding_box(prediction | reference)
    pair = [
        torch.from_numpy(np.ascontiguousarray(array[box]))[None, None] for array in (prediction, reference)
    ]
    with warnings.catch_warnings(), denormals(flush=False):
        warnings.simplefilter("ignore", FutureWarning)
        value = compute_surface_dice(
            pair[0],
            pair[1],
            class_thresholds=[tolerance_mm],
            include_background=True,
            spacing=list(spacing_mm),
            use_subvoxels=True,
        )
    return float(value[0, 0])


def summarise(results: Sequence[StructureResult], structures: Sequence[str]) -> Summary:
    """Mean over cases per structure, then mean over structures.

    Args:
        results: of any number of cases.
        structures: names to summarise, in order.

    Returns:
        NaN for a structure without an evaluable case; it is left out of the mean over structures.
    """
    dscs = {name: _mean([r.dsc for r in results if r.structure == name]) for name in structures}
    nsds = {name: _mean([r.nsd for r in results if r.structure == name]) for name in structures}
    return Summary(
        per_structure_dsc=dscs,
        per_structure_nsd=nsds,
        dsc=_mean(list(dscs.values())),
        nsd=_mean(list(nsds.values())),
    )


def _bounding_box(mask: _Mask) -> tuple[slice, slice, slice]:
    """The box around a mask with a margin of one voxel; surfaces and distances inside stay the same."""
    sides = []
    for axis in range(3):
        occupied = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        sides.append(slice(max(int(occupied[0]) - 1, 0), int(occupied[-1]) + 2))
    return (sides[0], sides[1], sides[2])


def _tolerance(tolerance_mm: float | Mapping[str, float], structure: str) -> float:
    if isinstance(tolerance_mm, Mapping):
        if structure not in tolerance_mm:
            raise ConfigError(f"There is no NSD tolerance for {structure!r}; known: {sorted(tolerance_mm)}")
        tolerance_mm = tolerance_mm[structure]
    if not 0.0 <= tolerance_mm < math.inf:
        raise ConfigError(f"The NSD tolerance of {structure!r} is {tolerance_mm} mm, expected 0 or more")
    return tolerance_mm


def _mean(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan
