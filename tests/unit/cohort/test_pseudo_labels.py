import math

from cohort.filtering import Verdict
from cohort.pseudo_labels import Revocation, kept_structures, revocations


def verdict(case_id: str, structure: str, weight: float, score: float = 0.5, reason: str = "why") -> Verdict:
    return Verdict(case_id=case_id, structure=structure, weight=weight, score=score, reason=reason)


def test_kept_structures_of_each_case() -> None:
    verdicts = [verdict("a", "liver", 1.0), verdict("a", "spleen", 0.4), verdict("b", "liver", 0.0)]
    assert kept_structures(verdicts) == {"a": {"liver": 1.0, "spleen": 0.4}}


def test_revocations_say_why() -> None:
    before = [("a", "liver"), ("b", "liver"), ("c", "liver"), ("d", "spleen")]
    verdicts = [verdict("a", "liver", 1.0), verdict("b", "liver", 0.0, 0.2, "too low")]
    found = revocations(before, verdicts, {"c": "annotated"})
    assert found[0] == Revocation(case_id="b", structure="liver", score=0.2, reason="too low")
    assert [(each.case_id, each.reason) for each in found[1:]] == [
        ("c", "annotated"),
        ("d", "no longer in the pool"),
    ]
    assert all(math.isnan(each.score) for each in found[1:])
