import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cohort.case import Shape, Spacing
from cohort.errors import ConfigError, DataError
from cohort.phantom import STRUCTURES, draw_patient, generate_case, write_phantom
from cohort.phantom.canvas import Canvas, ellipsoid, tube
from cohort.phantom.fields import smooth_field
from cohort.volume import Volume, check_same_grid, read_image, read_label_map, to_canonical

SHAPE: Shape = (20, 48, 64)
SPACING: Spacing = (10.0, 6.4, 6.0)
LABELS = {s.name: s.label for s in STRUCTURES}


def generate(index: int, seed: int = 7) -> tuple[Volume, Volume]:
    return generate_case(index, seed=seed, shape=SHAPE, spacing_mm=SPACING)


def first_patient(wanted: str, seed: int = 7) -> int:
    return next(i for i in range(500) if wanted in draw_patient(i, seed=seed).findings)


def centre(labels: np.ndarray, name: str) -> np.ndarray:
    return np.argwhere(labels == LABELS[name]).mean(axis=0)


@pytest.fixture(scope="module")
def ten_cases() -> list[tuple[Volume, Volume]]:
    return [generate(index) for index in range(10)]


def test_a_case_holds_whole_hu_and_declared_labels_on_one_anisotropic_grid(ten_cases):
    for image, labels in ten_cases:
        assert image.array.shape == labels.array.shape == SHAPE
        assert image.array.dtype == np.float32 and labels.array.dtype == np.uint8
        assert image.spacing_mm == pytest.approx(SPACING)
        assert np.array_equal(image.affine, labels.affine)
        assert np.abs(image.affine[:3, 3]).min() > 0
        assert np.array_equal(image.array, np.rint(image.array))
        assert image.array.min() >= -1024 and image.array.max() <= 3071
        assert set(np.unique(labels.array)) <= {0, *LABELS.values()}


def test_the_same_index_and_seed_give_the_same_voxels_and_others_do_not():
    image, labels = generate(3)
    again, labels_again = generate(3)
    assert np.array_equal(image.array, again.array)
    assert np.array_equal(labels.array, labels_again.array)
    assert np.array_equal(image.affine, again.affine)
    for other, _ in (generate(4), generate(3, seed=8)):
        assert not np.array_equal(image.array, other.array)


def test_organs_lie_where_anatomy_has_them(ten_cases):
    for _, labels in ten_cases:
        array = labels.array
        liver, spleen, spine = (centre(array, name) for name in ("liver", "spleen", "vertebrae"))
        aorta, stomach, pancreas = (centre(array, name) for name in ("aorta", "stomach", "pancreas"))
        assert liver[2] < spine[2] < spleen[2], "liver right and spleen left of the spine"
        assert aorta[1] < spine[1], "aorta in front of the spine"
        assert pancreas[1] < aorta[1], "pancreas in front of the aorta"
        assert stomach[2] > liver[2] and stomach[1] < spine[1]
        assert np.sum(array == LABELS["liver"]) == max(np.sum(array == label) for label in LABELS.values())


def test_the_affine_puts_the_liver_on_the_patients_right(ten_cases):
    for _, labels in ten_cases:
        assert nib.aff2axcodes(labels.affine) == ("L", "P", "S")
        array = to_canonical(labels).array
        assert centre(array, "liver")[2] > centre(array, "spleen")[2], "in RAS+ x grows to the right"
        assert centre(array, "vertebrae")[1] < centre(array, "aorta")[1], "in RAS+ y grows to the front"


def test_organs_show_in_hu(ten_cases):
    bright, dark = 0, 0
    for image, labels in ten_cases:
        liver = image.array[labels.array == LABELS["liver"]]
        bone = image.array[labels.array == LABELS["vertebrae"]]
        assert 0 < np.median(liver) < 150
        assert np.median(bone) > 110
        bright += int((image.array > 300).sum())
        dark += int((image.array < -900).sum())
        fat = (image.array > -160) & (image.array < -60)
        assert fat.mean() > 0.05
    assert bright and dark


def test_a_missing_kidney_has_no_voxels_and_the_other_one_stays():
    _, labels = generate(first_patient("absent_kidney_left"))
    assert not (labels.array == LABELS["kidney_left"]).any()
    assert (labels.array == LABELS["kidney_right"]).any()


@pytest.mark.parametrize(("finding", "structure"), [("splenomegaly", "spleen"), ("aneurysm", "aorta")])
def test_enlarged_organs_are_larger_than_without_the_finding(finding, structure):
    patients = [draw_patient(i, seed=7) for i in range(60)]
    ill = [p.index for p in patients if finding in p.findings][:4]
    well = [p.index for p in patients if finding not in p.findings][:4]

    def volume(index: int) -> int:
        return int((generate(index)[1].array == LABELS[structure]).sum())

    assert np.mean([volume(i) for i in ill]) > 1.2 * np.mean([volume(i) for i in well])


def test_patients_differ_in_difficulty_and_about_a_quarter_are_hard():
    patients = [draw_patient(index, seed=7) for index in range(400)]
    difficulty = np.array([p.difficulty for p in patients])
    noise = np.array([p.noise_hu for p in patients])
    findings = np.array([len(p.findings) for p in patients])
    assert 0.15 < np.mean(difficulty > 0.55) < 0.35
    assert np.mean(difficulty < 0.25) > 0.2
    assert np.corrcoef(difficulty, noise)[0, 1] > 0.8
    assert np.corrcoef(difficulty, findings)[0, 1] > 0.4
    assert {p.phase for p in patients} == {"native", "arterial", "portal_venous", "delayed"}


def test_both_kidneys_are_never_absent():
    for index in range(3000):
        findings = draw_patient(index, seed=1).findings
        assert not {"absent_kidney_left", "absent_kidney_right"} <= findings


def test_a_patient_is_the_same_on_a_finer_grid():
    _, coarse = generate_case(2, seed=7, shape=(11, 25, 33), spacing_mm=(20.0, 12.0, 12.0))
    _, fine = generate_case(2, seed=7, shape=(21, 49, 65), spacing_mm=(10.0, 6.0, 6.0))
    same = fine.array[::2, ::2, ::2] == coarse.array
    assert same.mean() > 0.999


def test_structures_are_numbered_in_order():
    assert [s.label for s in STRUCTURES] == list(range(1, len(STRUCTURES) + 1))
    assert 6 <= len(STRUCTURES) <= 8


@pytest.mark.parametrize("shape", [(0, 12, 16), (8, 12)])
def test_an_empty_grid_is_refused(shape):
    with pytest.raises(ConfigError, match="expected three positive voxel counts"):
        generate_case(0, seed=7, shape=shape, spacing_mm=SPACING)


@pytest.mark.parametrize("spacing", [(3.0, 0.0, 0.5), (3.0, -1.0, 0.5), (float("nan"), 1.0, 0.5)])
def test_an_impossible_spacing_is_refused(spacing):
    with pytest.raises(ConfigError, match="expected three positive lengths in mm"):
        generate_case(0, seed=7, shape=(8, 12, 16), spacing_mm=spacing)


def test_a_negative_index_is_refused():
    with pytest.raises(ConfigError, match="index -1 is negative"):
        generate(-1)


def test_a_grid_smaller_than_the_body_is_painted_too():
    image, labels = generate_case(0, seed=7, shape=(8, 12, 16), spacing_mm=(3.0, 1.0, 0.5))
    assert image.array.shape == labels.array.shape == (8, 12, 16)


def test_distances_to_simple_shapes_are_in_mm():
    canvas = Canvas((9, 11, 13), (4.0, 2.0, 1.0), draw_patient(0, seed=7))
    region = canvas.whole
    region.x[...], region.y[...], region.z[...] = 0.0, 0.0, 0.0
    region.x[0, 0, :] = np.arange(13)
    ball = ellipsoid(region, (0.0, 0.0, 0.0), (5.0, 5.0, 5.0))
    assert ball[0, 0, 1:] == pytest.approx(np.arange(1, 13) - 5.0, abs=0.01)
    pipe = tube(region, [(0.0, 0.0, 0.0), (6.0, 0.0, 0.0)], [2.0, 1.0])
    assert pipe[0, 0, [0, 3, 6, 9]] == pytest.approx([-2.0, -1.5, -1.0, 2.0], abs=1e-4)


def test_a_smooth_field_has_unit_variance_and_is_smooth():
    axes = tuple(np.linspace(-150, 150, n, dtype=np.float32) for n in (31, 41, 51))
    field = smooth_field(np.random.default_rng(0), (axes[0], axes[1], axes[2]), 20.0)
    assert field.shape == (31, 41, 51)
    assert 0.8 < field.std() < 1.2
    assert np.abs(np.diff(field, axis=2)).max() < 1.5


def written(root: Path, **changes: int) -> Path:
    arguments = {"cases": 3, "held_out": 1, "seed": 7} | changes
    write_phantom(root, shape=SHAPE, spacing_mm=SPACING, **arguments)
    return root


def test_the_cohort_lies_as_a_decathlon_data_set(tmp_path):
    calls: list[tuple[int, int]] = []
    write_phantom(
        tmp_path, cases=3, held_out=1, seed=7, shape=SHAPE, spacing_mm=SPACING,
        progress=lambda done, total: calls.append((done, total)),
    )  # fmt: skip
    assert calls == [(1, 3), (2, 3), (3, 3)]
    dataset = json.loads((tmp_path / "dataset.json").read_text())
    assert dataset["modality"] == {"0": "CT"}
    assert dataset["labels"] == {"0": "background"} | {str(s.label): s.name for s in STRUCTURES}
    assert dataset["numTraining"] == 3
    assert dataset["phantom"]["seed"] == 7
    assert dataset["training"][2] == {
        "image": "./imagesTr/phantom_002.nii.gz",
        "label": "./labelsTr/phantom_002.nii.gz",
    }
    assert json.loads((tmp_path / "splits.json").read_text())["held_out"] == ["phantom_002"]
    expected_image, expected_labels = generate(1)
    image_path, label_path = (tmp_path / f"{d}Tr" / "phantom_001.nii.gz" for d in ("images", "labels"))
    image, labels = read_image(image_path), read_label_map(label_path, frozenset(LABELS.values()))
    check_same_grid(image, labels, image_path, label_path)
    assert nib.load(image_path).get_data_dtype() == np.int16
    assert np.array_equal(image.array, expected_image.array)
    assert np.array_equal(labels.array, expected_labels.array)
    assert image.affine == pytest.approx(expected_image.affine, abs=1e-3)


def test_a_case_does_not_depend_on_the_number_of_cases(tmp_path):
    few, many = written(tmp_path / "few", cases=2), written(tmp_path / "many", cases=3)
    for folder in ("imagesTr", "labelsTr"):
        name = f"{folder}/phantom_001.nii.gz"
        assert (few / name).read_bytes() == (many / name).read_bytes()


def test_a_stopped_call_goes_on_and_keeps_what_is_there(tmp_path):
    whole = written(tmp_path / "whole")

    class Stopped(Exception):
        pass

    def stop(done: int, total: int) -> None:
        raise Stopped

    root = tmp_path / "stopped"
    with pytest.raises(Stopped):
        write_phantom(root, cases=3, held_out=1, seed=7, shape=SHAPE, spacing_mm=SPACING, progress=stop)
    assert not (root / "dataset.json").exists()
    kept = root / "imagesTr" / "phantom_000.nii.gz"
    before = kept.stat().st_ino
    written(root)
    assert kept.stat().st_ino == before, "a file that is there is not written again"
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file())
    assert all((whole / name).read_bytes() == (root / name).read_bytes() for name in files)


def test_other_parameters_are_refused_in_a_whole_and_in_a_stopped_folder(tmp_path):
    written(tmp_path)
    with pytest.raises(DataError, match="holds a phantom made with"):
        written(tmp_path, seed=8)
    (tmp_path / "dataset.json").unlink()
    with pytest.raises(DataError, match="choose another folder"):
        written(tmp_path, cases=4)


def test_another_data_set_is_refused(tmp_path):
    (tmp_path / "dataset.json").write_text('{"name": "other"}')
    with pytest.raises(DataError, match="holds another data set"):
        written(tmp_path)
    (tmp_path / "dataset.json").write_text('{"name": ')
    with pytest.raises(DataError, match="cannot be read as JSON"):
        written(tmp_path)
    (tmp_path / "dataset.json").write_text("[]")
    with pytest.raises(DataError, match="holds a list, expected an object"):
        written(tmp_path)
    (tmp_path / "dataset.json").unlink()
    (tmp_path / "imagesTr").mkdir()
    with pytest.raises(DataError, match="holds another data set"):
        written(tmp_path)


@pytest.mark.parametrize(("cases", "held_out"), [(0, 0), (3, 3), (3, -1)])
def test_numbers_that_make_no_cohort_are_refused(tmp_path, cases, held_out):
    with pytest.raises(ConfigError, match="expected at least one case"):
        written(tmp_path / "none", cases=cases, held_out=held_out)
    assert not (tmp_path / "none").exists()
