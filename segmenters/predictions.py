"""Predictions on disk: a label map and a JSON file beside it with its numbers."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cohort.case import Structure
from cohort.errors import DataError
from cohort.records import Prediction
from cohort.volume import Affine, write_bytes, write_volume


def write_prediction(
    out: Path,
    case_id: str,
    labels: NDArray[np.uint8],
    affine: Affine,
    structures: Sequence[Structure],
    checkpoint_sha256: str,
    uncertainty: Mapping[str, Mapping[str, float]],
    features: Sequence[float] = (),
) -> Prediction:
    """Write a label map and its numbers; the JSON file comes last and says that both are whole.

    Args:
        out: folder.
        case_id: names the files.
        labels: (D, H, W) on the image's own grid.
        affine: of the image.
        structures: what to count.
        checkpoint_sha256: of the weights that made it.
        uncertainty: kind -> structure -> value.
        features: of the image, if the family gives any.
    """
    counts = np.bincount(labels.ravel(), minlength=256)
    per_slice = {s.name: int((labels == s.label).any(axis=(1, 2)).sum()) for s in structures}
    prediction = Prediction(
        case_id=case_id,
        mask=out / f"{case_id}.nii.gz",
        checkpoint_sha256=checkpoint_sha256,
        voxels={s.name: int(counts[s.label]) for s in structures},
        slices=per_slice,
        uncertainty={kind: dict(values) for kind, values in uncertainty.items()},
        features=tuple(features),
    )
    beside = out / f"{case_id}.json"
    beside.unlink(missing_ok=True)
    write_volume(prediction.mask, labels, affine)
    write_bytes(beside, json.dumps(_to_json(prediction), indent=1, allow_nan=False).encode())
    return prediction


def read_prediction(json_path: Path) -> Prediction:
    """Read the numbers of a prediction; its label map lies beside the file.

    Raises:
        DataError: if the file or its label map is missing or broken.
    """
    try:
        values = json.loads(json_path.read_bytes())
        prediction = Prediction(
            case_id=str(values["case_id"]),
            mask=json_path.with_name(str(values["mask"])),
            checkpoint_sha256=str(values["checkpoint_sha256"]),
            voxels={name: int(count) for name, count in values["voxels"].items()},
            slices={name: int(count) for name, count in values["slices"].items()},
            uncertainty={kind: _from_nullable(found) for kind, found in values["uncertainty"].items()},
            features=tuple(float(value) for value in values.get("features", ())),
        )
    except FileNotFoundError as error:
        raise DataError(f"{json_path} does not exist; expected the numbers of a prediction there") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{json_path} is no prediction ({error!r}); delete it and predict the case again"
        ) from error
    if not prediction.mask.is_file():
        raise DataError(f"{prediction.mask} does not exist, but {json_path} describes it; predict again")
    return prediction


def find_prediction(
    out: Path,
    case_id: str,
    structures: Sequence[Structure],
    checkpoint_sha256: str,
    uncertainty: Sequence[str],
) -> Prediction | None:
    """The prediction that is already there, None if it is missing, broken or another checkpoint's."""
    try:
        found = read_prediction(out / f"{case_id}.json")
    except DataError:
        return None
    fits = (
        found.case_id == case_id
        and found.checkpoint_sha256 == checkpoint_sha256
        and set(uncertainty) <= set(found.uncertainty)
        and list(found.voxels) == [structure.name for structure in structures]
    )
    return found if fits else None


def _to_json(prediction: Prediction) -> dict[str, Any]:
    return {
        "case_id": prediction.case_id,
        "mask": prediction.mask.name,
        "checkpoint_sha256": prediction.checkpoint_sha256,
        "voxels": dict(prediction.voxels),
        "slices": dict(prediction.slices),
        "uncertainty": {
            kind: {name: None if math.isnan(value) else value for name, value in values.items()}
            for kind, values in prediction.uncertainty.items()
        },
        **({"features": list(prediction.features)} if prediction.features else {}),
    }


def _from_nullable(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: math.nan if value is None else float(value) for name, value in values.items()}
