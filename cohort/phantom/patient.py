"""Who lies in the scanner: build, contrast phase, disease and dose, drawn from one seed."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from cohort.seeds import generator


@dataclass(frozen=True, slots=True, kw_only=True)
class Enhancement:
    """HU of the organs in one contrast phase."""

    aorta: float
    cava: float
    portal: float
    liver: float
    spleen: float
    cortex: float
    medulla: float
    pelvis: float
    pancreas: float
    muscle: float
    mucosa: float


PHASES: Mapping[str, Enhancement] = MappingProxyType(
    {
        "native": Enhancement(
            aorta=42, cava=40, portal=40, liver=58, spleen=49, cortex=33, medulla=31, pelvis=12,
            pancreas=41, muscle=54, mucosa=42,
        ),
        "arterial": Enhancement(
            aorta=310, cava=85, portal=105, liver=72, spleen=128, cortex=185, medulla=75, pelvis=12,
            pancreas=108, muscle=60, mucosa=95,
        ),
        "portal_venous": Enhancement(
            aorta=155, cava=145, portal=168, liver=112, spleen=122, cortex=185, medulla=158, pelvis=15,
            pancreas=96, muscle=64, mucosa=88,
        ),
        "delayed": Enhancement(
            aorta=105, cava=105, portal=108, liver=90, spleen=93, cortex=128, medulla=135, pelvis=480,
            pancreas=74, muscle=63, mucosa=68,
        ),
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """One generated patient. Every length is in mm.

    Args:
        seed: of the cohort.
        index: of the patient in it.
        difficulty: latent, 0 (easy) to 1; drives phase, disease, dose and deformation.
        phase: key of `PHASES`.
        enhancement: HU of this patient's organs.
        findings: what is unusual, for example "renal_cysts" or "absent_kidney_left".
        half_width: of the abdominal cavity; `front` and `back` are its extents from the origin.
        front: see `half_width`.
        back: see `half_width`.
        fat_side: subcutaneous fat at the flanks; `fat_front` and `fat_back` likewise.
        fat_front: see `fat_side`.
        fat_back: see `fat_side`.
        length: of the trunk, relative to the average.
        spine_y: centre of the vertebral bodies.
        dome_z: top of the right diaphragm.
        shift_mm: (x, y, z) of the patient on the table.
        turn_deg: of the patient about the long axis.
        warp_mm: standard deviation of the smooth deformation.
        noise_hu: standard deviation of the noise at the centre of a slim patient.
        blur_mm: standard deviation of the in-plane point spread.
    """

    seed: int
    index: int
    difficulty: float
    phase: str
    enhancement: Enhancement
    findings: frozenset[str]
    half_width: float
    front: float
    back: float
    fat_side: float
    fat_front: float
    fat_back: float
    length: float
    spine_y: float
    dome_z: float
    shift_mm: tuple[float, float, float]
    turn_deg: float
    warp_mm: float
    noise_hu: float
    blur_mm: float

    def rng(self, *names: str | int) -> np.random.Generator:
        """Random numbers for one part of this patient, independent of all other parts."""
        return generator(self.seed, "phantom", self.index, *names)


def draw_patient(index: int, *, seed: int) -> Patient:
    """The patient at a place in the cohort; the same whatever the size of the cohort.

    Args:
        index: 0 or more.
        seed: of the cohort.
    """
    rng = generator(seed, "phantom", index, "patient")
    difficulty = float(rng.beta(1.2, 2.0))
    phase = _draw_phase(rng, difficulty)
    findings = _draw_findings(rng, difficulty)
    obesity = float(rng.beta(1.6, 2.4))
    back = float(rng.uniform(62, 74))
    return Patient(
        seed=seed,
        index=index,
        difficulty=difficulty,
        phase=phase,
        enhancement=_individual(rng, PHASES[phase], findings),
        findings=findings,
        half_width=float(rng.uniform(108, 126)) + 22 * obesity,
        front=float(rng.uniform(56, 68)) + 38 * obesity,
        back=back,
        fat_side=float(rng.uniform(4, 10)) + 26 * obesity,
        fat_front=float(rng.uniform(5, 12)) + 26 * obesity,
        fat_back=float(rng.uniform(4, 10)) + 20 * obesity,
        length=float(rng.uniform(0.9, 1.1)),
        spine_y=back - float(rng.uniform(27, 34)),
        dome_z=float(rng.uniform(72, 108)),
        shift_mm=(float(rng.normal(0, 7)), float(rng.normal(-8, 6)), float(rng.normal(0, 14))),
        turn_deg=float(rng.normal(0, 1.5 + 5 * difficulty)),
        warp_mm=2.0 + 6.0 * difficulty,
        noise_hu=7.0 + 34.0 * difficulty**1.3 * float(rng.uniform(0.6, 1.2)),
        blur_mm=float(rng.uniform(1.0, 1.7)) + 1.2 * difficulty,
    )


def _draw_phase(rng: np.random.Generator, difficulty: float) -> str:
    weights = np.array(
        [0.08 + 0.6 * difficulty, 0.2 + 0.3 * difficulty, 1.3 - difficulty, 0.15 + 0.2 * difficulty]
    )
    return str(rng.choice(list(PHASES), p=weights / weights.sum()))


def _draw_findings(rng: np.random.Generator, difficulty: float) -> frozenset[str]:
    """Disease: name -> probability of an easy case, and what a hard one adds to it."""
    odds = {
        "liver_lesions": (0.15, 0.5),
        "steatosis": (0.12, 0.25),
        "renal_cysts": (0.15, 0.45),
        "splenomegaly": (0.05, 0.25),
        "aneurysm": (0.03, 0.22),
        "ascites": (0.02, 0.35),
        "effusion": (0.02, 0.3),
        "absent_gallbladder": (0.08, 0.1),
        "absent_kidney_left": (0.005, 0.035),
        "absent_kidney_right": (0.005, 0.035),
        "oral_contrast": (0.25, 0.2),
        "scoliosis": (0.04, 0.3),
    }
    found = {name for name, (base, more) in odds.items() if rng.random() < base + more * difficulty}
    if {"absent_kidney_left", "absent_kidney_right"} <= found:
        found.remove("absent_kidney_right")
    return frozenset(found)


def _individual(rng: np.random.Generator, typical: Enhancement, findings: frozenset[str]) -> Enhancement:
    """Timing and dose of contrast differ between patients: every organ by about a tenth."""
    vessels, organs = float(rng.normal(1.0, 0.12)), float(rng.normal(1.0, 0.08))

    def own(hu: float, common: float) -> float:
        return hu * common * float(rng.normal(1.0, 0.05))

    fat_in_liver = float(rng.uniform(25, 55)) if "steatosis" in findings else 0.0
    return Enhancement(
        aorta=own(typical.aorta, vessels),
        cava=own(typical.cava, vessels),
        portal=own(typical.portal, vessels),
        liver=own(typical.liver, organs) - fat_in_liver,
        spleen=own(typical.spleen, organs),
        cortex=own(typical.cortex, organs),
        medulla=own(typical.medulla, organs),
        pelvis=own(typical.pelvis, vessels),
        pancreas=own(typical.pancreas, organs) - 6.0,
        muscle=own(typical.muscle, 1.0),
        mucosa=own(typical.mucosa, organs),
    )
