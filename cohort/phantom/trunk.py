"""The column in the middle: vertebrae with discs and canal, aorta and inferior vena cava."""

import numpy as np

from cohort.phantom.canvas import FAT_HU, Canvas, Point, Region, ellipsoid, smooth_union, tube
from cohort.phantom.fields import Field
from cohort.phantom.patient import Patient
from cohort.phantom.structures import LABELS

_LEVEL_MM = 33.0
_ENDS_MM = (-190.0, 190.0)


def paint_vessels(canvas: Canvas, patient: Patient) -> None:
    """Aorta with its first branches (an aneurysm and its thrombus count as aorta) and the cava."""
    rng = patient.rng("vessels")
    y = patient.spine_y - 31.0
    fork = float(rng.uniform(-112, -88))
    _cava(canvas, patient, rng, y, fork)
    aorta: list[Point] = [
        (16.0, y + 12.0, 150.0),
        (11.0, y + 6.0, 70.0),
        (8.0 + float(rng.normal(0, 4)), y + 1.0, 10.0),
        (6.0 + float(rng.normal(0, 5)), y - 2.0, -50.0),
        (3.0, y, fork),
    ]
    radius = float(rng.uniform(8.5, 12.0))
    radii = [radius * f for f in (1.12, 1.08, 1.0, 0.92, 0.85)]
    hu = patient.enhancement.aorta
    _branches(canvas, patient, aorta[2], fork)
    region = canvas.around(*aorta, reach_mm=34.0)
    vessel = tube(region, aorta, radii)
    lumen = vessel + 1.2
    if "aneurysm" in patient.findings:
        place = (aorta[3][0] + 3.0, aorta[3][1] - 4.0, aorta[3][2] + float(rng.normal(0, 10)))
        wide = float(rng.uniform(17, 27))
        sac = ellipsoid(region, place, (wide, wide * 0.92, 34.0))
        vessel = smooth_union(vessel, sac, 8.0)
        lumen = smooth_union(lumen, sac + float(rng.uniform(4, 11)), 6.0)
    region.paint(vessel - 1.5, FAT_HU, 0)
    region.paint(vessel, 48.0, LABELS["aorta"])
    region.paint(lumen, hu)
    if rng.random() < 0.4:
        chalk = np.maximum(np.abs(vessel + 1.0) - 1.2, 1.3 - region.ripple(1.0))
        region.paint(chalk, 600.0)


def _cava(canvas: Canvas, patient: Patient, rng: np.random.Generator, y: float, fork: float) -> None:
    course: list[Point] = [
        (-22.0, y - 2.0, 110.0),
        (-24.0, y + 1.0, 55.0),
        (-21.0, y + 2.0, 0.0),
        (-18.0, y + 4.0, -60.0),
        (-10.0, y + 7.0, fork - 6.0),
    ]
    wide = float(rng.uniform(7.5, 12.0))
    region = canvas.around(*course, reach_mm=15.0)
    cava = tube(region, course, [wide] * 5) + region.ripple(1.5)
    region.paint(cava - 1.2, FAT_HU, 0)
    region.paint(cava, patient.enhancement.cava, 0)


def _branches(canvas: Canvas, patient: Patient, trunk: Point, fork: float) -> None:
    x, y = trunk[0], trunk[1]
    superior: list[Point] = [(x, y, 12.0), (x - 2.0, y - 18.0, 4.0), (x - 4.0, y - 22.0, -60.0)]
    celiac: list[Point] = [(x, y, 28.0), (x, y - 18.0, 31.0), (x - 24.0, y - 20.0, 36.0)]
    vein: list[Point] = [(-8.0, y - 20.0, -60.0), (-10.0, y - 19.0, 0.0), (-28.0, y - 14.0, 24.0)]
    left: list[Point] = [(3.0, y, fork + 2.0), (34.0, y + 10.0, fork - 60.0)]
    right: list[Point] = [(3.0, y, fork + 2.0), (-30.0, y + 10.0, fork - 60.0)]
    plan = [(p, patient.enhancement.aorta, 3.6) for p in (superior, celiac)]
    plan += [(p, patient.enhancement.aorta, 6.5) for p in (left, right)]
    plan.append((vein, patient.enhancement.portal, 6.0))
    for points, hu, radius in plan:
        region = canvas.around(*points, reach_mm=radius)
        branch = tube(region, points, [radius] * len(points))
        region.paint(branch - 2.0, FAT_HU, 0)
        region.paint(branch, hu, 0)


def paint_vertebrae(canvas: Canvas, patient: Patient) -> None:
    """Vertebral bodies, arches and processes; discs and canal are not labelled."""
    rng = patient.rng("spine")
    y = patient.spine_y
    region = canvas.around(
        (0.0, y + 20.0, _ENDS_MM[0]), (0.0, y + 20.0, _ENDS_MM[1]), reach_mm=(70.0, 62.0, 0.0)
    )
    curve = float(rng.normal(0, 14 if "scoliosis" in patient.findings else 3))
    bent = _bend(region, curve)
    level = (region.z + float(rng.uniform(0, _LEVEL_MM))) % _LEVEL_MM - _LEVEL_MM / 2.0
    gap = float(rng.uniform(3.0, 5.0))
    bone = float(rng.uniform(110, 220))
    width, depth = float(rng.uniform(20, 24)), float(rng.uniform(15, 18))
    spread = 2.0 * (level / 14.0) ** 2
    column = ellipsoid(bent, (0.0, y, 0.0), (width, depth, 1e3)) + 2.0 - spread + bent.ripple(0.7)
    region.paint(column, 85.0, 0)
    body = np.maximum(column, np.abs(level) - (_LEVEL_MM / 2.0 - gap))
    _paint_bone(region, body, bone)
    arch = _arch(bent, y, depth, level)
    _paint_bone(region, arch, bone + 90.0)
    canal = ellipsoid(bent, (0.0, y + depth + 9.0, 0.0), (10.5, 8.0, 1e3))
    region.paint(canal, FAT_HU + 60.0, 0)
    region.paint(canal + 1.8, 28.0, 0)


def _arch(bent: Region, y: float, depth: float, level: Field) -> Field:
    """Lamina around the canal, spinous process, transverse processes."""
    behind = y + depth + 9.0
    ring = np.abs(ellipsoid(bent, (0.0, behind, 0.0), (13.0, 11.0, 1e3))) - 3.2
    ring = np.maximum(ring, np.abs(level + 2.0) - 11.0)
    tip = behind + 36.0
    away = np.maximum(
        np.abs(bent.x) - 3.4, np.abs(bent.y - 0.5 * (behind + 10.0 + tip)) - 0.5 * (tip - behind - 10.0)
    )
    spinous = np.maximum(away, np.abs(level + 6.0) - 8.0)
    rise = np.abs(bent.y - (y + depth + 3.0) - 0.18 * np.abs(bent.x))
    transverse = np.maximum(np.maximum(rise - 4.5, np.abs(bent.x) - 42.0), 9.0 - np.abs(bent.x))
    transverse = np.maximum(transverse, np.abs(level) - 6.0)
    return np.asarray(np.minimum(np.minimum(ring, spinous), transverse), dtype=np.float32)


def _paint_bone(region: Region, bone: Field, marrow_hu: float) -> None:
    region.paint(bone, 430.0, LABELS["vertebrae"])
    region.paint(bone + 2.4, marrow_hu + region.ripple(14.0, 14.0))


def _bend(region: Region, curve_mm: float) -> Region:
    """The region in coordinates that follow the curve of the spine."""
    sway = curve_mm * np.sin(region.z / 55.0).astype(np.float32)
    return Region(
        image=region.image,
        labels=region.labels,
        x=region.x - sway,
        y=region.y + 4.0 * np.sin((region.z + 20.0) / 60.0).astype(np.float32),
        z=region.z,
        height_mm=region.height_mm,
        ripples=region.ripples,
        cavity=region.cavity,
        lung=region.lung,
        edge_mm=region.edge_mm,
    )
