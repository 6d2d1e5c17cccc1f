import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cohort.annotation import Request, check_annotation
from cohort.case import Case, Dataset, Structure
from cohort.errors import AnnotationError, DataError
from cohort.volume import read_grid, write_volume
from flows.annotators.base import Annotator
from flows.annotators.folder import Folder
from flows.annotators.oracle import Oracle

Structures = tuple[Structure, ...]
Make = Callable[[int], np.ndarray]


def request(case_id: str = "scan_1", *structures: str) -> Request:
    return Request(case_id=case_id, structures=structures or ("liver", "spleen"))


class TestOracle:
    def test_reveals_the_reference_at_once(self, case: Case) -> None:
        oracle: Annotator = Oracle(by_id={"scan_1": case})
        oracle.send([request()], {})
        (found,) = oracle.collect([request()])
        assert (found.case_id, found.path, found.minutes) == ("scan_1", case.reference, None)
        assert found.structures == {"liver": 1.0, "spleen": 1.0}
        assert oracle.waits_for([request()]) == ""
        assert oracle.name == "oracle"

    def test_reveals_only_what_was_contoured_and_asked_for(self, case: Case) -> None:
        partial = Case(
            case_id="scan_1",
            patient_id="scan_1",
            image=case.image,
            reference=case.reference,
            annotated={"liver": 0.62, "kidney": 1.0},
        )
        oracle = Oracle(by_id={"scan_1": partial})
        assert oracle.collect([request()])[0].structures == {"liver": 0.62}
        assert oracle.collect([request("scan_1", "spleen")])[0].structures == {}

    def test_reveals_only_requested_cases(self, make_dataset: Callable[..., Dataset]) -> None:
        oracle = Oracle(by_id=make_dataset({"a": "a", "b": "b", "c": "c"}).by_id)
        assert [found.case_id for found in oracle.collect([request("c"), request("a")])] == ["c", "a"]

    def test_cannot_reveal_what_is_not_there(self, make_dataset: Callable[..., Dataset]) -> None:
        oracle = Oracle(by_id=make_dataset({"a": "a"}, unlabelled=("a",)).by_id)
        with pytest.raises(DataError, match=r"Case a has no reference .* use annotator\.kind=folder"):
            oracle.collect([request("a")])


@pytest.fixture
def proposals(tmp_path: Path, affine: np.ndarray, make_label_map: Make) -> dict[str, Path]:
    paths = {}
    for seed, case_id in enumerate(("scan_1", "scan_2")):
        paths[case_id] = tmp_path / "predicted" / f"{case_id}.nii.gz"
        write_volume(paths[case_id], make_label_map(seed), affine)
    return paths


@pytest.fixture
def folder(tmp_path: Path, proposals: dict[str, Path]) -> Folder:
    images = {case_id: Path("scans") / f"{case_id}.nii.gz" for case_id in proposals}
    return Folder(folder=tmp_path / "round_000", images=images)


class TestFolder:
    REQUESTS = (request("scan_2"), request("scan_1"))

    def test_hands_out_the_models_masks_and_a_work_list_in_rank_order(
        self, folder: Folder, proposals: dict[str, Path]
    ) -> None:
        folder.send(self.REQUESTS, proposals)
        for case_id, proposal in proposals.items():
            handed_out = folder.folder / "todo" / f"{case_id}.nii.gz"
            assert handed_out.read_bytes() == proposal.read_bytes()
        assert (folder.folder / "done").is_dir()
        with (folder.folder / "worklist.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [(row["rank"], row["case_id"]) for row in rows] == [("0", "scan_2"), ("1", "scan_1")]
        assert rows[0] == {
            "rank": "0",
            "case_id": "scan_2",
            "image": "scans/scan_2.nii.gz",
            "proposal": "todo/scan_2.nii.gz",
            "put_back": "done/scan_2.nii.gz",
            "structures": "liver; spleen",
        }
        assert sorted(path.name for path in (folder.folder / "todo").iterdir()) == [
            "scan_1.nii.gz",
            "scan_2.nii.gz",
        ]

    def test_waits_until_files_are_back(self, folder: Folder, proposals: dict[str, Path]) -> None:
        folder.send(self.REQUESTS, proposals)
        assert folder.collect(self.REQUESTS) == ()
        waits_for = folder.waits_for(self.REQUESTS)
        assert f"corrected label maps in {folder.folder / 'done'}: scan_2.nii.gz, scan_1.nii.gz" in waits_for

    def test_takes_back_what_is_there(self, folder: Folder, proposals: dict[str, Path]) -> None:
        folder.send(self.REQUESTS, proposals)
        (folder.folder / "todo" / "scan_1.nii.gz").rename(folder.folder / "done" / "scan_1.nii.gz")
        (found,) = folder.collect(self.REQUESTS)
        assert found.case_id == "scan_1"
        assert found.path == folder.folder / "done" / "scan_1.nii.gz"
        assert found.structures == {"liver": 1.0, "spleen": 1.0}

    def test_takes_back_a_file_that_is_not_compressed(
        self, folder: Folder, proposals: dict[str, Path], affine: np.ndarray, make_label_map: Make
    ) -> None:
        folder.send(self.REQUESTS, proposals)
        write_volume(folder.folder / "done" / "scan_2.nii", make_label_map(0), affine)
        assert [found.path.name for found in folder.collect(self.REQUESTS)] == ["scan_2.nii"]

    def test_tells_of_files_that_nobody_asked_for(self, folder: Folder, proposals: dict[str, Path]) -> None:
        folder.send(self.REQUESTS, proposals)
        assert "not asked for" not in folder.waits_for(self.REQUESTS)
        for name in ("scan_1.nii", "scan-2.nii.gz", "notes.txt", ".scan_2.nii.gz.part"):
            (folder.folder / "done" / name).touch()
        told = folder.waits_for(self.REQUESTS[:1])
        assert told.endswith("; not asked for, so not read: notes.txt, scan-2.nii.gz")

    def test_never_overwrites_work_in_progress(self, folder: Folder, proposals: dict[str, Path]) -> None:
        """People may correct the file in todo/ itself; starting the campaign again must not undo it."""
        folder.send(self.REQUESTS, proposals)
        (folder.folder / "todo" / "scan_1.nii.gz").write_bytes(b"an hour of work")
        folder.send(self.REQUESTS, proposals)
        assert (folder.folder / "todo" / "scan_1.nii.gz").read_bytes() == b"an hour of work"

    def test_a_file_that_was_handed_back_is_not_handed_out_again(
        self, folder: Folder, proposals: dict[str, Path]
    ) -> None:
        folder.send(self.REQUESTS, proposals)
        (folder.folder / "todo" / "scan_1.nii.gz").rename(folder.folder / "done" / "scan_1.nii.gz")
        folder.send([request("scan_2")], proposals)
        assert not (folder.folder / "todo" / "scan_1.nii.gz").exists()

    @pytest.mark.parametrize(
        ("shape", "shift_mm", "message"),
        [
            ((8, 12, 15), 0.0, r"has shape \(8, 12, 15\)"),
            ((8, 12, 16), 5.0, "different affines"),
        ],
    )
    def test_a_label_map_on_another_grid_is_refused(
        self,
        case: Case,
        structures: Structures,
        tmp_path: Path,
        affine: np.ndarray,
        shape: tuple[int, int, int],
        shift_mm: float,
        message: str,
    ) -> None:
        folder = Folder(folder=tmp_path / "round_000", images={"scan_1": case.image})
        moved = affine.copy()
        moved[0, 3] += shift_mm
        write_volume(tmp_path / "round_000" / "done" / "scan_1.nii.gz", np.ones(shape, np.uint8), moved)
        (found,) = folder.collect([request()])
        with pytest.raises(AnnotationError, match=f"does not fit its scan.*{message}"):
            check_annotation(found.path, case.view(), read_grid(case.image), request(), structures)
