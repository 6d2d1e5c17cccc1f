import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from cohort.errors import ConfigError, DataError, GeometryError, ModelError
from cohort.volume import read_image, read_label_map, write_volume
from flows.score import MaskRequest, as_json, as_table, mask_requests, score_files
from sentinel.scoring import MaskScore, Sentinel

A, B = Path("a.nii.gz"), Path("b.nii.gz")


@pytest.fixture
def files(
    tmp_path: Path,
    affine: np.ndarray,
    make_image: Callable[[int], np.ndarray],
    make_label_map: Callable[[int], np.ndarray],
) -> tuple[Path, Path]:
    """An image and its label map: liver 1, spleen 2."""
    image, labels = tmp_path / "ct.nii.gz", tmp_path / "labels.nii.gz"
    write_volume(image, make_image(0), affine)
    write_volume(labels, make_label_map(0), affine)
    return image, labels


class TestRequests:
    def test_a_mask_for_each_structure(self) -> None:
        assert mask_requests([A, B], ["liver", "spleen"], []) == (
            MaskRequest(structure="liver", path=A),
            MaskRequest(structure="spleen", path=B),
        )

    def test_one_label_map_for_all(self) -> None:
        assert mask_requests([A], ["liver", "spleen"], [5, 7]) == (
            MaskRequest(structure="liver", path=A, label=5),
            MaskRequest(structure="spleen", path=A, label=7),
        )

    def test_one_mask(self) -> None:
        assert mask_requests([A], ["liver"], []) == (MaskRequest(structure="liver", path=A),)

    def test_a_label_map_for_each_structure(self) -> None:
        requests = mask_requests([A, B], ["liver", "spleen"], [1, 1])
        assert [(found.path, found.label) for found in requests] == [(A, 1), (B, 1)]

    @pytest.mark.parametrize(
        ("masks", "structures", "labels", "message"),
        [
            ([], ["liver"], [], "at least one --mask and its --structure"),
            ([A], [], [], "at least one --mask and its --structure"),
            ([A, B], ["liver"], [], "2 masks are named for 1 structures; give one --mask for each"),
            ([A, B], ["liver", "spleen", "colon"], [1, 2, 3], "2 masks are named for 3 structures"),
            ([A], ["liver", "spleen"], [1], "1 labels are named for 2 structures; give one --label for each"),
            ([A], ["liver"], [1, 2], "2 labels are named for 1 structures"),
            ([A], ["liver", "spleen"], [], "One mask is named for 2 structures; say with --label"),
            ([A, B], ["liver", "liver"], [], "A structure is named twice"),
        ],
    )
    def test_numbers_that_do_not_fit(
        self, masks: list[Path], structures: list[str], labels: list[int], message: str
    ) -> None:
        with pytest.raises(ConfigError, match=message):
            mask_requests(masks, structures, labels)


class TestFiles:
    def test_labels_of_one_map(self, files: tuple[Path, Path], sentinel: Sentinel) -> None:
        image, labels = files
        requests = mask_requests([labels], ["spleen", "liver"], [2, 1])
        voxels = read_label_map(labels).array
        expected = sentinel.score(read_image(image), {"spleen": voxels == 2, "liver": voxels == 1})
        assert score_files(image, requests, sentinel) == expected
        assert expected[0].predicted_dsc != expected[1].predicted_dsc

    def test_without_a_label_every_voxel_above_0_counts(
        self, files: tuple[Path, Path], sentinel: Sentinel
    ) -> None:
        image, labels = files
        voxels = read_label_map(labels).array
        expected = sentinel.score(read_image(image), {"liver": voxels > 0})
        assert score_files(image, mask_requests([labels], ["liver"], []), sentinel) == expected

    def test_a_label_that_is_not_there_is_an_empty_mask(
        self, files: tuple[Path, Path], sentinel: Sentinel
    ) -> None:
        image, labels = files
        missing, found = score_files(image, mask_requests([labels], ["liver", "spleen"], [9, 2]), sentinel)
        assert (math.isnan(missing.predicted_dsc), missing.reason) == (True, "empty mask")
        assert not math.isnan(found.predicted_dsc)

    def test_a_mask_on_another_grid(
        self, files: tuple[Path, Path], sentinel: Sentinel, affine: np.ndarray
    ) -> None:
        image, labels = files
        write_volume(labels, np.ones((8, 16, 12), dtype=np.uint8), affine)
        with pytest.raises(GeometryError, match=r"labels\.nii\.gz has shape \(8, 16, 12\), but its image"):
            score_files(image, mask_requests([labels], ["liver"], []), sentinel)

    def test_a_file_that_is_broken_or_missing(
        self, files: tuple[Path, Path], sentinel: Sentinel, tmp_path: Path
    ) -> None:
        image, labels = files
        with pytest.raises(DataError, match=r"nowhere\.nii\.gz does not exist"):
            score_files(image, mask_requests([tmp_path / "nowhere.nii.gz"], ["liver"], []), sentinel)
        image.write_bytes(image.read_bytes()[:200])
        with pytest.raises(DataError, match=r"ct\.nii\.gz cannot be read"):
            score_files(image, mask_requests([labels], ["liver"], []), sentinel)

    def test_a_structure_that_the_sentinel_does_not_know(
        self, files: tuple[Path, Path], sentinel: Sentinel
    ) -> None:
        with pytest.raises(ModelError, match="not trained for structure 'brain'; it knows liver, spleen"):
            score_files(files[0], mask_requests([files[1]], ["brain"], []), sentinel)


SCORES = [
    MaskScore(
        structure="liver",
        predicted_dsc=0.75,
        raw=0.5,
        lower=0.625,
        upper=0.875,
        slice_indices=(3, 4, 6),
        slice_scores=(0.5, 0.25, 0.75),
    ),
    MaskScore(structure="spleen", predicted_dsc=math.nan, reason="empty mask"),
]


def test_json_has_no_number_where_there_is_none() -> None:
    found = as_json(SCORES, {"image": "ct.nii.gz"})
    liver, spleen = json.loads(json.dumps(found, allow_nan=False))["scores"]
    assert found["image"] == "ct.nii.gz"
    assert liver == {
        "structure": "liver",
        "predicted_dsc": 0.75,
        "lower": 0.625,
        "upper": 0.875,
        "raw": 0.5,
        "reason": "",
        "slices": [
            {"index": 3, "raw": 0.5},
            {"index": 4, "raw": 0.25},
            {"index": 6, "raw": 0.75},
        ],
    }
    assert [spleen[key] for key in ("predicted_dsc", "lower", "upper", "raw")] == [None] * 4
    assert (spleen["reason"], spleen["slices"]) == ("empty mask", [])


def test_table_for_people() -> None:
    console = Console(width=100)
    with console.capture() as captured:
        console.print(as_table(SCORES))
    rows = [
        [cell.strip() for cell in line.strip("│").split("│")]
        for line in captured.get().splitlines()
        if line.startswith("│")
    ]
    assert rows == [
        ["liver", "0.750", "0.625 to 0.875", "3", "4: 0.250", ""],
        ["spleen", "-", "-", "0", "-", "empty mask"],
    ]
