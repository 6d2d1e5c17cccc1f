"""The organs of the upper abdomen: liver, spleen, stomach, pancreas and kidneys."""

import numpy as np

from cohort.phantom.bowel import paint_loop
from cohort.phantom.canvas import FAT_HU, Canvas, Point, Region, carve, ellipsoid, smooth_union, tube
from cohort.phantom.fields import Field
from cohort.phantom.patient import Patient
from cohort.phantom.structures import LABELS


def paint_liver(canvas: Canvas, patient: Patient) -> None:
    """Two lobes under the right dome, with vessels and, in some, lesions (which count as liver)."""
    rng = patient.rng("liver")
    w, a = patient.half_width, patient.front
    size, left_size = float(rng.uniform(0.86, 1.18)), float(rng.uniform(0.6, 1.25))
    right: Point = (-0.55 * w, -0.04 * a, 30.0 + float(rng.normal(0, 6)))
    left: Point = (0.02 * w, -0.5 * a, 52.0 + float(rng.normal(0, 6)))
    semi_right: Point = (0.6 * w * size, 1.0 * a + 12.0, 84.0 * size)
    semi_left: Point = (0.5 * w * left_size, 0.46 * a, 38.0 * left_size)
    region = canvas.around(right, reach_mm=(w, 1.5 * a, 105.0))
    liver = ellipsoid(region, right, semi_right, float(rng.normal(0, 6)))
    liver = smooth_union(liver, ellipsoid(region, left, semi_left, float(rng.normal(-8, 8))), 30.0)
    hollow = ellipsoid(region, (22.0, patient.spine_y - 12.0, -28.0), (62.0, 52.0, 78.0))
    bed = ellipsoid(region, (-0.24 * w - 24.0, patient.spine_y + 16.0, -28.0), (43.0, 40.0, 57.0))
    liver = carve(carve(liver, hollow, 14.0), bed, 10.0)
    liver = liver + region.ripple(*rng.uniform(-2.2, 2.2, size=3))
    liver = np.maximum(np.maximum(liver, region.cavity + 2.5), 3.0 - region.lung)
    hu = patient.enhancement.liver
    region.paint(liver - 1.2, FAT_HU, 0)
    region.paint(liver, hu + region.ripple(2.0, 2.0, 2.0), LABELS["liver"])
    _liver_vessels(region, patient, liver)
    if "liver_lesions" in patient.findings:
        _liver_lesions(region, patient, liver)


def _liver_vessels(region: Region, patient: Patient, liver: Field) -> None:
    rng = patient.rng("liver_vessels")
    w, a = patient.half_width, patient.front
    hilum, cava = (-0.24 * w, -2.0, 26.0), (-22.0, patient.spine_y - 26.0, 80.0)
    portal = [(-0.55, 0.1, 36.0), (-0.7, 0.3, 20.0), (-0.65, -0.45, 45.0), (0.0, -0.5, 52.0)]
    hepatic = [(-0.7, 0.1, 58.0), (-0.45, -0.5, 60.0), (0.05, -0.45, 66.0)]
    roots = [(hilum, portal, patient.enhancement.portal)]
    roots.append((cava, hepatic, 0.5 * (patient.enhancement.cava + patient.enhancement.portal)))
    for root, ends, hu in roots:
        for fx, fy, z in ends:
            end = (fx * w, fy * a, z)
            bend = [float(0.5 * (r + e) + rng.normal(0, 7)) for r, e in zip(root, end, strict=True)]
            points = [root, (bend[0], bend[1], bend[2]), end]
            branch = tube(region, points, (6.5, 5.0, 2.8))
            region.paint(np.maximum(branch, liver + 3.0), hu)


def _liver_lesions(region: Region, patient: Patient, liver: Field) -> None:
    rng = patient.rng("liver_lesions")
    for _ in range(int(rng.integers(1, 6))):
        centre: Point = (
            float(rng.uniform(-0.85, -0.1)) * patient.half_width,
            float(rng.uniform(-0.7, 0.5)) * patient.front,
            float(rng.uniform(-20, 75)),
        )
        size = float(rng.uniform(5, 24))
        lesion = ellipsoid(region, centre, (size, size * float(rng.uniform(0.7, 1.2)), size))
        lesion = np.maximum(lesion + region.ripple(1.5, 1.5), liver - 2.0)
        hu = patient.enhancement.liver - float(rng.uniform(20, 75))
        region.paint(lesion, hu + 12.0)
        region.paint(lesion + 0.3 * size, hu)


def paint_spleen(canvas: Canvas, patient: Patient) -> None:
    """A crescent between stomach, kidney and ribs."""
    rng = patient.rng("spleen")
    w, b = patient.half_width, patient.back
    size = float(rng.uniform(0.78, 1.12))
    if "splenomegaly" in patient.findings:
        size *= float(rng.uniform(1.25, 1.6))
    centre: Point = (0.74 * w, 0.32 * b + float(rng.normal(0, 4)), 42.0 + float(rng.normal(0, 8)))
    semi: Point = (30.0 * size, 44.0 * size, 46.0 * size)
    region = canvas.around(centre, reach_mm=(48.0 * size, 48.0 * size, 48.0 * size))
    turn = float(rng.normal(28, 8))
    spleen = ellipsoid(region, centre, semi, turn)
    dent = (centre[0] - 34.0 * size, centre[1] - 12.0, centre[2] - 4.0)
    spleen = carve(spleen, ellipsoid(region, dent, (22.0, 26.0, 42.0), turn), 10.0)
    spleen = spleen + region.ripple(*rng.uniform(-1.8, 1.8, size=3))
    spleen = np.maximum(np.maximum(spleen, region.cavity + 2.5), 3.0 - region.lung)
    hu = patient.enhancement.spleen + region.ripple(2.0, 2.0)
    if patient.phase == "arterial":
        hu = hu + 26.0 * np.sin(2.2 * region.ripple(1.5, 1.5, 1.5))
    region.paint(spleen - 2.0, FAT_HU, 0)
    region.paint(spleen, hu, LABELS["spleen"])


def paint_stomach(canvas: Canvas, patient: Patient) -> None:
    """Fundus, body and antrum; wall, contents with an air-fluid level, all of it stomach."""
    rng = patient.rng("stomach")
    w, a = patient.half_width, patient.front
    fill = float(rng.uniform(0.65, 1.2))
    low = float(rng.uniform(-25, 12))
    points: list[Point] = [
        (0.42 * w, 0.08 * a, 76.0),
        (0.46 * w, -0.22 * a, 48.0),
        (0.36 * w, -0.5 * a, 18.0),
        (0.1 * w, -0.62 * a, low),
        (-0.18 * w, -0.42 * a, 0.5 * low + 4.0),
    ]
    radii = [30.0 * fill, 31.0 * fill, 25.0 * fill, 17.0 * fill, 10.0]
    region = canvas.around(*points, reach_mm=max(radii))
    stomach = tube(region, points, radii) + region.ripple(*rng.uniform(-2.0, 2.0, size=3))
    stomach = np.maximum(np.maximum(stomach, region.cavity + 3.0), 3.5 - region.lung)
    region.paint(stomach - 2.0, FAT_HU, 0)
    region.paint(stomach, patient.enhancement.mucosa, LABELS["stomach"])
    inside = stomach + float(rng.uniform(3.5, 6.5)) + region.ripple(0.0, 1.2)
    filled = (
        float(rng.uniform(150, 300)) if "oral_contrast" in patient.findings else float(rng.uniform(0, 50))
    )
    clumps = float(rng.uniform(0, 30))
    region.paint(inside, filled + clumps * region.ripple(1.0, 0.0, 1.0))
    level = -0.5 * a + float(rng.uniform(-25, 30))
    region.paint(np.maximum(inside, region.height_mm - level), -960.0)


def paint_pancreas(canvas: Canvas, patient: Patient) -> None:
    """A lobulated band from the duodenum to the hilum of the spleen, over the great vessels."""
    rng = patient.rng("pancreas")
    w, y = patient.half_width, patient.spine_y
    lift = float(rng.normal(0, 5))
    points: list[Point] = [
        (-0.25 * w, y - 36.0, -22.0 + lift),
        (-0.22 * w, y - 42.0, -6.0 + lift),
        (-0.02 * w, y - 52.0, 4.0 + lift),
        (0.2 * w, y - 44.0, 14.0 + lift),
        (0.48 * w, y - 20.0, 28.0 + lift),
    ]
    bulk = float(rng.uniform(0.75, 1.2))
    radii = [12.0 * bulk, 13.0 * bulk, 8.5 * bulk, 10.0 * bulk, 8.5 * bulk]
    duodenum: list[Point] = [(points[1][0] - 14.0, y - 36.0, 0.0), (points[0][0] - 14.0, y - 30.0, -36.0)]
    content = float(rng.uniform(10, 60))
    paint_loop(canvas, patient, rng, duodenum, [9.5, 10.5], content, float(rng.uniform(0, 0.3)))
    region = canvas.around(*points, reach_mm=max(radii))
    pancreas = tube(region, points, radii) + region.ripple(*rng.uniform(-2.6, 2.6, size=3))
    hu = patient.enhancement.pancreas - float(rng.uniform(0, 16)) * np.clip(region.ripple(1.0, 1.0), 0.0, 2.0)
    region.paint(pancreas - 1.5, FAT_HU, 0)
    region.paint(pancreas, hu, LABELS["pancreas"])
    vein = [(p[0], p[1] + 9.0, p[2] + 2.0) for p in points[2:]]
    vessel = canvas.around(*vein, reach_mm=6.0)
    vessel.paint(tube(vessel, vein, (5.0, 4.0, 3.5)), patient.enhancement.portal, 0)


def paint_kidneys(canvas: Canvas, patient: Patient) -> None:
    """Both kidneys in their fat; sinus, vessels and exophytic cysts are not kidney."""
    for side, name in ((-1.0, "kidney_right"), (1.0, "kidney_left")):
        if f"absent_{name}" not in patient.findings:
            _paint_kidney(canvas, patient, side, name)


def _paint_kidney(canvas: Canvas, patient: Patient, side: float, name: str) -> None:
    rng = patient.rng(name)
    size = float(rng.uniform(0.84, 1.12))
    centre: Point = (
        side * (0.24 * patient.half_width + 32.0 + float(rng.normal(0, 3))),
        patient.spine_y + 3.0 + float(rng.normal(0, 3)),
        (-22.0 if side < 0 else -10.0) + float(rng.normal(0, 9)),
    )
    semi: Point = (24.0 * size, 28.0 * size, 52.0 * size)
    region = canvas.around(centre, reach_mm=(42.0, 42.0, 66.0))
    kidney = ellipsoid(region, centre, semi, side * 35.0) + region.ripple(*rng.uniform(-1.4, 1.4, size=3))
    kidney = np.maximum(kidney, region.cavity + 3.0)
    hilum: Point = (centre[0] - side * 15.0, centre[1] - 11.0, centre[2])
    sinus = ellipsoid(region, hilum, (16.0 * size, 9.0 * size, 21.0 * size), side * 35.0)
    parenchyma = carve(kidney, sinus, 4.0)
    region.paint(np.maximum(kidney - float(rng.uniform(3, 9)), region.cavity), FAT_HU, 0)
    region.paint(parenchyma, patient.enhancement.cortex, LABELS[name])
    pyramids = parenchyma + 8.0 + region.ripple(2.5, -2.5)
    region.paint(pyramids, patient.enhancement.medulla)
    wide = float(rng.uniform(3.0, 7.0))
    basin = [
        (hilum[0] + side * 8.0, hilum[1] + 6.0, hilum[2]),
        (hilum[0] - side * 14.0, hilum[1], hilum[2] - 9.0),
    ]
    region.paint(tube(region, basin, (wide, 3.0)), patient.enhancement.pelvis, 0)
    vein: list[Point] = [hilum, (side * 18.0, patient.spine_y - 28.0, centre[2] + 8.0)]
    vessel = canvas.around(*vein, reach_mm=5.0)
    vessel.paint(tube(vessel, vein, (4.0, 5.0)), patient.enhancement.cava, 0)
    if "renal_cysts" in patient.findings:
        _cysts(canvas, rng, centre, semi)


def _cysts(canvas: Canvas, rng: np.random.Generator, centre: Point, semi: Point) -> None:
    """Cysts on the surface of a kidney; as in TotalSegmentator they are no part of it."""
    for _ in range(int(rng.integers(0, 4))):
        toward = rng.normal(0, 1, size=3)
        toward /= float(np.sqrt(toward @ toward))
        reach = float(rng.uniform(0.7, 1.05))
        seat = [float(c + reach * s * t) for c, s, t in zip(centre, semi, toward, strict=True)]
        size = float(rng.uniform(5, 20))
        place: Point = (seat[0], seat[1], seat[2])
        region = canvas.around(place, reach_mm=size)
        cyst = np.maximum(ellipsoid(region, place, (size, size, size)), region.cavity + 2.0)
        region.paint(cyst, float(rng.uniform(0, 18)), 0)
