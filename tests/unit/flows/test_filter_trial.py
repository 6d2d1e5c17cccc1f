import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cohort.case import Case, Structure
from cohort.errors import GeometryError
from cohort.filtering import filter_masks
from cohort.records import EMPTY_MASK, Prediction, QualityScore
from cohort.volume import write_volume
from flows import filter_trial, rounds
from flows.filter_config import FilterModel, PseudoLabelsModel
from flows.promotion import unscored

NAMES = ("liver", "spleen")


def quiet(step: int, total: int, metrics: object) -> None:
    return None


@pytest.fixture
def prediction(case: Case, tmp_path: Path, affine: np.ndarray, make_label_map: Callable) -> Prediction:
    """A mask of the case with half of its liver and no spleen."""
    labels = make_label_map(0)
    liver = np.argwhere(labels == 1)
    labels[tuple(liver[: len(liver) // 2].T)] = 0
    labels[labels == 2] = 0
    path = tmp_path / "predicted.nii.gz"
    write_volume(path, labels, affine)
    return Prediction(
        case_id=case.case_id, mask=path, checkpoint_sha256="0", voxels={"liver": len(liver), "spleen": 0}
    )


def test_masks_are_measured_where_a_reference_is(
    case: Case, prediction: Prediction, structures: tuple[Structure, ...], tmp_path: Path
) -> None:
    blind = Case(case_id="blind", patient_id="blind", image=case.image)
    found = filter_trial.measure_masks([case, blind], [prediction], structures, quiet)
    assert [(f.case_id, f.structure) for f in found] == [("scan_1", "liver"), ("scan_1", "spleen")]
    assert found[0].dsc == pytest.approx(2 / 3, abs=0.01)  # half of it: 2 * 0.5 / 1.5
    assert found[1].dsc == 0.0
    rounds.write_table(tmp_path / "dsc.csv", found)
    assert filter_trial.read_dscs(tmp_path / "dsc.csv") == {(f.case_id, f.structure): f.dsc for f in found}


def test_a_mask_of_what_is_not_there_is_as_wrong_as_can_be(
    case: Case, prediction: Prediction, structures: tuple[Structure, ...], affine: np.ndarray
) -> None:
    """The reference holds no liver; the mask of the spleen is empty, as its reference is."""
    assert case.reference is not None
    write_volume(case.reference, np.zeros((8, 12, 16), np.uint8), affine)
    liver, spleen = filter_trial.measure_masks([case], [prediction], structures, quiet)
    assert liver.dsc == 0.0
    assert math.isnan(spleen.dsc)


def test_a_mask_on_another_grid_is_refused(
    case: Case, prediction: Prediction, structures: tuple[Structure, ...], affine: np.ndarray
) -> None:
    write_volume(prediction.mask, np.zeros((8, 12, 15), np.uint8), affine)
    with pytest.raises(GeometryError, match="both must lie on one grid"):
        filter_trial.measure_masks([case], [prediction], structures, quiet)


def predictions(count: int) -> list[Prediction]:
    return [
        Prediction(
            case_id=f"c{n}", mask=Path("m"), checkpoint_sha256="0", voxels={"liver": 9, "spleen": 9 * (n > 0)}
        )
        for n in range(count)
    ]


def scored(name: str, values: list[float]) -> list[QualityScore]:
    return [
        QualityScore(
            case_id=f"c{n}",
            structure=structure,
            raw=math.nan if structure == "spleen" and n == 0 else value,
            predicted_dsc=value,
            estimator=name,
            reason=EMPTY_MASK if structure == "spleen" and n == 0 else "",
        )
        for n, value in enumerate(values)
        for structure in NAMES
    ]


DSCS = {(f"c{n}", name): 0.1 * n for n in range(10) for name in NAMES}
PLAIN = unscored(predictions(10))
GOOD, BAD = scored("sentinel", [0.1 * n for n in range(10)]), scored("entropy", [-0.1 * n for n in range(10)])


def trial(scores: dict[str, list[QualityScore]], dscs: dict[tuple[str, str], float]) -> dict:
    settings = PseudoLabelsModel(filter=FilterModel(keep=0.5), good_dsc=0.45, rivals=("entropy",))
    verdicts = filter_masks(settings.filter.rule, scores["sentinel"], round=0, seed=0)
    return filter_trial.trial(settings, NAMES, verdicts, PLAIN, scores, dscs, round=0, seed=0)


def test_a_filter_by_a_perfect_estimator_is_the_oracle() -> None:
    found = trial({"sentinel": GOOD, "entropy": BAD}, DSCS)
    assert found["filter"] == found["rivals"]["oracle"]["filter"]
    assert found["filter"]["precision"] == 1.0
    assert found["estimator"]["spearman"] == pytest.approx(1.0)
    worse, random = (found["rivals"][name]["filter"] for name in ("entropy", "random"))
    assert worse["dsc_kept"] < random["dsc_kept"] < found["filter"]["dsc_kept"]
    assert found["rivals"]["entropy"]["estimator"]["spearman"] == pytest.approx(-1.0)
    assert found["filter"]["masks"] == 19.0
    assert found["filter_per_structure"]["spleen"]["masks"] == 9.0


def test_rivals_keep_as_many_masks_of_each_structure() -> None:
    found = trial({"sentinel": GOOD, "entropy": BAD}, DSCS)
    assert found["alike"] == "structure"
    kept = {name: both["filter"]["kept"] for name, both in found["rivals"].items()}
    assert kept == dict.fromkeys(("sentinel", "entropy", "random", "oracle"), found["filter"]["kept"])


def test_a_filter_that_chooses_between_structures_is_compared_with_rivals_that_may_too() -> None:
    """All spleens are bad; that a threshold leaves them out is its merit, which a random part has not."""
    dscs = {key: 0.9 if key[1] == "liver" else 0.1 for key in DSCS}
    scores = [replace(s, predicted_dsc=dscs[s.case_id, s.structure]) for s in GOOD]
    for rule in (FilterModel(kind="threshold", minimum=0.5), FilterModel(per="all", keep=10 / 19)):
        settings = PseudoLabelsModel(filter=rule, good_dsc=0.45, rivals=("entropy",))
        by_dsc = [replace(s, raw=s.predicted_dsc if s.reason == "" else math.nan) for s in scores]
        verdicts = filter_masks(rule.rule, by_dsc, round=0, seed=0)
        found = filter_trial.trial(
            settings, NAMES, verdicts, PLAIN, {"sentinel": by_dsc}, dscs, round=0, seed=0
        )
        assert found["alike"] == "all"
        assert found["filter"]["kept"] == 10.0
        assert found["filter"]["precision"] == found["rivals"]["oracle"]["filter"]["precision"] == 1.0
        assert found["rivals"]["random"]["filter"]["kept"] == 10.0
        assert 0.2 < found["rivals"]["random"]["filter"]["precision"] < 0.9


def test_rivals_of_a_threshold_keep_as_many_masks_in_all() -> None:
    """A threshold that four livers and three spleens pass."""
    scores = [
        replace(s, predicted_dsc=max(0.0, s.predicted_dsc - 0.1)) if s.structure == "spleen" else s
        for s in scored("sentinel", [0.1 * n for n in range(10)])
    ]
    rule = FilterModel(kind="threshold", minimum=0.59)
    settings = PseudoLabelsModel(filter=rule, good_dsc=0.45, rivals=("entropy",))
    verdicts = filter_masks(rule.rule, scores, round=0, seed=0)
    judged = {"sentinel": scores, "entropy": BAD}
    found = filter_trial.trial(settings, NAMES, verdicts, PLAIN, judged, DSCS, round=0, seed=0)
    assert found["filter"]["kept"] == 7.0
    kept = {name: both["filter"]["kept"] for name, both in found["rivals"].items()}
    assert kept == dict.fromkeys(("sentinel", "entropy", "random", "oracle"), 7.0)
    assert found["rivals"]["oracle"]["filter"]["dsc_kept"] == found["filter"]["dsc_kept"]


def test_without_references_nothing_is_claimed() -> None:
    found = trial({"sentinel": GOOD}, {})
    assert found["estimator"] == {}
    assert found["filter"]["precision"] is None
    assert found["rivals"].keys() == {"sentinel", "random"}


def test_retention_falls_to_the_mean_of_all_masks() -> None:
    scores = {"sentinel": GOOD, **filter_trial.bounds(PLAIN, DSCS)}
    found = filter_trial.retention(scores, DSCS, (0.2, 0.5, 1.0))
    assert found["oracle"] == found["sentinel"]
    assert found["sentinel"] == sorted(found["sentinel"], reverse=True)
    mean = np.mean([dsc for (case_id, name), dsc in DSCS.items() if (case_id, name) != ("c0", "spleen")])
    assert [found[name][-1] for name in found] == pytest.approx([mean] * 3)


def test_the_table_has_every_mask_with_every_value(tmp_path: Path) -> None:
    verdicts = filter_masks(FilterModel(keep=0.5).rule, GOOD, round=0, seed=0)
    filter_trial.write_judged(tmp_path / "judged.csv", verdicts, {"sentinel": GOOD, "entropy": BAD}, DSCS)
    table = pd.read_csv(tmp_path / "judged.csv")
    assert len(table) == 20
    row = table[(table["case_id"] == "c7") & (table["structure"] == "liver")].iloc[0]
    assert (row["raw_sentinel"], row["raw_entropy"], row["dsc"]) == pytest.approx((0.7, -0.7, 0.7))
    assert row["weight"] == 1.0
