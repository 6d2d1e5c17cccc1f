import csv
import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from cohort.annotation import Request, check_annotation
from cohort.annotator_noise import AnnotatorNoise
from cohort.case import Case, Dataset, Structure
from cohort.errors import AnnotationError, DataError
from cohort.metrics import dsc
from cohort.slabs import Slab
from cohort.volume import read_grid, read_label_map, write_volume
from flows.annotators import answers
from flows.annotators.base import Annotator, WorkItem
from flows.annotators.folder import Folder
from flows.annotators.monailabel import MonaiLabel
from flows.annotators.oracle import Errors, Oracle

Structures = tuple[Structure, ...]
Make = Callable[[int], np.ndarray]


STRUCTURES = (Structure(name="liver", label=1), Structure(name="spleen", label=2))


@pytest.fixture(autouse=True)
def nobody_is_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that a test has just written count as finished."""
    monkeypatch.setattr(answers.time, "sleep", lambda seconds: None)


def work(requests: Sequence[Request], proposals: Mapping[str, Path]) -> list[WorkItem]:
    return [
        WorkItem(request=asked, proposal=proposals[asked.case_id], why="liver: predicted DSC 0.40")
        for asked in requests
    ]


def request(case_id: str = "scan_1", *structures: str) -> Request:
    return Request(case_id=case_id, structures=structures or ("liver", "spleen"))


class TestOracle:
    def test_reveals_the_reference_at_once(self, case: Case) -> None:
        oracle: Annotator = Oracle(by_id={"scan_1": case})
        oracle.send([])
        (found,) = oracle.collect([request()]).returned
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
        assert oracle.collect([request()]).returned[0].structures == {"liver": 0.62}
        assert oracle.collect([request("scan_1", "spleen")]).returned[0].structures == {}

    def test_reveals_only_requested_cases(self, make_dataset: Callable[..., Dataset]) -> None:
        oracle = Oracle(by_id=make_dataset({"a": "a", "b": "b", "c": "c"}).by_id)
        assert [found.case_id for found in oracle.collect([request("c"), request("a")]).returned] == [
            "c",
            "a",
        ]

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
    return Folder(folder=tmp_path / "round_000", images=images, structures=STRUCTURES, asked=tuple(images))


class TestFolder:
    REQUESTS = (request("scan_2"), request("scan_1"))

    def test_hands_out_the_models_masks_and_a_work_list_in_rank_order(
        self, folder: Folder, proposals: dict[str, Path]
    ) -> None:
        folder.send(work(self.REQUESTS, proposals))
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
            "image": str(Path("scans/scan_2.nii.gz").absolute()),
            "proposal": "todo/scan_2.nii.gz",
            "put_back": "done/scan_2.nii.gz",
            "structures": "1 liver; 2 spleen",
            "why": "liver: predicted DSC 0.40",
            "picture": "",
        }
        assert sorted(path.name for path in (folder.folder / "todo").iterdir()) == [
            "scan_1.nii.gz",
            "scan_2.nii.gz",
        ]

    def test_paths_are_those_that_are_seen_from_its_folder(
        self, folder: Folder, proposals: dict[str, Path], tmp_path: Path
    ) -> None:
        first, second = work(self.REQUESTS, proposals)
        assert folder.pictures is not None
        beside, elsewhere = folder.pictures / "scan_2.png", tmp_path / "elsewhere.png"
        folder.send(
            [dataclasses.replace(first, picture=beside), dataclasses.replace(second, picture=elsewhere)]
        )
        with (folder.folder / "worklist.csv").open() as file:
            assert [row["picture"] for row in csv.DictReader(file)] == ["pictures/scan_2.png", str(elsewhere)]

    def test_paths_do_not_depend_on_where_the_command_ran(
        self, folder: Folder, proposals: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        inside = folder.folder / "images" / "scan_1.nii.gz"
        images = {"scan_1": inside, "scan_2": Path("scans/scan_2.nii.gz")}
        sent = dataclasses.replace(folder, folder=Path("round_000"), images=images)
        first, second = work(self.REQUESTS, proposals)
        sent.send([dataclasses.replace(first, picture=Path("round_000/pictures/scan_2.png")), second])
        with (folder.folder / "worklist.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [row["image"] for row in rows] == [
            str(tmp_path / "scans" / "scan_2.nii.gz"),
            "images/scan_1.nii.gz",
        ]
        assert [row["picture"] for row in rows] == ["pictures/scan_2.png", ""]

    def test_waits_until_files_are_back(self, folder: Folder, proposals: dict[str, Path]) -> None:
        folder.send(work(self.REQUESTS, proposals))
        assert folder.collect(self.REQUESTS).returned == ()
        waits_for = folder.waits_for(self.REQUESTS)
        assert f"corrected label maps in {folder.folder / 'done'}: scan_2.nii.gz, scan_1.nii.gz" in waits_for

    def test_takes_back_what_is_there(self, folder: Folder, proposals: dict[str, Path]) -> None:
        folder.send(work(self.REQUESTS, proposals))
        (folder.folder / "todo" / "scan_1.nii.gz").rename(folder.folder / "done" / "scan_1.nii.gz")
        (found,) = folder.collect(self.REQUESTS).returned
        assert found.case_id == "scan_1"
        assert found.path == folder.folder / "done" / "scan_1.nii.gz"
        assert found.structures == {"liver": 1.0, "spleen": 1.0}

    def test_takes_back_a_file_that_is_not_compressed(
        self, folder: Folder, proposals: dict[str, Path], affine: np.ndarray, make_label_map: Make
    ) -> None:
        folder.send(work(self.REQUESTS, proposals))
        write_volume(folder.folder / "done" / "scan_2.nii", make_label_map(0), affine)
        assert [found.path.name for found in folder.collect(self.REQUESTS).returned] == ["scan_2.nii"]

    def test_tells_of_files_that_nobody_asked_for(self, folder: Folder, proposals: dict[str, Path]) -> None:
        folder.send(work(self.REQUESTS, proposals))
        assert "not asked for" not in folder.waits_for(self.REQUESTS)
        (folder.folder / "todo" / "scan_2.nii.gz").rename(folder.folder / "done" / "scan_2.nii.gz")
        for name in ("scan_1.nii", "scan-2.nii.gz", "notes.txt", ".scan_2.nii.gz.part"):
            (folder.folder / "done" / name).touch()
        told = folder.waits_for(self.REQUESTS[:1])
        assert told.endswith("; not asked for, so not read: notes.txt, scan-2.nii.gz")

    def test_never_overwrites_work_in_progress(self, folder: Folder, proposals: dict[str, Path]) -> None:
        """People may correct the file in todo/ itself; starting the campaign again must not undo it."""
        folder.send(work(self.REQUESTS, proposals))
        (folder.folder / "todo" / "scan_1.nii.gz").write_bytes(b"an hour of work")
        folder.send(work(self.REQUESTS, proposals))
        assert (folder.folder / "todo" / "scan_1.nii.gz").read_bytes() == b"an hour of work"

    def test_a_case_that_is_back_twice_is_told_and_neither_is_read(
        self, folder: Folder, proposals: dict[str, Path]
    ) -> None:
        folder.send(work(self.REQUESTS, proposals))
        for name in ("scan_1.nii.gz", "scan_1.seg.nrrd", "scan_2.nii.gz"):
            (folder.folder / "done" / name).write_bytes(b"an hour of work")
        answer = folder.collect(self.REQUESTS)
        told = "case scan_1 is back more than once (scan_1.nii.gz and scan_1.seg.nrrd); leave one of them"
        assert answer.unsettled == {"scan_1": told}
        assert [returned.case_id for returned in answer.returned] == ["scan_2"]
        assert len(list((folder.folder / "done").iterdir())) == 3

    def test_a_file_that_is_still_being_written_is_left_alone(
        self, folder: Folder, proposals: dict[str, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """While one waits, one of the two files grows."""
        folder.send(work(self.REQUESTS, proposals))
        for name in ("scan_1.nii.gz", "scan_2.nii.gz"):
            (folder.folder / "done" / name).write_bytes(b"half")

        def meanwhile(seconds: float) -> None:
            assert seconds == answers.QUIET_S
            with (folder.folder / "done" / "scan_1.nii.gz").open("ab") as file:
                file.write(b" of it")

        monkeypatch.setattr(answers.time, "sleep", meanwhile)
        answer = folder.collect(self.REQUESTS)
        assert answer.unsettled == {"scan_1": "case scan_1 is still being written (scan_1.nii.gz)"}
        assert [returned.case_id for returned in answer.returned] == ["scan_2"]

    def test_old_files_are_taken_at_once(
        self, folder: Folder, proposals: dict[str, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder.send(work(self.REQUESTS, proposals))
        back = folder.folder / "done" / "scan_1.nii.gz"
        back.write_bytes(b"whole")
        os.utime(back, (1.0, 1.0))
        monkeypatch.setattr(answers.time, "sleep", None)
        assert len(folder.collect(self.REQUESTS).returned) == 1

    def test_a_work_list_that_is_there_stays(self, folder: Folder, proposals: dict[str, Path]) -> None:
        folder.send(work(self.REQUESTS, proposals))
        (folder.folder / "worklist.csv").write_text("case_id,who\nscan_1,Anna\n")
        folder.send(work(self.REQUESTS[:1], proposals))
        assert (folder.folder / "worklist.csv").read_text() == "case_id,who\nscan_1,Anna\n"

    def test_a_file_that_was_handed_back_is_not_handed_out_again(
        self, folder: Folder, proposals: dict[str, Path]
    ) -> None:
        folder.send(work(self.REQUESTS, proposals))
        (folder.folder / "todo" / "scan_1.nii.gz").rename(folder.folder / "done" / "scan_1.nii.gz")
        folder.send(work([request("scan_2")], proposals))
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
        images = {"scan_1": case.image}
        folder = Folder(
            folder=tmp_path / "round_000", images=images, structures=structures, asked=tuple(images)
        )
        moved = affine.copy()
        moved[0, 3] += shift_mm
        write_volume(tmp_path / "round_000" / "done" / "scan_1.nii.gz", np.ones(shape, np.uint8), moved)
        (found,) = folder.collect([request()]).returned
        with pytest.raises(AnnotationError, match=f"does not fit its scan.*{message}"):
            check_annotation(found.path, case.view(), read_grid(case.image), request(), structures)


class TestRemarks:
    """What people write into returns.csv."""

    REQUESTS = (request("scan_2"), request("scan_1"))

    @pytest.fixture
    def sent(self, folder: Folder, proposals: dict[str, Path]) -> Folder:
        folder.send(work(self.REQUESTS, proposals))
        for case_id in proposals:
            (folder.folder / "todo" / f"{case_id}.nii.gz").rename(
                folder.folder / "done" / f"{case_id}.nii.gz"
            )
        return folder

    def test_a_table_to_fill_in_goes_out_once(self, sent: Folder, proposals: dict[str, Path]) -> None:
        table = sent.folder / "returns.csv"
        assert table.read_text().splitlines() == [
            "case_id,annotator,minutes,absent,confirmed,skip,reason",
            "scan_2,,,,,,",
            "scan_1,,,,,,",
        ]
        table.write_text("case_id,minutes\nscan_2,4\n")
        sent.send(work(self.REQUESTS, proposals))
        assert table.read_text() == "case_id,minutes\nscan_2,4\n"

    def test_say_who_how_long_and_what_is_not_there(self, sent: Folder) -> None:
        (sent.folder / "returns.csv").write_text(
            "\ufeffcase_id;annotator;minutes;absent;confirmed\nscan_1;Dr. B;7,5;spleen | liver;yes\n",
            encoding="utf-8",
        )
        second, first = sent.collect(self.REQUESTS).returned
        assert (first.annotator, first.minutes, first.confirmed) == ("Dr. B", 7.5, True)
        assert first.absent == {"spleen", "liver"}
        assert (second.annotator, second.minutes, second.confirmed, second.absent) == ("", None, False, set())

    def test_a_case_can_be_skipped(self, sent: Folder) -> None:
        for path in (sent.folder / "done").iterdir():
            path.unlink()
        (sent.folder / "returns.csv").write_text("case_id,skip,reason\nscan_1,yes,motion\nscan_2,x,\n")
        answer = sent.collect(self.REQUESTS)
        assert answer.returned == ()
        assert answer.skipped == {"scan_1": "motion", "scan_2": "no reason given"}

    @pytest.mark.parametrize("absent", ["Spleen", '"spleen, LIVER"', "liver|spleen", "liver; spleen"])
    def test_structures_are_named_as_people_type_them(self, sent: Folder, absent: str) -> None:
        (sent.folder / "returns.csv").write_text(f"case_id,absent\nscan_1,{absent}\n")
        (found,) = (r for r in sent.collect(self.REQUESTS).returned if r.case_id == "scan_1")
        assert found.absent == ({"spleen"} if absent == "Spleen" else {"liver", "spleen"})

    def test_a_remark_may_have_commas_and_lines(self, sent: Folder) -> None:
        (sent.folder / "returns.csv").write_text(
            'case_id,reason,skip\nscan_1,"motion,\nand metal",yes\nscan_2,"not ""urgent""",yes\n'
        )
        for path in (sent.folder / "done").iterdir():
            path.unlink()
        assert sent.collect(self.REQUESTS).skipped == {
            "scan_1": "motion,\nand metal",
            "scan_2": 'not "urgent"',
        }

    def test_a_case_that_is_back_and_skipped_is_left_to_people(self, sent: Folder) -> None:
        (sent.folder / "returns.csv").write_text("case_id,skip\nscan_1,yes\n")
        answer = sent.collect(self.REQUESTS)
        told = "case scan_1 is back (scan_1.nii.gz), and skipped in returns.csv; take one of these back"
        assert answer.unsettled == {"scan_1": told}
        assert (answer.skipped, [r.case_id for r in answer.returned]) == ({}, ["scan_2"])

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("case_id,minutes,absent\nscan_1,12,5,\n", "line 2 has more fields than columns; write decimals"),
            (
                'case_id,reason\nscan_1,"unclear\nscan_2,motion\n',
                "is no CSV from line 2 on .*; is a quote missing",
            ),
            (
                "case_id,minutes\n1,4\n",
                "has a line for '1', which was not asked for in this round; the",
            ),
            ("case_id,absent\nscan_1,milt\n", "case scan_1: absent names 'milt', which is none of the"),
            ("case,skip\nscan_1,yes\n", "has the columns case, skip; expected case_id and any of annotator"),
            ("", "has the columns none"),
            ("case_id,minutes\nscan_1,soon\n", "line 2: minutes is 'soon'; expected a number, 0 or more"),
            ("case_id,minutes\nscan_1,-1\n", "line 2: minutes is '-1'"),
            ("case_id,skip\nscan_1,perhaps\n", "line 2: skip is 'perhaps'; expected yes, no or nothing"),
            ("case_id\nscan_1\nscan_1\n", "line 3: case scan_1 comes twice"),
        ],
    )
    def test_that_cannot_be_read_are_told_with_their_place(
        self, sent: Folder, text: str, message: str
    ) -> None:
        (sent.folder / "returns.csv").write_text(text)
        with pytest.raises(AnnotationError, match=message):
            sent.collect(self.REQUESTS)

    @pytest.mark.parametrize("line", ["scan_1,milt,", "scan_1,milt,yes"])
    def test_a_structure_that_does_not_exist_is_told_before_the_case_is_back(
        self, sent: Folder, line: str
    ) -> None:
        (sent.folder / "done" / "scan_1.nii.gz").unlink()
        (sent.folder / "returns.csv").write_text(f"case_id,absent,skip\n{line}\n")
        for requests in (self.REQUESTS, self.REQUESTS[:1]):  # the second: scan_1 is settled
            with pytest.raises(AnnotationError, match="case scan_1: absent names 'milt', which is none of"):
                sent.collect(requests)

    def test_what_is_refused_is_put_aside_and_never_over_another(self, sent: Folder) -> None:
        for number in (1, 2):
            (sent.folder / "done" / "scan_1.nii.gz").write_bytes(b"broken")
            found = next(r for r in sent.collect(self.REQUESTS).returned if r.case_id == "scan_1")
            place = sent.aside(found)
            sent.refuse(found, f"reason {number}")
            assert place == sent.folder / "quarantine" / f"scan_1_{number}.nii.gz"
            assert place.read_bytes() == b"broken"
            assert place.with_name(f"scan_1_{number}.txt").read_text() == (
                f"reason {number}\nThe file is quarantine/scan_1_{number}.nii.gz; once it is corrected, or "
                "returns.csv says that it is right, put it back as done/scan_1.nii.gz\n"
            )
        assert [r.case_id for r in sent.collect(self.REQUESTS).returned] == ["scan_2"]

    def test_the_reason_of_another_kind_of_file_stays(self, sent: Folder) -> None:
        (first,) = (r for r in sent.collect(self.REQUESTS).returned if r.case_id == "scan_1")
        sent.refuse(first, "wrong label")
        (sent.folder / "done" / "scan_1.nii").write_bytes(b"broken")
        (second,) = (r for r in sent.collect(self.REQUESTS).returned if r.case_id == "scan_1")
        assert sent.aside(second) == sent.folder / "quarantine" / "scan_1_2.nii"
        sent.refuse(second, "wrong shape")
        assert (sent.folder / "quarantine" / "scan_1_2.txt").read_text().startswith("wrong shape\n")
        assert (sent.folder / "quarantine" / "scan_1_1.txt").read_text().startswith("wrong label\n")


class TestMonaiLabel:
    REQUESTS = (request("scan_2"), request("scan_1"))

    @pytest.fixture
    def server(self, tmp_path: Path, proposals: dict[str, Path]) -> MonaiLabel:
        images = {}
        for case_id in proposals:
            images[case_id] = tmp_path / "scans" / f"{case_id}.nii.gz"
            images[case_id].parent.mkdir(exist_ok=True)
            images[case_id].write_bytes(case_id.encode())
        return MonaiLabel(
            folder=tmp_path / "round_000", images=images, structures=STRUCTURES, asked=tuple(images)
        )

    def test_is_the_datastore_of_a_server(self, server: MonaiLabel, proposals: dict[str, Path]) -> None:
        server.send(work(self.REQUESTS, proposals))
        found = {
            str(path.relative_to(server.studies)) for path in server.studies.rglob("*") if path.is_file()
        }
        assert found == {
            "scan_1.nii.gz",
            "scan_2.nii.gz",
            "labels/original/scan_1.nii.gz",
            "labels/original/scan_2.nii.gz",
            "datastore_v2.json",
        }
        index = json.loads((server.studies / "datastore_v2.json").read_text())["objects"]
        assert index["scan_2"]["image"] == {
            "ext": ".nii.gz",
            "info": {"strategy": {"sentinel-loop": {"rank": 0, "why": "liver: predicted DSC 0.40"}}},
        }
        assert (server.studies / "labels" / "final").is_dir()
        assert (server.studies / "scan_1.nii.gz").read_bytes() == b"scan_1"
        assert f"MONAI Label server on {server.studies}" in server.waits_for(self.REQUESTS)

    def test_takes_what_was_saved_as_final(self, server: MonaiLabel, proposals: dict[str, Path]) -> None:
        server.send(work(self.REQUESTS, proposals))
        assert server.collect(self.REQUESTS).returned == ()
        final = server.studies / "labels" / "final" / "scan_1.nii.gz"
        final.write_bytes(b"corrected")
        server.send(work(self.REQUESTS, proposals))
        (found,) = server.collect(self.REQUESTS).returned
        assert (found.case_id, found.path) == ("scan_1", final)
        server.refuse(found, "wrong grid")
        assert not final.exists()
        told = (server.folder / "quarantine" / "scan_1_1.txt").read_text()
        assert told.startswith("wrong grid\n")
        assert told.endswith("put it back as studies/labels/final/scan_1.nii.gz\n")

    def test_tells_of_labels_that_were_saved_where_they_are_not_read(
        self, server: MonaiLabel, proposals: dict[str, Path]
    ) -> None:
        server.send(work(self.REQUESTS, proposals))
        assert "not read" not in server.waits_for(self.REQUESTS)
        labels = server.studies / "labels"
        (labels / "v1").mkdir()
        for name in (
            "final/scan_1.nii.gz",
            "final/scan_2.nrrd",
            "final/scan_7.nii.gz",
            "v1/scan_1.nii.gz",
            "v1/scan_2.nii.gz",
            "scan_2.nii.gz",
            "v1/.scan_2.nii.gz.lock",
        ):
            (labels / name).touch()
        told = server.waits_for(self.REQUESTS[:1])  # scan_1 is settled
        assert told.endswith(
            "; not asked for, so not read: labels/final/scan_7.nii.gz; not saved as "
            "labels/final/<case>.nii.gz, so not read: labels/final/scan_2.nrrd, labels/scan_2.nii.gz, "
            "labels/v1/scan_2.nii.gz"
        )


def test_an_oracle_that_errs_draws_the_same_every_time(
    case: Case, structures: Structures, tmp_path: Path
) -> None:
    noise = AnnotatorNoise(boundary_mm=1.0, smoothness_mm=4.0)
    errors = Errors(noise=noise, structures=structures, folder=tmp_path / "drawn", seed=3)
    oracle = Oracle(by_id={"scan_1": case}, errors=errors)
    (first,) = oracle.collect([request()]).returned
    before = first.path.read_bytes()
    (second,) = oracle.collect([request()]).returned
    assert second.path.read_bytes() == before
    assert case.reference is not None
    drawn, true = read_label_map(first.path).array, read_label_map(case.reference).array
    assert 0.3 < dsc(drawn == 1, true == 1) < 1.0


class TestSlabs:
    REQUEST = Request(
        case_id="scan_1", structures=("liver",), slabs=(Slab(first=0, last=3), Slab(first=8, last=11))
    )

    def test_the_work_list_says_which_slices(self, folder: Folder, proposals: dict[str, Path]) -> None:
        folder.send(work([self.REQUEST], proposals))
        with (folder.folder / "worklist.csv").open() as file:
            (row,) = csv.DictReader(file)
        assert row["slices"] == "0-3; 8-11"

    def test_what_comes_back_answers_for_them(
        self, folder: Folder, proposals: dict[str, Path], case: Case
    ) -> None:
        folder.send(work([self.REQUEST], proposals))
        (folder.folder / "done" / "scan_1.nii.gz").write_bytes(proposals["scan_1"].read_bytes())
        for annotator in (folder, Oracle(by_id={"scan_1": case})):
            (found,) = annotator.collect([self.REQUEST]).returned
            assert found.slabs == self.REQUEST.slabs
