"""How a simulated annotator errs: shifted boundaries, slices left out, structures overlooked."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cohort.case import Spacing, Structure
from cohort.errors import ConfigError
from cohort.volume import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatorNoise:
    """Errors of one annotator.

    Args:
        boundary_mm: standard deviation of how far a boundary lies off, 0 is exact.
        smoothness_mm: how far apart two points of a boundary err independently of each other.
        missed_slices: probability that a structure is left out in an axial slice.
        missed_structures: probability that a structure is overlooked altogether.
    """

    boundary_mm: float = 0.0
    smoothness_mm: float = 10.0
    missed_slices: float = 0.0
    missed_structures: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.boundary_mm < np.inf or not 0.0 < self.smoothness_mm < np.inf:
            raise ConfigError(
                f"boundary_mm is {self.boundary_mm} and smoothness_mm {self.smoothness_mm}; expected a "
                "distance of 0 or more, and one above 0"
            )
        for name in ("missed_slices", "missed_structures"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected a probability, 0 to 1")

    @property
    def exact(self) -> bool:
        """Whether the annotator makes no errors."""
        return not (self.boundary_mm or self.missed_slices or self.missed_structures)


def annotate_with_noise(
    reference: Array,
    structures: Sequence[Structure],
    spacing_mm: Spacing,
    noise: AnnotatorNoise,
    rng: np.random.Generator,
) -> Array:
    """A reference as an imperfect annotator would have drawn it.

    Boundaries move along a smooth random field: a voxel belongs to a structure where its signed distance to
    the boundary is below the field. Where structures come to overlap, the later one of `structures` has the
    voxel.

    Args:
        reference: (D, H, W) whole numbers.
        structures: to annotate; others are left out.
        spacing_mm: (D, H, W).
        noise: of the annotator.
        rng: of every draw; structures draw in their order.

    Returns:
        (D, H, W) of the reference's type. A structure that the reference lacks stays absent.
    """
    drawn = np.zeros_like(reference)
    for structure in structures:
        mask = reference == structure.label
        overlooked = rng.random() < noise.missed_structures
        slices = rng.random(len(reference)) < noise.missed_slices
        field = _field(reference.shape, spacing_mm, noise, rng)
        if overlooked or not mask.any():
            continue
        mask = _signed_distance_mm(mask, spacing_mm) < field if noise.boundary_mm else mask
        mask[slices] = False
        drawn[mask] = structure.label
    return drawn


def _field(
    shape: tuple[int, ...], spacing_mm: Spacing, noise: AnnotatorNoise, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Smooth noise in mm, of mean 0 and the standard deviation of the annotator."""
    white = rng.standard_normal(shape)
    sigma = [noise.smoothness_mm / spacing for spacing in spacing_mm]
    smooth = ndimage.gaussian_filter(white, sigma, mode="wrap")
    spread = float(smooth.std())
    scale = noise.boundary_mm / spread if spread > 0.0 else 0.0
    found: NDArray[np.float64] = smooth * scale
    return found


def _signed_distance_mm(mask: NDArray[np.bool_], spacing_mm: Spacing) -> NDArray[np.float64]:
    """Distance to the boundary, below 0 inside."""
    outside = ndimage.distance_transform_edt(~mask, sampling=spacing_mm)
    inside = ndimage.distance_transform_edt(mask, sampling=spacing_mm)
    half = min(spacing_mm) / 2.0
    found: NDArray[np.float64] = np.where(mask, half - inside, outside - half)
    return found
