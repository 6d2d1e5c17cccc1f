"""A baseline that sees the mask and the name of its structure, but no image.

If a sentinel is no better than this, it has learned how masks look and not whether they fit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.ensemble import HistGradientBoostingRegressor

from cohort.case import Spacing
from cohort.errors import DataError, ModelError
from sentinel.slices import Mask

FEATURES = (
    "log_volume_mm3",
    "log_largest_area_mm2",
    "depth_mm",
    "height_mm",
    "width_mm",
    "log_components",
    "surface_to_volume",
    "fill_of_box",
)


def mask_features(mask: Mask, spacing_mm: Spacing) -> tuple[float, ...]:
    """Size and shape of a mask.

    Args:
        mask: (D, H, W), not empty.
        spacing_mm: (D, H, W).

    Returns:
        One number for each of `FEATURES`.

    Raises:
        DataError: for an empty mask, which has no shape.
    """
    if not mask.any():
        raise DataError("An empty mask has no shape to describe; leave it out")
    box = mask[ndimage.find_objects(mask.astype(np.uint8))[0]]
    voxels, voxel_mm3 = int(np.count_nonzero(box)), math.prod(spacing_mm)
    area_mm2 = float(box.sum(axis=(1, 2)).max()) * spacing_mm[1] * spacing_mm[2]
    padded = np.pad(box, 1)
    faces_mm2 = sum(
        float(np.count_nonzero(np.diff(padded, axis=axis))) * voxel_mm3 / spacing_mm[axis]
        for axis in range(3)
    )
    return (
        math.log(voxels * voxel_mm3),
        math.log(area_mm2),
        *(size * spacing for size, spacing in zip(box.shape, spacing_mm, strict=True)),
        math.log(int(ndimage.label(box)[1])),
        faces_mm2 / (voxels * voxel_mm3),
        voxels / box.size,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MaskOnlyBaseline:
    """Gradient-boosted trees over shape and structure.

    Args:
        structures: names that it learned from; another one counts as unknown.
        model: fitted.
    """

    structures: tuple[str, ...]
    model: HistGradientBoostingRegressor

    @classmethod
    def fit(
        cls, structures: Sequence[str], features: Sequence[Sequence[float]], dsc: Sequence[float]
    ) -> "MaskOnlyBaseline":
        """Learn from masks of known DSC.

        Args:
            structures: of each mask.
            features: of each mask, see `mask_features`.
            dsc: of each mask, in [0, 1].

        Raises:
            ModelError: for fewer than 2 masks.
        """
        if len(dsc) < 2:
            raise ModelError(f"The baseline learns from {len(dsc)} masks; expected at least 2")
        known = tuple(sorted(set(structures)))
        model = HistGradientBoostingRegressor(
            max_iter=200,
            learning_rate=0.06,
            min_samples_leaf=min(10, max(1, len(dsc) // 10)),
            early_stopping=False,
            random_state=0,
        )
        return cls(structures=known, model=model.fit(_table(known, structures, features), np.asarray(dsc)))

    def predict(self, structures: Sequence[str], features: Sequence[Sequence[float]]) -> NDArray[np.float64]:
        """(N,) predicted DSC, not clamped."""
        if not structures:
            return np.zeros(0)
        found = self.model.predict(_table(self.structures, structures, features))
        return cast(NDArray[np.float64], np.asarray(found, dtype=float))


def _table(
    known: Sequence[str], structures: Sequence[str], features: Sequence[Sequence[float]]
) -> NDArray[np.float64]:
    one_hot = np.array([[float(name == own) for own in known] for name in structures])
    return np.concatenate([one_hot.reshape(len(structures), len(known)), np.asarray(features)], axis=1)
