"""Scenery between the organs: colon, small bowel, duodenum, mesenteric vessels, ascites."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from cohort.phantom.canvas import FAT_HU, Canvas, Point, ellipsoid, tube
from cohort.phantom.patient import Patient

_GAS_HU = -930.0


def paint_bowel(canvas: Canvas, patient: Patient) -> None:
    """Paint the bowel and its mesentery; nothing of it is labelled."""
    if "ascites" in patient.findings:
        _ascites(canvas, patient)
    _mesenteric_vessels(canvas, patient)
    _small_bowel(canvas, patient)
    _colon(canvas, patient)


def paint_loop(
    canvas: Canvas,
    patient: Patient,
    rng: np.random.Generator,
    points: Sequence[Point],
    radii: Sequence[float],
    content_hu: float,
    gas: float,
) -> None:
    """Paint one hollow loop: fat around it, wall, contents, and gas above a level.

    Args:
        canvas: to paint on.
        patient: whose mucosa it is.
        rng: for the unevenness of this loop.
        points: its course in mm.
        radii: at each point in mm.
        content_hu: of fluid or stool.
        gas: part of the height that gas fills, 0 to 1.
    """
    region = canvas.around(*points, reach_mm=max(radii))
    uneven = rng.uniform(-1.5, 1.5, size=3)
    loop = np.maximum(tube(region, points, radii) + region.ripple(*uneven), region.cavity + 1.5)
    region.paint(loop - 1.5, FAT_HU, 0)
    region.paint(loop, patient.enhancement.mucosa)
    inside = loop + float(rng.uniform(1.8, 3.5))
    mottle = 18.0 * region.ripple(*rng.uniform(-1.0, 1.0, size=3))
    region.paint(inside, content_hu + mottle)
    if gas > 0.0:
        widest = max(radii)
        level = float(np.mean([point[1] for point in points])) + (2.0 * gas - 1.0) * widest
        region.paint(np.maximum(inside, region.height_mm - level), _GAS_HU)


def _ascites(canvas: Canvas, patient: Patient) -> None:
    """Fluid under the wall and in the flanks."""
    rng = patient.rng("ascites")
    depth = float(rng.uniform(8, 26))
    whole = canvas.whole
    layer = np.maximum(whole.cavity + 1.0, -(whole.cavity + depth) + whole.ripple(4.0, 4.0))
    layer = np.maximum(layer, whole.y - 0.55 * patient.back)
    whole.paint(np.maximum(layer, 3.0 - whole.lung), float(rng.uniform(2, 16)))


def _mesenteric_vessels(canvas: Canvas, patient: Patient) -> None:
    rng = patient.rng("mesentery")
    hu = 0.5 * (patient.enhancement.aorta + patient.enhancement.portal)
    root = (2.0, -8.0, -5.0)
    for _ in range(14):
        end = (
            float(rng.uniform(-0.6, 0.6)) * patient.half_width,
            float(rng.uniform(-0.75, 0.1)) * patient.front,
            float(rng.uniform(-110, 0)),
        )
        bend = tuple(float(0.5 * (r + e) + rng.normal(0, 8)) for r, e in zip(root, end, strict=True))
        points = [root, (bend[0], bend[1], bend[2]), end]
        region = canvas.around(*points, reach_mm=4.0)
        region.paint(tube(region, points, (2.6, 2.2, 1.3)), hu)


def _small_bowel(canvas: Canvas, patient: Patient) -> None:
    rng = patient.rng("small_bowel")
    contrast = "oral_contrast" in patient.findings
    for _ in range(int(rng.integers(30, 52))):
        start = np.array(
            [
                rng.uniform(-0.62, 0.62) * patient.half_width,
                rng.uniform(-0.82, 0.05) * patient.front,
                rng.uniform(-115, -8),
            ]
        )
        points = [start]
        for _ in range(int(rng.integers(1, 3))):
            points.append(points[-1] + rng.normal(0, 1, size=3) * (22.0, 12.0, 14.0))
        course: list[Point] = [(float(p[0]), float(p[1]), float(p[2])) for p in points]
        radius = float(rng.uniform(8.5, 15))
        content = (
            float(rng.uniform(150, 320)) if contrast and rng.random() < 0.6 else float(rng.uniform(5, 45))
        )
        gas = float(rng.uniform(0.3, 0.8)) if rng.random() < 0.25 else 0.0
        paint_loop(canvas, patient, rng, course, [radius] * len(course), content, gas)


def _colon(canvas: Canvas, patient: Patient) -> None:
    rng = patient.rng("colon")
    w, a = patient.half_width, patient.front
    sag = float(rng.uniform(-70, -15))
    frame: list[Point] = [
        (-0.76 * w, 14.0, -130.0),
        (-0.77 * w, 10.0, -70.0),
        (-0.66 * w, -0.2 * a, -38.0),
        (-0.35 * w, -0.72 * a, -35.0 + 0.5 * sag),
        (0.05 * w, -0.8 * a, sag),
        (0.45 * w, -0.72 * a, -10.0),
        (0.74 * w, -0.1 * a, 22.0),
        (0.8 * w, 16.0, -20.0),
        (0.8 * w, 18.0, -75.0),
        (0.76 * w, 12.0, -130.0),
    ]
    steps = [tuple(float(v + rng.normal(0, 5)) for v in point) for point in frame]
    course: list[Point] = [(p[0], p[1], p[2]) for p in steps]
    for first, second in pairwise(course):
        radii = rng.uniform(13, 25, size=2).tolist()
        gas = float(rng.uniform(0.2, 0.95)) if rng.random() < 0.6 else 0.0
        paint_loop(canvas, patient, rng, [first, second], radii, float(rng.uniform(0, 60)), gas)


def paint_gallbladder(canvas: Canvas, patient: Patient) -> None:
    """A pear of bile under the liver, unlabelled; nothing where it was removed."""
    if "absent_gallbladder" in patient.findings:
        return
    rng = patient.rng("gallbladder")
    centre = (
        -0.36 * patient.half_width + float(rng.normal(0, 6)),
        -0.45 * patient.front + float(rng.normal(0, 5)),
        -8.0 + float(rng.normal(0, 9)),
    )
    size = float(rng.uniform(0.65, 1.25))
    semi = (14.0 * size, 17.0 * size, 27.0 * size)
    region = canvas.around(centre, reach_mm=semi)
    pear = ellipsoid(region, centre, semi, float(rng.uniform(-30, 30))) + region.ripple(1.0)
    region.paint(pear - 1.5, patient.enhancement.mucosa, 0)
    region.paint(pear, float(rng.uniform(4, 18)), 0)
