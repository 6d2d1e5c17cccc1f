"""The cases of a fit as an nnU-Net data set in a workspace: planned once, each case prepared once."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cohort.case import Structure
from cohort.records import TrainingCase
from cohort.volume import read_image, read_label_map, write_bytes, write_volume
from segmenters.nnunet_config import NnUNetConfig
from segmenters.nnunet_labels import LabelledCase, labelled_cases, nnunet_labels, teaching, to_nnunet
from segmenters.nnunet_package import PREPROCESSED, RAW
from segmenters.nnunet_planning import DATASET, FINGERPRINT, check_plan, fingerprint, make_plan, read_arrays

_ENDING = ".nii.gz"
_PLAN = "plan.json"
_PARTS = (".b2nd", "_seg.b2nd", ".pkl")
"""Files of a prepared case; the last one comes last and says that all are whole."""

_SCRATCH = ".nnunet-"


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedSet:
    """What a training needs to know of the data set.

    Args:
        root: the workspace.
        plan: nnU-Net's.
        dataset: nnU-Net's dataset.json.
        folder: of the prepared cases.
        identifiers: of the cases to learn from.
    """

    root: Path
    plan: dict[str, Any]
    dataset: dict[str, Any]
    folder: Path
    identifiers: tuple[str, ...]


class NnUNetDataset:
    """One cohort's data set in a workspace.

    Args:
        root: the workspace, a folder that outlives rounds.
        config: of the segmenter.
        structures: of the cohort.
    """

    def __init__(self, root: Path, config: NnUNetConfig, structures: Sequence[Structure]) -> None:
        self._root, self._config, self._structures = root, config, tuple(structures)
        said = [version("nnunetv2"), config.planner, config.modality]
        said += [f"{structure.name}={structure.label}" for structure in structures]
        # another planner or other labels make another data set
        self.name = f"Dataset001_{hashlib.sha256(repr(said).encode()).hexdigest()[:12]}"
        self._raw, self._prepared = root / RAW / self.name, root / PREPROCESSED / self.name

    def prepare(self, cases: Sequence[TrainingCase]) -> PreparedSet:
        """Write what is new of the cases, plan if nothing is planned yet, and prepare what is new.

        Raises:
            ConfigError: if nnU-Net has no planner of the configured name.
            ModelError: if nothing can be learned from the cases, if they are too small, or if the plan lacks
                the configuration.
            DataError: if a file is missing or broken.
        """
        for left in self._root.glob(f"{_SCRATCH}*"):  # by a process that was killed
            shutil.rmtree(left)
        labelled = labelled_cases(cases, self._structures)
        labelled = teaching(labelled, {item.identifier: self._write_labels(item) for item in labelled})
        dataset = self._described(labelled, ignore=not all(item.complete for item in labelled))
        write_bytes(self._raw / DATASET, json.dumps(dataset, indent=1).encode())
        plan = self._plan(labelled, dataset)
        configuration = plan["configurations"][self._config.configuration]
        folder = self._prepared / str(configuration["data_identifier"])
        self._preprocess(labelled, plan, folder)
        return PreparedSet(
            root=self._root,
            plan=plan,
            dataset=dataset,
            folder=folder,
            identifiers=tuple(item.identifier for item in labelled),
        )

    def _label_path(self, labelled: LabelledCase) -> Path:
        return self._raw / "labelsTr" / f"{labelled.identifier}{_ENDING}"

    def _write_labels(self, labelled: LabelledCase) -> NDArray[np.int64]:
        """Write a case's label map if it is not there; voxels of every label in it."""
        path = self._label_path(labelled)
        if not path.is_file():
            read_image(labelled.case.image)  # a broken scan is refused before nnU-Net sees it
            stored = read_label_map(labelled.case.label_map)
            write_volume(path, to_nnunet(stored.array, labelled, self._structures), stored.affine)
        return np.bincount(read_label_map(path).array.ravel(), minlength=len(self._structures) + 2)

    def _described(self, labelled: Sequence[LabelledCase], *, ignore: bool) -> dict[str, Any]:
        return {
            "name": self.name,
            "channel_names": {"0": self._config.modality},
            "labels": nnunet_labels(self._structures, ignore=ignore),
            "numTraining": len(labelled),
            "file_ending": _ENDING,
            "overwrite_image_reader_writer": "NibabelIOWithReorient",
            "dataset": {
                item.identifier: {
                    "images": [str(item.case.image.resolve())],
                    "label": str(self._label_path(item).resolve()),
                }
                for item in labelled
            },
        }

    def _plan(self, labelled: Sequence[LabelledCase], dataset: dict[str, Any]) -> dict[str, Any]:
        """The plan that is there, or one made of these cases; beside it lies what it was made of."""
        path = self._prepared / _PLAN
        if not path.is_file():
            files = [(item.case.image, self._label_path(item)) for item in labelled]
            found = fingerprint(files, len(self._structures) + 1)
            with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=self._root) as scratch:
                plan = make_plan(self._config.planner, dataset, found, Path(scratch))
            check_plan(plan, self._config.configuration)
            for name, value in ((FINGERPRINT, found), (DATASET, dataset), (_PLAN, plan)):
                write_bytes(self._prepared / name, json.dumps(value, indent=1).encode())
        read: dict[str, Any] = json.loads(path.read_bytes())
        check_plan(read, self._config.configuration)
        return read

    def _preprocess(self, labelled: Sequence[LabelledCase], plan: dict[str, Any], folder: Path) -> None:
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        folder.mkdir(parents=True, exist_ok=True)
        for torn in folder.glob(".*.tmp"):  # nnU-Net refuses a folder with files of another kind
            torn.unlink()
        manager = PlansManager(plan)
        configuration = manager.get_configuration(self._config.configuration)
        # described with a label to ignore, so that a fit with one and a fit without share a prepared case
        dataset = self._described((), ignore=True)
        preprocessor = _reading(configuration.preprocessor_class)(verbose=False)
        for item in labelled:
            if (folder / f"{item.identifier}{_PARTS[-1]}").is_file():
                continue
            files = [str(item.case.image)], str(self._label_path(item))
            with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=self._root) as scratch:
                made = Path(scratch) / item.identifier
                preprocessor.run_case_save(str(made), *files, manager, configuration, dataset)
                for name in (f"{item.identifier}{part}" for part in _PARTS):
                    write_bytes(folder / name, made.with_name(name).read_bytes())


def _reading(preprocessor: Any) -> Any:
    """A preprocessor of nnU-Net's, but reading files as the cohort does."""

    class Reading(preprocessor):  # type: ignore[misc]
        def run_case(
            self, image_files: list[str], seg_file: str, plans: Any, configuration: Any, dataset: Any
        ) -> Any:
            data, labels, spacing_mm = read_arrays(Path(image_files[0]), Path(seg_file))
            properties = {"spacing": list(spacing_mm)}
            return self.run_case_npy(data, labels, properties, plans, configuration, dataset)

    return Reading
