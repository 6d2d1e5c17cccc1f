"""A labelled case as a sentinel sees it: grey values and reference in its orientation."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cohort.case import Spacing
from cohort.records import GradedMask
from cohort.slabs import cropped
from cohort.volume import Volume, check_same_grid, read_grid, read_image, read_label_map
from sentinel.config import SentinelConfig
from sentinel.slices import Crop, Grey, Mask, grey_values, oriented
from sentinel.subjects import Region

Labels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scene:
    """Image and reference of one case.

    Args:
        patient_id: whose.
        grey: (D, H, W), 8-bit image.
        reference: (D, H, W), label map of the annotation.
        sizes: (256,), voxels of each label in the reference.
        margin: of crops, in voxels along rows and columns.
        spacing_mm: (D, H, W).
    """

    patient_id: str
    grey: Grey
    reference: Labels
    sizes: NDArray[np.int64]
    margin: tuple[int, int]
    spacing_mm: Spacing

    def dsc(self, mask: Mask, region: Region, label: int) -> float:
        """DSC of a mask against the reference's structure of that label.

        Args:
            mask: its voxels within the region; it has none outside.
            region: where the mask lies.
            label: in the reference, which holds at least one voxel of it.
        """
        overlap = int(np.count_nonzero(mask & (self.reference[region] == label)))
        return 2.0 * overlap / (int(np.count_nonzero(mask)) + int(self.sizes[label]))

    def plane_dsc(self, plane: Mask, index: int, crop: Crop, label: int) -> float:
        """DSC of one slice of a mask within a crop.

        Args:
            plane: (H, W), with at least one voxel in the crop.
            index: of the slice.
            crop: within which voxels count.
            label: of the structure in the reference.
        """
        predicted, reference = crop.of(plane), crop.of(self.reference[index]) == label
        overlap = int(np.count_nonzero(predicted & reference))
        return 2.0 * overlap / (int(np.count_nonzero(predicted)) + int(np.count_nonzero(reference)))


def read_scene(graded: GradedMask, config: SentinelConfig) -> Scene:
    """Read image and reference of a graded mask, in its annotated slices.

    Raises:
        DataError, GeometryError: for a file that is missing, broken or on another grid.
    """
    image, reference = read_image(graded.image), read_label_map(graded.reference)
    check_same_grid(image, reference, graded.image, graded.reference)
    grey = grey_values(image.array, config.intensity)  # of the whole volume, as where nobody annotated
    turned = oriented(_annotated(graded, Volume(array=grey, affine=image.affine)), config.orientation)
    on_image = Volume(array=reference.array, affine=image.affine)  # affines may differ by rounding
    on_image = _annotated(graded, on_image)
    labels: Labels = oriented(on_image, config.orientation).array
    return Scene(
        patient_id=graded.patient_id,
        grey=turned.array,
        reference=labels,
        sizes=np.bincount(labels.ravel(), minlength=256),
        margin=config.margin_voxels(turned.spacing_mm),
        spacing_mm=turned.spacing_mm,
    )


def read_prediction(graded: GradedMask, config: SentinelConfig) -> Labels:
    """Read the predicted label map of a graded mask, in its annotated slices and the sentinel's orientation.

    Raises:
        DataError, GeometryError: for a file that is missing, broken or on another grid.
    """
    predicted = read_label_map(graded.mask)
    check_same_grid(read_grid(graded.image), predicted, graded.image, graded.mask)
    labels: Labels = oriented(_annotated(graded, predicted), config.orientation).array
    return labels


def _annotated(graded: GradedMask, volume: Volume) -> Volume:
    """The slices that count: what lies elsewhere is neither right nor wrong."""
    return Volume(array=cropped(volume.array, graded.slabs), affine=volume.affine)
