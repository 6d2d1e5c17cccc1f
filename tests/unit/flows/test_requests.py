import json
from dataclasses import replace
from pathlib import Path

from cohort.annotation import Annotation, Request
from cohort.budget import Cost
from cohort.slabs import Slab
from flows.requests import annotated_slabs, as_listed, askable, only_requested, requested, still_open

NAMES = ("liver", "spleen")


def annotation(case_id: str, *structures: str) -> Annotation:
    return Annotation(
        case_id=case_id,
        structures=dict.fromkeys(structures, 1.0),
        path=Path("a.nii.gz"),
        sha256="x",
        annotator="oracle",
        cost=Cost.zero(),
    )


class TestAskable:
    def test_a_case_that_was_annotated_is_done(self) -> None:
        found = askable(["a", "b"], NAMES, [annotation("a", "liver")], "case", None)
        assert found == {"b": NAMES}

    def test_the_other_structures_of_a_case_are_left(self) -> None:
        known = [annotation("a", "liver"), annotation("b", "liver"), annotation("b", "spleen")]
        assert askable(["a", "b", "c"], NAMES, known, "structure", None) == {"a": ("spleen",), "c": NAMES}

    def test_an_oracle_is_not_asked_for_what_it_does_not_have(self) -> None:
        answered = {"a": frozenset({"liver"}), "b": frozenset[str]()}
        assert askable(["a", "b"], NAMES, [], "structure", answered) == {"a": ("liver",)}
        assert askable(["a", "b"], NAMES, [], "case", answered) == {"a": NAMES, "b": NAMES}


class TestRequested:
    def test_as_the_ledger_has_them(self) -> None:
        payload = {"selected": ["b", "a"], "requests": [["b", ["spleen"]], ["a", ["liver", "spleen"]]]}
        assert requested(payload, NAMES) == (
            Request(case_id="b", structures=("spleen",)),
            Request(case_id="a", structures=NAMES),
        )

    def test_a_ledger_without_them_asked_for_everything(self) -> None:
        assert requested({"selected": ["b"]}, NAMES) == (Request(case_id="b", structures=NAMES),)


class TestStillOpen:
    REQUESTS = (Request(case_id="a", structures=NAMES), Request(case_id="b", structures=("liver",)))

    def test_any_annotation_answers_for_a_whole_case(self) -> None:
        known = [annotation("a", "liver")]
        assert still_open(self.REQUESTS, known, "case") == self.REQUESTS[1:]

    def test_earlier_annotations_of_other_structures_do_not_answer(self) -> None:
        known = [annotation("a", "liver"), annotation("b", "spleen")]
        assert still_open(self.REQUESTS, known, "structure") == self.REQUESTS
        known += [annotation("a", "spleen"), annotation("b", "liver", "spleen")]
        assert still_open(self.REQUESTS, known, "structure") == ()


def test_only_what_was_asked_for_judges_the_estimator() -> None:
    revealed = {("a", "liver"): 0.5, ("a", "spleen"): 0.9}
    requests = (Request(case_id="a", structures=("liver",)),)
    assert only_requested(revealed, requests) == {("a", "liver"): 0.5}


class TestSlabs:
    FIRST, SECOND = Slab(first=0, last=3), Slab(first=4, last=7)

    def partly(self, case_id: str, *slabs: Slab) -> Annotation:
        return replace(annotation(case_id, *NAMES), slabs=slabs)

    def test_a_case_is_asked_for_until_all_of_it_is_annotated(self) -> None:
        known = [self.partly("a", self.FIRST), self.partly("b", self.FIRST), self.partly("b")]
        assert askable(["a", "b", "c"], NAMES, known, "slices", None) == {"a": NAMES, "c": NAMES}
        answered = {"a": frozenset({"liver"}), "b": frozenset(NAMES), "c": frozenset[str]()}
        assert askable(["a", "b", "c"], NAMES, known, "slices", answered) == {"a": ("liver",)}

    def test_the_last_annotation_of_a_case_has_all_its_slabs(self) -> None:
        known = [self.partly("a", self.FIRST), self.partly("a", self.FIRST, self.SECOND), self.partly("b")]
        assert annotated_slabs(known) == {"a": (self.FIRST, self.SECOND), "b": ()}

    def test_requests_survive_the_ledger(self) -> None:
        requests = (
            Request(case_id="a", structures=NAMES, slabs=(self.FIRST, self.SECOND)),
            Request(case_id="b", structures=("liver",)),
        )
        listed = json.loads(json.dumps(as_listed(requests)))
        assert listed == [["a", list(NAMES), [[0, 3], [4, 7]]], ["b", ["liver"]]]
        assert requested({"requests": listed}, NAMES) == requests

    def test_only_the_slabs_that_were_asked_for_answer(self) -> None:
        asked = (Request(case_id="a", structures=NAMES, slabs=(self.FIRST, self.SECOND)),)
        assert still_open(asked, [], "slices") == asked
        assert still_open(asked, [self.partly("a", self.FIRST)], "slices") == asked
        assert still_open(asked, [self.partly("a", self.FIRST, self.SECOND)], "slices") == ()
        assert still_open(asked, [self.partly("a")], "slices") == (), "the whole case is annotated"
