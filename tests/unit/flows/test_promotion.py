import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from cohort.case import Case, Dataset
from cohort.errors import CampaignError, SelectionError
from cohort.records import EMPTY_MASK, Prediction, QualityScore
from flows import campaign as campaigns
from flows.campaign import Campaign
from flows.config import load_config
from flows.data import Cohort
from flows.filter_config import FilterModel, PseudoLabelsModel
from flows.promotion import TAKEN, Promoter, pseudo_cases, pseudo_labels_version, unscored
from flows.stages import file_sha256

POOL = ("c", "d", "e", "f")


@pytest.fixture
def campaign(make_campaign_yaml: Callable[..., Path]) -> Campaign:
    return campaigns.create_or_open(load_config(make_campaign_yaml("scans")))


@pytest.fixture
def cohort(make_dataset: Callable[..., Dataset]) -> Cohort:
    dataset = make_dataset({name: name for name in ("a", "b", *POOL)})
    return Cohort(dataset=dataset, held_out=("a",), start=("b",), pool=POOL)


@pytest.fixture
def promoter(campaign: Campaign, cohort: Cohort) -> Promoter:
    settings = PseudoLabelsModel(filter=FilterModel(kind="threshold", minimum=0.7))
    return Promoter(campaign=campaign, cohort=cohort, settings=settings, seed=0)


@pytest.fixture
def cases(cohort: Cohort) -> list[Case]:
    return [cohort.dataset.by_id[case_id] for case_id in POOL]


@pytest.fixture
def predictions(campaign: Campaign) -> Callable[[int], list[Prediction]]:
    """The masks of a round, as files in its folder."""

    def make(number: int) -> list[Prediction]:
        found = []
        for case_id in POOL:
            path = campaign.round_folder(number) / "segment-pool" / f"{case_id}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"{number} {case_id}".encode())
            found.append(
                Prediction(
                    case_id=case_id, mask=path, checkpoint_sha256="0", voxels={"liver": 5, "spleen": 3}
                )
            )
        return found

    return make


def scores(**values: tuple[float, float]) -> list[QualityScore]:
    """Predicted DSC of liver and spleen of each case; NaN is an empty mask."""
    return [
        QualityScore(
            case_id=case_id,
            structure=structure,
            raw=value,
            predicted_dsc=value,
            estimator="sentinel",
            reason=EMPTY_MASK if math.isnan(value) else "",
        )
        for case_id, both in values.items()
        for structure, value in zip(("liver", "spleen"), both, strict=True)
    ]


FIRST = scores(c=(0.9, 0.2), d=(0.8, 0.75), e=(0.1, math.nan), f=(0.71, 0.3))
SECOND = scores(c=(0.6, 0.9), d=(0.9, 0.8), e=(0.75, math.nan), f=(0.8, 0.3))


def promoted(campaign: Campaign, number: int) -> set[tuple[str, str]]:
    entry = campaign.event("promotion", number)
    assert entry is not None
    return {(mask["case_id"], mask["structure"]) for mask in entry.payload["masks"]}


def test_good_masks_are_promoted_for_the_next_round(
    promoter: Promoter, campaign: Campaign, cases: list[Case], predictions: Callable
) -> None:
    promoter.promote(0, cases, predictions(0), FIRST)
    assert promoted(campaign, 0) == {("c", "liver"), ("d", "liver"), ("d", "spleen"), ("f", "liver")}
    assert promoter.in_force(0) == ()
    labels = promoter.in_force(1)
    assert [(label.case_id, dict(label.structures)) for label in labels] == [
        ("c", {"liver": 1.0}),
        ("d", {"liver": 1.0, "spleen": 1.0}),
        ("f", {"liver": 1.0}),
    ]
    assert labels[0].path.read_bytes() == b"0 c"
    assert promoter.in_force(2) == ()


def test_the_ledger_tells_which_sentinel_judged(
    promoter: Promoter,
    cases: list[Case],
    predictions: Callable[[int], list[Prediction]],
    tmp_path: Path,
) -> None:
    weights = tmp_path / "sentinel.safetensors"
    weights.write_bytes(b"weights")
    named = FilterModel(kind="threshold", minimum=0.7, sentinel=weights)
    for judging, sha256 in ((promoter.settings.filter, ""), (named, file_sha256(weights))):
        number = len(promoter.campaign.events("promotion"))
        other = replace(promoter, settings=PseudoLabelsModel(filter=judging))
        other.promote(number, cases, predictions(number), scores(c=(0.9, 0.8), d=(0.2, 0.9)))
        made = promoter.campaign.event("promotion", number)
        assert made is not None
        assert made.payload["sentinel_sha256"] == sha256


def test_what_the_estimator_changes_its_mind_about_is_revoked_with_a_reason(
    promoter: Promoter, campaign: Campaign, cases: list[Case], predictions: Callable
) -> None:
    promoter.promote(0, cases, predictions(0), FIRST)
    promoter.promote(1, cases, predictions(1), SECOND, taken=frozenset({"f"}))
    entry = campaign.event("revocation", 1)
    assert entry is not None
    assert entry.payload["promoted_in"] == 0
    rule = "not in the masks with a predicted DSC of 0.7 or more"
    assert entry.payload["masks"] == [
        {"case_id": "c", "structure": "liver", "score": 0.6, "reason": rule},
        {"case_id": "f", "structure": "liver", "score": None, "reason": TAKEN},
    ]
    assert promoted(campaign, 1) == {("c", "spleen"), ("d", "liver"), ("d", "spleen"), ("e", "liver")}
    assert {label.path.read_bytes()[:1] for label in promoter.in_force(2)} == {b"1"}


def test_a_second_start_writes_nothing_twice(
    promoter: Promoter, campaign: Campaign, cases: list[Case], predictions: Callable
) -> None:
    for _ in range(2):
        promoter.promote(0, cases, predictions(0), FIRST)
        promoter.promote(1, cases, predictions(1), SECOND)
    assert [entry.event for entry in campaign.ledger.entries()] == ["promotion", "revocation", "promotion"]


def test_killed_between_revocation_and_promotion_it_goes_on(
    promoter: Promoter,
    campaign: Campaign,
    cases: list[Case],
    predictions: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    promoter.promote(0, cases, predictions(0), FIRST)
    append = Campaign.append

    def stop(self: Campaign, kind: str, **payload: object) -> object:
        if kind == "promotion":
            raise KeyboardInterrupt
        return append(self, kind, **payload)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Campaign, "append", stop)
        promoter.promote(1, cases, predictions(1), SECOND)
    promoter.promote(1, cases, predictions(1), SECOND)
    assert [entry.event for entry in campaign.ledger.entries()] == ["promotion", "revocation", "promotion"]


def test_a_file_that_changed_since_is_refused(
    promoter: Promoter, cases: list[Case], predictions: Callable
) -> None:
    made: Sequence[Prediction] = predictions(0)
    promoter.promote(0, cases, made, FIRST)
    made[1].mask.write_bytes(b"another")
    labels = promoter.in_force(1)  # a finished campaign may have lost the files
    with pytest.raises(CampaignError, match=r"d.nii.gz is not the file that was promoted"):
        pseudo_cases(labels, promoter.cohort.dataset.by_id)


@pytest.mark.parametrize("kind", ["threshold", "unfiltered"])
def test_an_empty_mask_of_a_structure_that_was_not_trained_is_never_absent(
    promoter: Promoter, campaign: Campaign, cases: list[Case], predictions: Callable, kind: str
) -> None:
    settings = PseudoLabelsModel(filter=FilterModel(kind=kind, minimum=0.7, keep_absent=True))
    keeps_absent = replace(promoter, settings=settings)
    empty = scores(c=(0.9, math.nan), d=(math.nan, math.nan))
    keeps_absent.promote(0, cases, predictions(0), empty, untrained=["spleen"])
    assert promoted(campaign, 0) == {("c", "liver"), ("d", "liver")}
    keeps_absent.promote(1, cases, predictions(1), empty)
    assert promoted(campaign, 1) == {(case_id, name) for case_id in "cd" for name in ("liver", "spleen")}


def test_held_out_and_annotated_cases_never_have_pseudo_labels(
    promoter: Promoter, campaign: Campaign, cohort: Cohort, predictions: Callable
) -> None:
    held_out = [cohort.dataset.by_id["a"]]
    with pytest.raises(SelectionError, match="Case 'a' cannot be pseudo-labelled: it is held out"):
        promoter.promote(0, held_out, predictions(0), scores(a=(0.9, 0.9)))
    with pytest.raises(SelectionError, match="Case 'b' cannot be pseudo-labelled: it is labelled"):
        promoter.promote(0, [cohort.dataset.by_id["b"]], predictions(0), scores(b=(0.9, 0.9)))
    assert campaign.event("promotion") is None


def test_a_case_that_people_annotated_in_part_is_left_to_them(
    promoter: Promoter, campaign: Campaign, cohort: Cohort, predictions: Callable
) -> None:
    campaign.append("annotation", round=None, case_id="b")
    campaign.append("annotation", round=0, case_id="b")  # again, for other structures
    campaign.append("annotation", round=0, case_id="c")
    open_cases = [cohort.dataset.by_id[case_id] for case_id in ("b", "c", "d")]
    promoter.promote(1, open_cases, predictions(1), scores(b=(0.9, 0.9), c=(0.9, 0.9), d=(0.9, 0.9)))
    assert promoted(campaign, 1) == {("d", "liver"), ("d", "spleen")}


def test_a_filter_that_keeps_nothing(
    promoter: Promoter,
    campaign: Campaign,
    cases: list[Case],
    predictions: Callable,
    caplog: pytest.LogCaptureFixture,
) -> None:
    bad = scores(c=(0.1, 0.2), d=(0.1, math.nan))
    with pytest.raises(
        SelectionError, match=r"keeps none of 4 masks \(3 not in the masks .*; 1 empty mask\)"
    ):
        promoter.promote(0, cases, predictions(0), bad)
    with caplog.at_level(logging.WARNING, "flows"):
        promoter.promote(0, cases, predictions(0), bad, allow_nothing=True)
    assert "the next round learns from annotations alone" in caplog.text
    assert promoter.in_force(1) == ()
    assert promoted(campaign, 0) == set()


def test_training_cases_carry_structures_and_weights(
    campaign: Campaign, cohort: Cohort, cases: list[Case], predictions: Callable
) -> None:
    settings = PseudoLabelsModel(filter=FilterModel(weights="predicted_dsc", kind="threshold", minimum=0.7))
    promoter = Promoter(campaign=campaign, cohort=cohort, settings=settings, seed=0)
    promoter.promote(0, cases, predictions(0), [*FIRST[:1], *scores(d=(1.0, 0.75))])
    labels = promoter.in_force(1)
    first, second = pseudo_cases(labels, cohort.dataset.by_id)
    assert first.pseudo and second.pseudo
    assert (first.annotated, dict(first.weights)) == ({"liver"}, {"liver": 0.9})
    assert (second.annotated, dict(second.weights)) == ({"liver", "spleen"}, {"spleen": 0.75})
    assert first.label_map == labels[0].path
    assert pseudo_labels_version(labels) != pseudo_labels_version([labels[1]])
    assert pseudo_labels_version(labels) == pseudo_labels_version(labels[::-1])


def test_without_an_estimator_every_mask_is_shown_and_empty_ones_are_told(tmp_path: Path) -> None:
    prediction = Prediction(
        case_id="c", mask=tmp_path / "c.nii.gz", checkpoint_sha256="0", voxels={"liver": 5, "spleen": 0}
    )
    assert [(s.structure, s.reason) for s in unscored([prediction])] == [
        ("liver", ""),
        ("spleen", EMPTY_MASK),
    ]


def test_the_table_of_verdicts_is_what_the_ledger_names(
    promoter: Promoter, campaign: Campaign, cases: list[Case], predictions: Callable
) -> None:
    promoter.promote(0, cases, predictions(0), FIRST)
    entry = campaign.event("promotion", 0)
    assert entry is not None
    assert entry.payload["verdicts_sha256"] == file_sha256(campaign.round_folder(0) / "verdicts.csv")


def test_with_consistency_the_images_of_all_masks_are_used(
    promoter: Promoter, campaign: Campaign, cases: list[Case], predictions: Callable
) -> None:
    both = replace(promoter, images_too=True)
    both.promote(0, cases, predictions(0), FIRST)
    labels = both.in_force(1)
    assert [(label.case_id, sorted(label.structures)) for label in labels] == [
        ("c", ["liver"]),
        ("d", ["liver", "spleen"]),
        ("e", []),
        ("f", ["liver"]),
    ]
    assert promoted(campaign, 0) == {("c", "liver"), ("d", "liver"), ("d", "spleen"), ("f", "liver")}
