"""What makes a slice an abdomen before any organ is in it: skin, fat, wall, ribs, lungs, muscles, table."""

import numpy as np

from cohort.phantom.canvas import FAT_HU, Canvas, Region, carve, ellipsoid, tube
from cohort.phantom.fields import Field
from cohort.phantom.patient import Patient

_WALL_MM = 11.0
_SPINAL_MUSCLE_MM = 22.0
_RIB_PERIOD_MM = 27.0


def paint_body(canvas: Canvas, patient: Patient) -> None:
    """Paint the trunk without its organs, and note the cavity and the lungs for the painters that follow."""
    whole = canvas.whole
    _table(whole, patient)
    w, a, b = patient.half_width, patient.front, patient.back
    waist = 1.0 - 0.05 * np.exp(-(((whole.z + 40.0) / 45.0) ** 2)).astype(np.float32)
    skin = _outline(
        whole,
        waist,
        w + _WALL_MM + patient.fat_side,
        a + _WALL_MM + patient.fat_front,
        b + _SPINAL_MUSCLE_MM + 4.0 + patient.fat_back,
        2.3,
    )
    groove = ellipsoid(whole, (0.0, b + _SPINAL_MUSCLE_MM + patient.fat_back + 12.0, 0.0), (14.0, 12.0, 1e3))
    skin = carve(skin, groove, 12.0)
    whole.cavity[...] = _outline(whole, waist, w, a, b, 2.2) + whole.ripple(1.0, 0.8)
    whole.paint(skin, 20.0)
    whole.paint(skin + 3.0, FAT_HU + whole.ripple(3.0, 3.0))
    wall = _outline(whole, waist, w + _WALL_MM, a + 0.6 * _WALL_MM, b + 1.4 * _WALL_MM, 2.3)
    wall = wall + whole.ripple(1.2, 0.0, 1.2)
    whole.paint(wall, patient.enhancement.muscle)
    _wall_fat(whole, wall)
    whole.paint(whole.cavity, FAT_HU + whole.ripple(0.0, 5.0, 5.0))
    _ribs(whole, patient)
    _lungs(whole, patient)
    _heart(canvas, patient)


def paint_muscles(canvas: Canvas, patient: Patient) -> None:
    """Psoas, quadratus lumborum, erector spinae, rectus and the crura of the diaphragm."""
    rng = patient.rng("muscles")
    hu, y = patient.enhancement.muscle, patient.spine_y
    bulk = float(rng.uniform(0.75, 1.2))
    streaky = float(rng.uniform(2.0, 14.0))
    for side in (-1.0, 1.0):
        points = [(side * 26.0, y + 6.0, 12.0), (side * 36.0, y + 4.0, -40.0), (side * 46.0, y - 2.0, -120.0)]
        region = canvas.around(*points, reach_mm=26.0)
        psoas = tube(region, points, (5.0 * bulk, 15.0 * bulk, 24.0 * bulk)) + region.ripple(0.8)
        region.paint(psoas, hu, 0)
        square = (side * 62.0, y + 26.0, -70.0)
        region = canvas.around(square, reach_mm=(25.0, 14.0, 72.0))
        region.paint(ellipsoid(region, square, (21.0 * bulk, 9.0 * bulk, 68.0), side * 12.0), hu, 0)
        back = (side * 33.0, y + 41.0, 0.0)
        region = canvas.around(back, reach_mm=(36.0, 28.0, 200.0))
        erector = ellipsoid(region, back, (31.0, 14.0 + 5.0 * bulk, 1e3), side * 9.0)
        region.paint(erector, hu - streaky * np.clip(region.ripple(1.0, 1.0), 0.0, 2.5))
        crus = [(side * 15.0, y - 14.0, 75.0), (side * 14.0, y - 19.0, 25.0), (side * 8.0, y - 19.0, -15.0)]
        region = canvas.around(*crus, reach_mm=8.0)
        region.paint(tube(region, crus, (5.0, 5.0, 2.0)), hu)
        front = (side * 26.0, -patient.front - 1.0, 0.0)
        region = canvas.around(front, reach_mm=(28.0, 9.0, 200.0))
        rectus = np.maximum(ellipsoid(region, front, (25.0, 5.5, 1e3), side * 6.0), -region.cavity - 1.0)
        region.paint(rectus, hu)


def _outline(region: Region, waist: Field, width: float, front: float, back: float, power: float) -> Field:
    """Distance, along the ray from the axis, to a rounded box whose front and back differ."""
    depth = np.where(region.y < 0, np.float32(front), np.float32(back))
    across = np.abs(region.x) / (np.float32(width) * waist)
    along = np.abs(region.y) / depth
    ratio = (across**power + along**power + 1e-6) ** (1.0 / power)
    ray = np.sqrt(region.x**2 + region.y**2 + 1e-3)
    distance: Field = ray - ray / ratio
    return distance


def _wall_fat(whole: Region, wall: Field) -> None:
    """Fat planes between the layers of the wall at the flanks."""
    plane = np.abs(wall + 5.0) - 0.9
    flank = np.abs(whole.y + 12.0) - 38.0
    whole.paint(np.maximum(plane, flank), FAT_HU + 40.0)


def _ribs(whole: Region, patient: Patient) -> None:
    """Oblique bars inside the wall, and cartilage where they end in front."""
    rng = patient.rng("ribs")
    phase = float(rng.uniform(0, _RIB_PERIOD_MM))
    lowest = float(rng.uniform(-25, 5))
    descent = whole.z + 0.55 * (patient.spine_y + 10.0 - whole.y)
    along = np.abs((descent + phase) % _RIB_PERIOD_MM - _RIB_PERIOD_MM / 2.0)
    depth = np.abs(whole.cavity - 3.5)
    bar = np.sqrt((along / 1.3) ** 2 + (depth * 1.2) ** 2) - 4.6
    limits = np.maximum(lowest - descent + 10.0, 24.0 - np.abs(whole.x))
    bone = np.maximum(np.maximum(bar, limits), -0.55 * patient.front - whole.y)
    whole.paint(bone, 520.0)
    whole.paint(bone + 2.6, 190.0)
    cartilage = np.maximum(np.maximum(bar, limits + 30.0), whole.y + 0.55 * patient.front)
    whole.paint(np.maximum(cartilage, 45.0 - whole.z), 115.0)


def _lungs(whole: Region, patient: Patient) -> None:
    """Lungs above two domes of the diaphragm, with deep recesses at the back."""
    rng = patient.rng("lungs")
    w, b = patient.half_width, patient.back
    drop = float(rng.uniform(4, 22))
    dome = np.full_like(whole.image, -1e3)
    for side, top in ((-1.0, patient.dome_z), (1.0, patient.dome_z - drop)):
        bulge = ((whole.x - side * 0.48 * w) / (0.58 * w)) ** 2 + ((whole.y + 12.0) / (1.05 * b)) ** 2
        dome = np.maximum(dome, top - 42.0 * bulge * bulge)
    lung = np.maximum((dome - whole.z) * 0.75 + whole.ripple(1.2), whole.cavity + 2.0)
    middle = ellipsoid(whole, (4.0, patient.spine_y - 18.0, 0.0), (30.0, 46.0, 1e3))
    whole.lung[...] = carve(lung, middle, 8.0)
    whole.paint(whole.lung - 2.5, patient.enhancement.muscle)
    marks = 260.0 * np.clip(whole.ripple(0.0, 0.0, 1.0) - 1.5, 0.0, 2.0)
    whole.paint(whole.lung, -850.0 + marks)
    if "effusion" in patient.findings:
        level = float(rng.uniform(-5, 35))
        side = float(rng.choice([-1.0, 1.0]))
        pool = np.maximum(whole.lung, level - whole.height_mm)
        whole.paint(np.maximum(pool, -side * whole.x), 8.0)


def _heart(canvas: Canvas, patient: Patient) -> None:
    centre = (22.0, -0.35 * patient.front, patient.dome_z + 18.0)
    region = canvas.around(centre, reach_mm=(58.0, 42.0, 36.0))
    heart = np.maximum(ellipsoid(region, centre, (55.0, 38.0, 32.0), 25.0), region.cavity + 6.0)
    region.paint(heart - 5.0, FAT_HU)
    region.paint(heart, patient.enhancement.muscle + 35.0)
    blood = 0.5 * (patient.enhancement.aorta + patient.enhancement.cava)
    region.paint(heart + 11.0 + region.ripple(2.0), blood)


def _table(whole: Region, patient: Patient) -> None:
    """A curved table top of foam and carbon under the patient, fixed to the scanner."""
    lowest = patient.back + _SPINAL_MUSCLE_MM + patient.fat_back + 12.0
    flat_x = whole.x
    shell = np.abs(whole.height_mm + flat_x * flat_x / 900.0 - lowest) - 3.0
    table = np.maximum(shell, np.abs(flat_x) - 190.0)
    whole.paint(table, -420.0)
