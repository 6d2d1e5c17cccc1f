"""Features of the images of a cohort, made once for each image and kept beside the campaigns."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np

from cohort.case import CaseView
from cohort.errors import DataError
from cohort.features import VERSION, ImageFeatures, Vectors, embed, embed_any, read_features
from cohort.records import Prediction
from cohort.volume import write_bytes
from flows.stages import file_sha256, read_json, run_stage, write_json
from segmenters.base import Report

CACHE = ".features"
"""Folder beside the campaigns: a file for each image, named by its hash, so that campaigns share them."""

_THREADS = 4
_COORDINATES, _BROKEN = "coordinates.npy", "broken.json"

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeatureTable:
    """Where the cases of a campaign lie among each other.

    Args:
        rows: case id -> (F,) coordinates, see `cohort.features.embed`; empty where nobody asked for them.
        broken: case id -> why the scan cannot be used.
    """

    rows: Mapping[str, Vectors] = field(default_factory=dict)
    broken: Mapping[str, str] = field(default_factory=dict)

    def of(self, case_ids: Sequence[str]) -> dict[str, Vectors]:
        """The coordinates of some cases, where they are known."""
        return {case_id: self.rows[case_id] for case_id in case_ids if case_id in self.rows}


def image_features(
    images: Sequence[Path], cache: Path, progress: Progress | None = None
) -> tuple[ImageFeatures, ...]:
    """The features of images, from the cache where they are in it.

    Args:
        images: in the order of the answer.
        cache: folder of files that are named by the images' hashes.
        progress: called after each image, in their order.
    """
    found: list[ImageFeatures] = []
    with ThreadPoolExecutor(max_workers=_THREADS) as threads:
        for path, each in threads.map(lambda image: _one(image, cache), images):
            if not path.is_file() and not each.broken:  # a broken scan may be repaired in place
                _write_array(path, each.values)
            found.append(each)
            if progress is not None:
                progress(len(found), len(images))
    return tuple(found)


def feature_stage(
    folder: Path,
    cases: Sequence[CaseView],
    fingerprints: Mapping[str, str],
    cache: Path,
    step: Callable[[str], AbstractContextManager[Report]],
) -> FeatureTable:
    """The coordinates of a campaign's cases among each other: the same in all its rounds.

    Args:
        folder: of the campaign.
        cases: all that may be selected or are labelled, in any order.
        fingerprints: case id -> hash of its files.
        cache: see `image_features`.
        step: opens the display of a step by its description.
    """
    ordered = sorted(cases, key=lambda case: case.case_id)
    names = [case.case_id for case in ordered]
    inputs = {"version": VERSION, "images": {name: fingerprints[name] for name in names}}

    def make(out: Path) -> None:
        with step("look at every image") as report:
            images = [case.image for case in ordered]
            found = image_features(images, cache, lambda done, total: report(done, total, {}))
        _write_array(out / _COORDINATES, embed(np.array([each.values for each in found])))
        broken = {name: each.broken for name, each in zip(names, found, strict=True) if each.broken}
        write_json(out / _BROKEN, broken)

    finished = run_stage(folder, "features", inputs, make)
    coordinates: Vectors = np.load(finished / _COORDINATES, allow_pickle=False)
    return FeatureTable(rows=dict(zip(names, coordinates, strict=True)), broken=read_json(finished / _BROKEN))


def segmenter_table(predictions: Sequence[Prediction], broken: Mapping[str, str]) -> FeatureTable:
    """Where cases lie among each other as a round's segmenter sees them.

    Args:
        predictions: of the labelled cases and the pool, by one checkpoint.
        broken: case id -> why the scan cannot be used.

    Raises:
        DataError: for a prediction without features.
    """
    ordered = sorted(predictions, key=lambda prediction: prediction.case_id)
    for prediction in ordered:
        if not prediction.features:
            raise DataError(
                f"The prediction of case {prediction.case_id} has no features of the segmenter; remove it to "
                "have it made again, or set features: image"
            )
    coordinates = embed_any([np.array(prediction.features) for prediction in ordered])
    names = [prediction.case_id for prediction in ordered]
    return FeatureTable(rows=dict(zip(names, coordinates, strict=True)), broken=broken)


def _one(image: Path, cache: Path) -> tuple[Path, ImageFeatures]:
    """The features of an image, and their place in the cache."""
    path = cache / f"v{VERSION}" / f"{file_sha256(image)}.npy"
    if path.is_file():
        return path, ImageFeatures(values=np.load(path, allow_pickle=False))
    return path, read_features(image)


def _write_array(path: Path, array: Vectors) -> None:
    buffer = BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_bytes(path, buffer.getvalue())
