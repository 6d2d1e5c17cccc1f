from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cohort.annotation import Request, merged
from cohort.budget import CostModel
from cohort.case import Dataset, Structure
from cohort.slabs import Slab
from cohort.volume import read_label_map, write_volume
from flows import campaign as campaigns
from flows.annotators import segmentations
from flows.annotators.base import Answer, Returned, WorkItem
from flows.annotators.segmentations import write_segmentation
from flows.campaign import Campaign
from flows.config import load_config
from flows.intake import Intake
from flows.requests import Unit

Make = Callable[[int], np.ndarray]
MakeIntake = Callable[[Unit], Intake]


@dataclass
class Person:
    """An annotator whose answers a test sets."""

    folder: Path
    answer: Answer = field(default_factory=Answer)
    name: str = "person"

    def send(self, items: Sequence[WorkItem]) -> None:
        """Nothing."""

    def collect(self, requests: Sequence[Request]) -> Answer:
        wanted = {request.case_id for request in requests}
        return Answer(
            returned=tuple(r for r in self.answer.returned if r.case_id in wanted),
            skipped={k: v for k, v in self.answer.skipped.items() if k in wanted},
        )

    def files(self, case_id: str) -> tuple[Path, ...]:
        return tuple(sorted(self.folder.glob(f"{case_id}.nii*")))

    def aside(self, returned: Returned) -> Path | None:
        return self.folder / f"{returned.case_id}.refused"

    def refuse(self, returned: Returned, reason: str) -> None:
        returned.path.replace(self.folder / f"{returned.case_id}.refused")

    def waits_for(self, requests: Sequence[Request]) -> str:
        return ", ".join(request.case_id for request in requests)


@pytest.fixture
def dataset(make_dataset: Callable[..., Dataset], tmp_path: Path, affine: np.ndarray) -> Dataset:
    found = make_dataset({"a": "a", "b": "b", "c": "c"})
    cases = []
    for case in found.cases:
        image = tmp_path / "images" / f"{case.case_id}.nii.gz"
        write_volume(image, np.zeros((8, 12, 16), np.float32), affine)
        cases.append(replace(case, image=image))
    return replace(found, cases=tuple(cases))


@pytest.fixture
def intake(make_campaign_yaml: Callable[..., Path], dataset: Dataset) -> MakeIntake:
    campaign: Campaign = campaigns.create_or_open(load_config(make_campaign_yaml("scans")))

    def build(unit: Unit = "case") -> Intake:
        return Intake(campaign=campaign, dataset=dataset, costs=CostModel(), unit=unit)

    return build


@pytest.fixture
def person(tmp_path: Path, intake: MakeIntake) -> Person:
    folder = intake("case").campaign.folder / "work"
    folder.mkdir(parents=True)
    return Person(folder=folder)


def request(case_id: str, *structures: str) -> Request:
    return Request(case_id=case_id, structures=structures or ("liver", "spleen"))


def returned(path: Path, *structures: str, **more: object) -> Returned:
    names = structures or ("liver", "spleen")
    case_id = path.name.removesuffix(".nii.gz")
    return Returned(case_id=case_id, path=path, structures=dict.fromkeys(names, 1.0), **more)  # type: ignore[arg-type]


def payloads(intake: Intake, kind: str) -> list[Mapping[str, object]]:
    return [entry.payload for entry in intake.campaign.events(kind)]


class TestLettingIn:
    def test_a_part_of_the_work(
        self, intake: MakeIntake, person: Person, affine: np.ndarray, make_label_map: Make
    ) -> None:
        gate, asked = intake("case"), [request("a"), request("b"), request("c")]
        write_volume(person.folder / "a.nii.gz", make_label_map(3), affine)
        person.answer = Answer(
            returned=(returned(person.folder / "a.nii.gz", minutes=7.0, annotator="Dr. B"),),
            skipped={"b": "motion"},
        )
        taken = gate.take_in(0, asked, person)
        assert (taken.let_in, taken.refused, taken.skipped) == (("a",), {}, {"b": "motion"})
        assert [each.case_id for each in taken.open] == ["c"]
        (entry,) = payloads(gate, "annotation")
        assert (entry["annotator"], entry["minutes"], entry["turned"]) == ("Dr. B", 7.0, False)
        (skip,) = payloads(gate, "skip")
        assert (skip["round"], skip["case_id"], skip["reason"]) == (0, "b", "motion")
        again = gate.take_in(0, asked, person)
        assert (again.let_in, dict(again.skipped)) == ((), {})
        assert [each.case_id for each in gate.open(1, [request("b")])] == ["b"], "a later round may ask again"

    def test_a_skip_that_is_taken_back_is_told_and_its_file_is_not_read(
        self, intake: MakeIntake, person: Person, affine: np.ndarray, make_label_map: Make
    ) -> None:
        gate, asked = intake("case"), [request("a"), request("b")]
        person.answer = Answer(skipped={"a": "motion"})
        assert gate.take_in(0, asked, person).unsettled == {}
        assert gate.take_in(0, asked, person).unsettled == {}
        write_volume(person.folder / "a.nii.gz", make_label_map(3), affine)
        person.answer = Answer(returned=(returned(person.folder / "a.nii.gz"),))
        for _ in range(2):
            taken = gate.take_in(0, asked, person)
            told = "case a was skipped before in this round, so a.nii.gz stays unread"
            assert (taken.unsettled, taken.let_in) == ({"a": told}, ())
        assert gate.take_in(1, asked, person).let_in == ("a",), "a later round may ask again"

    def test_a_file_that_is_changed_after_it_was_let_in_is_told_and_not_read(
        self, intake: MakeIntake, person: Person, affine: np.ndarray, make_label_map: Make
    ) -> None:
        gate, asked = intake("case"), [request("a"), request("b")]
        write_volume(person.folder / "a.nii.gz", make_label_map(3), affine)
        person.answer = Answer(returned=(returned(person.folder / "a.nii.gz"),))
        assert gate.take_in(0, asked, person).let_in == ("a",)
        assert gate.take_in(0, asked, person).unsettled == {}, "the very file that was let in"
        write_volume(person.folder / "a.nii.gz", make_label_map(5), affine)
        (person.folder / "a.nii").write_bytes(b"another")
        told = "case a was let in before in this round, so a.nii and a.nii.gz stays unread"
        assert gate.take_in(0, asked, person).unsettled == {"a": told}
        assert len(gate.campaign.annotations()) == 1

    def test_what_is_refused_stays_open_and_is_remembered(
        self, intake: MakeIntake, person: Person, affine: np.ndarray
    ) -> None:
        gate = intake("case")
        write_volume(person.folder / "a.nii.gz", np.full((8, 12, 16), 9, np.uint8), affine)
        person.answer = Answer(returned=(returned(person.folder / "a.nii.gz"),))
        taken = gate.take_in(0, [request("a")], person)
        assert "case a cannot be used" in taken.refused["a"]
        assert taken.refused["a"].endswith(
            f"(it lies in {person.folder / 'a.refused'}; once it is corrected, or returns.csv says that it "
            f"is right, put it back as {person.folder / 'a.nii.gz'})"
        )
        assert [each.case_id for each in taken.open] == ["a"]
        (entry,) = payloads(gate, "refused")
        assert (entry["case_id"], entry["path"]) == ("a", "work/a.refused")
        assert entry["put_back"] == "work/a.nii.gz"
        assert gate.campaign.annotations() == []

    def test_a_flipped_file_is_turned_back(
        self, intake: MakeIntake, person: Person, affine: np.ndarray, make_label_map: Make
    ) -> None:
        gate, labels = intake("case"), make_label_map(3)
        image = nib.Nifti1Image(labels.T, affine)
        turned = image.as_reoriented(np.array([[1, 1], [0, -1], [2, 1]]))
        nib.save(turned, person.folder / "a.nii.gz")
        person.answer = Answer(returned=(returned(person.folder / "a.nii.gz"),))
        assert gate.take_in(0, [request("a")], person).let_in == ("a",)
        (entry,) = payloads(gate, "annotation")
        assert entry["turned"] is True
        (stored,) = gate.campaign.annotations()
        np.testing.assert_array_equal(read_label_map(stored.path).array, labels)
        np.testing.assert_allclose(read_label_map(stored.path).affine, affine, atol=1e-5)

    def test_a_segmentation_of_slicer_becomes_a_label_map(
        self, intake: MakeIntake, person: Person, affine: np.ndarray, make_label_map: Make
    ) -> None:
        pytest.importorskip("slicerio")
        gate, labels = intake("case"), make_label_map(3)
        write_volume(person.folder / "a.nii.gz", labels, affine)
        saved = person.folder / "a.seg.nrrd"
        own, others = (
            gate.dataset.structures,
            (Structure(name="liver", label=1), Structure(name="x", label=2)),
        )
        for structures, let_in in ((others, ()), (own, ("a",))):
            write_segmentation(person.folder / "a.nii.gz", saved, structures)
            answer = Returned(case_id="a", path=saved, structures={"liver": 1.0, "spleen": 1.0})
            person.answer = Answer(returned=(answer,))
            taken = gate.take_in(0, [request("a")], person)
            assert taken.let_in == let_in
            assert ("has a segment 'x'" in taken.refused.get("a", "")) is not bool(let_in)
        (stored,) = gate.campaign.annotations()
        assert stored.path.name == "a.nii.gz"
        np.testing.assert_array_equal(read_label_map(stored.path).array, labels)

    def test_a_structure_that_is_missing_has_to_be_declared(
        self, intake: MakeIntake, person: Person, affine: np.ndarray, make_label_map: Make
    ) -> None:
        gate, labels = intake("case"), make_label_map(3)
        labels[labels == 2] = 0

        def hand_in(absent: frozenset[str]) -> Mapping[str, str]:
            write_volume(person.folder / "a.nii.gz", labels, affine)
            person.answer = Answer(returned=(returned(person.folder / "a.nii.gz", absent=absent),))
            return gate.take_in(0, [request("a")], person).refused

        assert (
            "has no voxel of spleen, which was asked for; annotate it, or declare it"
            in hand_in(frozenset())["a"]
        )
        assert "declares liver absent, but has voxels of it" in hand_in(frozenset({"liver", "spleen"}))["a"]
        assert hand_in(frozenset({"spleen"})) == {}
        assert payloads(gate, "annotation")[0]["absent"] == ["spleen"]

    def test_an_unchanged_proposal_has_to_be_confirmed(
        self, intake: MakeIntake, person: Person, affine: np.ndarray, make_label_map: Make
    ) -> None:
        gate = intake("case")
        proposal = person.folder / "proposal.nii.gz"
        write_volume(proposal, make_label_map(3), affine)

        def hand_in(confirmed: bool) -> Mapping[str, str]:
            write_volume(person.folder / "a.nii.gz", make_label_map(3), affine)
            person.answer = Answer(returned=(returned(person.folder / "a.nii.gz", confirmed=confirmed),))
            return gate.take_in(0, [request("a")], person, {"a": proposal}).refused

        assert "is the proposal as it was sent; correct it, or say" in hand_in(False)["a"]
        assert hand_in(True) == {}

    def test_a_file_of_another_case_or_round_has_to_be_confirmed(
        self, intake: MakeIntake, person: Person, affine: np.ndarray, make_label_map: Make
    ) -> None:
        gate = intake("structure")

        def hand_in(number: int, case_id: str, structure: str, confirmed: bool) -> Mapping[str, str]:
            path = person.folder / f"{case_id}.nii.gz"
            write_volume(path, make_label_map(3), affine)
            person.answer = Answer(returned=(returned(path, structure, confirmed=confirmed),))
            return gate.take_in(number, [request(case_id, structure)], person).refused

        assert hand_in(0, "a", "spleen", False) == {}
        told = "is the very file that was let in for case a in round 0; hand in the one of this round"
        assert told in hand_in(1, "a", "liver", False)["a"]
        assert told in hand_in(1, "b", "liver", False)["b"]
        assert hand_in(1, "a", "liver", True) == {}

    def test_what_cannot_be_put_aside_does_not_hold_up_the_others(
        self,
        intake: MakeIntake,
        person: Person,
        affine: np.ndarray,
        make_label_map: Make,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        gate = intake("case")
        write_volume(person.folder / "a.nii.gz", np.full((8, 12, 16), 9, np.uint8), affine)
        write_volume(person.folder / "b.nii.gz", make_label_map(3), affine)
        person.answer = Answer(returned=tuple(returned(person.folder / f"{name}.nii.gz") for name in "ab"))

        def full(self: Person, returned: Returned, reason: str) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Person, "refuse", full)
        for _ in range(2):
            taken = gate.take_in(0, [request("a"), request("b")], person)
            assert "cannot be used" in taken.refused["a"]
        assert [each.case_id for each in gate.campaign.annotations()] == ["b"]
        planned, entry = payloads(gate, "refused")
        assert planned["path"] == "work/a.refused"
        assert str(entry["reason"]).endswith("it could not be put aside (No space left on device)")
        assert entry["path"] == "work/a.nii.gz"
        assert (person.folder / "a.nii.gz").is_file()

    def test_a_kill_before_it_is_put_aside_is_made_good(
        self, intake: MakeIntake, person: Person, affine: np.ndarray, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gate = intake("case")
        write_volume(person.folder / "a.nii.gz", np.full((8, 12, 16), 9, np.uint8), affine)
        person.answer = Answer(returned=(returned(person.folder / "a.nii.gz"),))

        def killed(self: Person, returned: Returned, reason: str) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Person, "refuse", killed)
            with pytest.raises(KeyboardInterrupt):
                gate.take_in(0, [request("a")], person)
        assert "cannot be used" in gate.take_in(0, [request("a")], person).refused["a"]
        assert len(payloads(gate, "refused")) == 1
        assert (person.folder / "a.refused").is_file()

    def test_a_missing_extra_is_told_and_nothing_is_refused(
        self,
        intake: MakeIntake,
        person: Person,
        affine: np.ndarray,
        make_label_map: Make,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(segmentations.importlib.util, "find_spec", lambda name: None)
        gate, saved = intake("case"), person.folder / "a.seg.nrrd"
        saved.write_bytes(b"segments")
        write_volume(person.folder / "b.nii.gz", make_label_map(3), affine)
        answer = Returned(case_id="a", path=saved, structures={"liver": 1.0, "spleen": 1.0})
        person.answer = Answer(returned=(answer, returned(person.folder / "b.nii.gz")))
        taken = gate.take_in(0, [request("a"), request("b")], person)
        assert (taken.let_in, taken.refused) == (("b",), {})
        assert "pip install" in taken.unsettled["a"]
        assert saved.is_file()


class TestStructures:
    def test_annotations_of_a_case_grow_together(
        self, intake: MakeIntake, person: Person, affine: np.ndarray, make_label_map: Make
    ) -> None:
        gate, first, second = intake("structure"), make_label_map(3), make_label_map(5)
        for number, (labels, name) in enumerate(((first, "liver"), (second, "spleen"))):
            write_volume(person.folder / "a.nii.gz", labels, affine)
            person.answer = Answer(returned=(returned(person.folder / "a.nii.gz", name),))
            assert gate.take_in(number, [request("a", name)], person).let_in == ("a",)
            assert gate.open(number, [request("a", name)]) == ()
        earlier, later = gate.campaign.annotations()
        assert (set(earlier.structures), set(later.structures)) == ({"liver"}, {"liver", "spleen"})
        assert earlier.path != later.path
        assert earlier.path.is_file(), "what was annotated first is kept"
        found = read_label_map(later.path).array
        np.testing.assert_array_equal(found == 2, second == 2)
        np.testing.assert_array_equal(found == 1, (first == 1) & (second != 2))
        assert later.cost.structures == 1.0, "only what is new costs"

    def test_annotated_again_replaces(self) -> None:
        earlier, new = np.array([1, 1, 2, 2, 0], np.uint8), np.array([0, 1, 1, 2, 1], np.uint8)
        assert merged(earlier, new, [1]).tolist() == [0, 1, 1, 2, 1]
        assert merged(earlier, new, [2]).tolist() == [1, 1, 0, 2, 0]
        assert merged(earlier, new, [1, 2]).tolist() == new.tolist()


class TestSlabs:
    """The liver of label map 3 lies in slices 1 to 3, its spleen in 2 to 4."""

    FIRST, SECOND, THIRD = (Slab(first=n, last=n + 1) for n in (2, 4, 0))

    def hand_in(
        self,
        gate: Intake,
        person: Person,
        labels: np.ndarray,
        affine: np.ndarray,
        *slabs: Slab,
        **more: object,
    ) -> Mapping[str, str]:
        write_volume(person.folder / "a.nii.gz", labels, affine)
        person.answer = Answer(returned=(returned(person.folder / "a.nii.gz", slabs=slabs, **more),))
        asked = replace(request("a"), slabs=slabs)
        assert gate.open(0, [asked]) == (asked,)
        found = gate.take_in(0, [asked], person).refused
        assert gate.open(0, [asked]) == ((asked,) if found else ())
        return found

    def test_slabs_of_a_case_add_up(
        self, intake: MakeIntake, person: Person, affine: np.ndarray, make_label_map: Make
    ) -> None:
        gate, first, second = intake("slices"), make_label_map(3), make_label_map(5)
        assert self.hand_in(gate, person, first, affine, self.FIRST) == {}
        assert self.hand_in(gate, person, second, affine, self.SECOND) == {}
        earlier, later = gate.campaign.annotations()
        assert (earlier.slabs, later.slabs) == ((self.FIRST,), (self.FIRST, self.SECOND))
        assert earlier.path.is_file(), "what was annotated first is kept"
        expected = np.zeros_like(first)
        expected[2:4] = first[2:4]
        np.testing.assert_array_equal(read_label_map(earlier.path).array, expected)
        expected[4:6] = second[4:6]
        np.testing.assert_array_equal(read_label_map(later.path).array, expected)
        entry = payloads(gate, "annotation")[1]
        assert (entry["slabs"], entry["answered_slabs"]) == ([[2, 3], [4, 5]], [[4, 5]])

    def test_only_what_is_new_costs(
        self, intake: MakeIntake, person: Person, affine: np.ndarray, make_label_map: Make
    ) -> None:
        gate, labels = intake("slices"), make_label_map(3)
        self.hand_in(gate, person, labels, affine, self.FIRST)
        self.hand_in(gate, person, labels, affine, self.SECOND, self.THIRD)
        first, second = (a.cost for a in gate.campaign.annotations())
        assert (first.cases, first.structures, first.slices) == (1.0, 2.0, 4.0)
        assert (second.cases, second.structures, second.slices) == (1.0, 4.0, 1.0 + 1.0)
        assert first.minutes == pytest.approx(2.0 + 2 * 1.0 + 4 * 0.2)
        assert first.foreground_voxels + second.foreground_voxels == np.count_nonzero(labels)

    def test_the_whole_case_is_known_once_its_last_slab_is(
        self, intake: MakeIntake, person: Person, affine: np.ndarray, make_label_map: Make
    ) -> None:
        gate, labels = intake("slices"), make_label_map(3)
        self.hand_in(gate, person, labels, affine, Slab(first=0, last=5))
        self.hand_in(gate, person, labels, affine, Slab(first=6, last=7))
        last = gate.campaign.annotations()[-1]
        assert last.slabs == ()
        np.testing.assert_array_equal(read_label_map(last.path).array, labels)

    def test_the_gate_looks_at_the_slabs_alone(
        self, intake: MakeIntake, person: Person, affine: np.ndarray, make_label_map: Make
    ) -> None:
        gate, labels = intake("slices"), make_label_map(3)
        more = {"absent": frozenset[str](), "confirmed": False}
        assert self.hand_in(gate, person, labels, affine, Slab(first=6, last=7), **more) == {}
        assert payloads(gate, "annotation")[0]["absent"] == ["liver", "spleen"]

    def test_a_structure_that_was_not_annotated_in_all_slabs_does_not_count(
        self, intake: MakeIntake, person: Person, affine: np.ndarray, make_label_map: Make
    ) -> None:
        gate, labels = intake("slices"), make_label_map(3)
        self.hand_in(gate, person, labels, affine, self.FIRST)
        write_volume(person.folder / "a.nii.gz", labels, affine)
        person.answer = Answer(
            returned=(returned(person.folder / "a.nii.gz", "liver", slabs=(self.SECOND,)),)
        )
        gate.take_in(1, [replace(request("a"), slabs=(self.SECOND,))], person)
        assert set(gate.campaign.annotations()[-1].structures) == {"liver"}
