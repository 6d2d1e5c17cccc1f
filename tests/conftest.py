"""Tiny anisotropic cohorts on disk: an axis swap, or a forgotten spacing, must fail somewhere."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, settings

from cohort.case import Case, CaseView, Dataset, Structure
from cohort.volume import write_volume
from flows import environment

# Prefect and MLflow read these when they are imported, and nothing of the user's may be read or written
_prefect_home = tempfile.TemporaryDirectory(prefix="prefect-", ignore_cleanup_errors=True)
os.environ["PREFECT_HOME"] = _prefect_home.name
os.environ.pop("MLFLOW_TRACKING_URI", None)
environment.prepare(Path(_prefect_home.name))

settings.register_profile(
    "project",
    max_examples=50,
    deadline=None,  # a busy machine is no defect
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("project")

SHAPE = (8, 12, 16)
SPACING_MM = (3.0, 1.0, 0.5)
LABELS = {"liver": 1, "spleen": 2}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Property tests first: Hypothesis fails where anything calls `random` while it draws.

    Prefect's threads do, and they outlive the flows of other tests.
    """
    items.sort(key=lambda item: "property" not in item.path.parts)


@pytest.fixture(scope="module", autouse=True)
def processor_as_it_was() -> Iterator[None]:
    """Flows set torch's threads and how the processor treats tiny numbers; other tests rely on both."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def affine() -> np.ndarray:
    """Voxel (x, y, z) -> world: x runs to the left, and the origin is not zero."""
    matrix = np.diag([-SPACING_MM[2], SPACING_MM[1], SPACING_MM[0], 1.0])
    matrix[:3, 3] = (40.0, -25.0, 7.5)
    return matrix


@pytest.fixture(scope="session")
def structures() -> tuple[Structure, ...]:
    return tuple(Structure(name=name, label=label) for name, label in LABELS.items())


@pytest.fixture(scope="session")
def make_image() -> Callable[[int], np.ndarray]:
    """Seed -> image (8, 12, 16) in HU, float32."""

    def make(seed: int) -> np.ndarray:
        return np.random.default_rng(seed).normal(40.0, 60.0, SHAPE).astype(np.float32)

    return make


@pytest.fixture(scope="session")
def make_label_map() -> Callable[[int], np.ndarray]:
    """Seed -> label map (8, 12, 16) with a box of liver and a box of spleen that do not touch."""

    def make(seed: int) -> np.ndarray:
        shift = seed % 3
        labels = np.zeros(SHAPE, dtype=np.uint8)
        labels[1 : 4 + shift, 2:7, 3 : 9 + shift] = LABELS["liver"]
        labels[2:5, 8:11, 4 + shift : 14] = LABELS["spleen"]
        return labels

    return make


@pytest.fixture
def make_decathlon(
    tmp_path: Path,
    affine: np.ndarray,
    make_image: Callable[[int], np.ndarray],
    make_label_map: Callable[[int], np.ndarray],
) -> Callable[..., Path]:
    """Write a data set in the Decathlon layout and give its root.

    Args of the callable:
        count: cases case_00, case_01 ...; unlabelled: how many of the last have no label map.
        extra: further keys of dataset.json; splits: written to splits.json; patients: to patients.csv.
        root: folder, by default `decathlon` in tmp_path.
    """

    def make(
        count: int = 4,
        *,
        unlabelled: int = 0,
        extra: Mapping[str, object] | None = None,
        splits: object = None,
        patients: Mapping[str, str] | None = None,
        root: Path | None = None,
    ) -> Path:
        folder = tmp_path / "decathlon" if root is None else root
        training: list[dict[str, str]] = []
        for seed in range(count):
            name = f"case_{seed:02d}.nii.gz"
            write_volume(folder / "imagesTr" / name, make_image(seed), affine)
            entry = {"image": f"./imagesTr/{name}"}
            if seed < count - unlabelled:
                write_volume(folder / "labelsTr" / name, make_label_map(seed), affine)
                entry["label"] = f"./labelsTr/{name}"
            training.append(entry)
        document = {
            "name": "Tiny",
            "modality": {"0": "CT"},
            "labels": {"0": "background", **{str(label): name for name, label in LABELS.items()}},
            "training": training,
            **(extra or {}),
        }
        (folder / "dataset.json").write_text(json.dumps(document))
        if splits is not None:
            (folder / "splits.json").write_text(json.dumps(splits))
        if patients is not None:
            rows = [f"{case_id},{patient_id}" for case_id, patient_id in patients.items()]
            (folder / "patients.csv").write_text("\n".join(["case_id,patient_id", *rows]) + "\n")
        return folder

    return make


@pytest.fixture(scope="session")
def write_campaign_yaml() -> Callable[..., Path]:
    """Write the YAML of a campaign whose trainings take a second, and give its path.

    Args of the callable:
        path: of the YAML; campaigns go into `campaigns` beside it.
        root: of a data set in the Decathlon layout.
        changes: dotted key -> value, over the defaults; None removes the key.
    """

    def write(path: Path, root: Path | str, changes: Mapping[str, object] | None = None) -> Path:
        values: dict[str, object] = {
            "name": "tiny",
            "campaigns_root": str(path.parent / "campaigns"),
            "threads": 1,
            "data": {"layout": "decathlon", "root": str(root), "held_out_cases": 2},
            "start": {"cases": 3},
            "rounds": 3,
            "budget": {"currency": "cases", "per_round": 2},
            "strategy": "random",
            "segmenter": {
                "channels": [4, 8],
                "patch": [8, 8, 8],
                "steps": 3,
                "batch_size": 2,
                "learning_rate": 0.01,
                "precision": "float32",
            },
            "cross_fitting": {"folds": 2, "steps": 2},
            "sentinel": {
                "image_size": 32,
                "max_slices": 2,
                "training_slices": 64,
                "steps": 2,
                "batch_size": 4,
                "precision": "float32",
            },
        }
        for key, value in (changes or {}).items():
            *parents, last = key.split(".")
            place = values
            for parent in parents:
                place = place.setdefault(parent, {})  # type: ignore[assignment]
            if value is None:
                place.pop(last, None)
            else:
                place[last] = value
        path.write_text(yaml.safe_dump(values))
        return path

    return write


@pytest.fixture
def make_campaign_yaml(tmp_path: Path, write_campaign_yaml: Callable[..., Path]) -> Callable[..., Path]:
    """Write the YAML of a tiny campaign, by default `tiny.yaml` in tmp_path; see `write_campaign_yaml`."""

    def make(
        root: Path | str, changes: Mapping[str, object] | None = None, *, path: Path | None = None
    ) -> Path:
        return write_campaign_yaml(tmp_path / "tiny.yaml" if path is None else path, root, changes)

    return make


@pytest.fixture
def make_folder(
    tmp_path: Path,
    affine: np.ndarray,
    make_image: Callable[[int], np.ndarray],
    make_label_map: Callable[[int], np.ndarray],
) -> Callable[..., Path]:
    """Write a folder with images/ and labels/ and give its path.

    Args of the callable:
        name: of the folder in tmp_path; case_ids: of the cases; labels: whether they have label maps.
        nnunet: name folders and images the way nnU-Net does.
    """

    def make(name: str, case_ids: tuple[str, ...], *, labels: bool = True, nnunet: bool = False) -> Path:
        folder = tmp_path / name
        images = folder / ("imagesTr" if nnunet else "images")
        label_maps = folder / ("labelsTr" if nnunet else "labels")
        suffix = "_0000.nii.gz" if nnunet else ".nii.gz"
        for seed, case_id in enumerate(case_ids):
            write_volume(images / f"{case_id}{suffix}", make_image(seed), affine)
            if labels:
                write_volume(label_maps / f"{case_id}.nii.gz", make_label_map(seed), affine)
        return folder

    return make


@pytest.fixture
def case(
    tmp_path: Path,
    affine: np.ndarray,
    make_image: Callable[[int], np.ndarray],
    make_label_map: Callable[[int], np.ndarray],
) -> Case:
    """One case with its files on disk."""
    image, reference = tmp_path / "images" / "scan_1.nii.gz", tmp_path / "labels" / "scan_1.nii.gz"
    write_volume(image, make_image(0), affine)
    write_volume(reference, make_label_map(0), affine)
    return Case(
        case_id="scan_1",
        patient_id="scan_1",
        image=image,
        reference=reference,
        annotated=dict.fromkeys(LABELS, 1.0),
        shape=SHAPE,
        spacing_mm=SPACING_MM,
    )


@pytest.fixture
def case_view(case: Case) -> CaseView:
    return case.view()


@pytest.fixture(scope="session")
def make_dataset(structures: tuple[Structure, ...]) -> Callable[..., Dataset]:
    """Patients (one per case) -> data set without files; `unlabelled` ids have no reference."""

    def make(
        patients: Mapping[str, str], *, unlabelled: tuple[str, ...] = (), held_out: tuple[str, ...] = ()
    ) -> Dataset:
        cases = [
            Case(
                case_id=case_id,
                patient_id=patient_id,
                image=Path(f"{case_id}.nii.gz"),
                reference=None if case_id in unlabelled else Path(f"labels/{case_id}.nii.gz"),
                annotated={} if case_id in unlabelled else dict.fromkeys(LABELS, 1.0),
            )
            for case_id, patient_id in patients.items()
        ]
        return Dataset(
            name="Tiny", structures=structures, cases=tuple(cases), held_out=held_out, patients_known=True
        )

    return make


BUNDLE_NETWORK: dict[str, object] = {
    "spatial_dims": 3,
    "in_channels": 1,
    "channels": [4, 8],
    "strides": [2],
    "num_res_units": 1,
    "norm": "batch",
}


def _bundle_inference(out_channels: int) -> dict[str, object]:
    """The keys that bundles of MONAI's model zoo have, for the tiny network."""
    image = {"keys": "@image_key"}
    intensity = {"a_min": -150, "a_max": 150, "b_min": -1.0, "b_max": 1.0, "clip": True}
    return {
        "imports": ["$import glob", "$import os"],
        "bundle_root": ".",
        "image_key": "image",
        "datalist": "$list(sorted(glob.glob(@bundle_root + '/nowhere/*.nii.gz')))",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": {"_target_": "UNet", **BUNDLE_NETWORK, "out_channels": out_channels},
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", **image, "reader": "ITKReader"},
                {"_target_": "EnsureChannelFirstd", **image},
                {"_target_": "Orientationd", **image, "axcodes": "LPS"},
                {"_target_": "Spacingd", **image, "pixdim": [0.5, 1.0, 3.0], "mode": "bilinear"},
                {"_target_": "ScaleIntensityRanged", **image, **intensity},
                {"_target_": "EnsureTyped", **image},
            ],
        },
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": [8, 12, 8],
            "sw_batch_size": 2,
            "overlap": 0.5,
            "device": "@device",
        },
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [{"_target_": "Activationsd", "keys": "pred", "softmax": True}],
        },
    }


@pytest.fixture(scope="session")
def write_bundle() -> Callable[..., Path]:
    """Write a tiny MONAI bundle (a U-Net on 0.5 x 1 x 3 mm) and give its folder.

    Args of the callable:
        root: its folder.
        changes: top key of its configuration of inference -> value; None removes the key.
        channels: what its output channels mean.
        weights: instead of weights drawn from a seed.
    """

    import torch  # here, because most tests need neither
    from monai.networks.nets import UNet

    def write(
        root: Path,
        changes: Mapping[str, object] | None = None,
        *,
        channels: tuple[str, ...] = ("background", "Spleen", "tumour_liver", "LIVER"),
        weights: object = None,
    ) -> Path:
        values = {**_bundle_inference(len(channels)), **(changes or {})}
        inputs = {"image": {"type": "image", "num_channels": 1, "spatial_shape": [8, 12, 8]}}
        meaning = {str(channel): name for channel, name in enumerate(channels)}
        outputs = {"pred": {"type": "image", "num_channels": len(channels), "channel_def": meaning}}
        meta = {"version": "0.1.0", "network_data_format": {"inputs": inputs, "outputs": outputs}}
        if weights is None:
            with torch.random.fork_rng():
                torch.manual_seed(0)
                weights = UNet(**BUNDLE_NETWORK, out_channels=len(channels)).state_dict()
        (root / "configs").mkdir(parents=True)
        (root / "models").mkdir()
        kept = {key: value for key, value in values.items() if value is not None}
        (root / "configs" / "inference.json").write_text(json.dumps(kept))
        (root / "configs" / "metadata.json").write_text(json.dumps(meta))
        torch.save(weights, root / "models" / "model.pt")
        return root

    return write
