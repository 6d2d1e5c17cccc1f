import math
from dataclasses import replace

import numpy as np
import pytest

from cohort.records import QualityScore
from cohort.trial import RevealedMask
from sentinel.recalibration import recalibrated, recalibration


def revealed(count: int, *, predicts: bool = True, structure: str = "liver") -> list[RevealedMask]:
    """Masks of an estimator that says half of the true DSC."""
    return [
        RevealedMask(
            case_id=f"c{number}",
            patient_id=f"p{number}",
            structure=structure,
            round=0,
            raw=dsc / 2 if predicts else dsc - 3.0,
            predicted_dsc=dsc / 2 if predicts else math.nan,
            lower=math.nan,
            upper=math.nan,
            dsc=dsc,
        )
        for number, dsc in enumerate(np.linspace(0.3, 0.9, count).tolist())
    ]


def score(raw: float, *, predicted_dsc: float = math.nan, structure: str = "liver") -> QualityScore:
    return QualityScore(
        case_id="new", structure=structure, raw=raw, predicted_dsc=predicted_dsc, estimator="any"
    )


def test_predicted_dsc_is_put_right_and_bounded() -> None:
    (found,) = recalibrated([score(0.3, predicted_dsc=0.3)], recalibration(revealed(12)))
    assert found.predicted_dsc == pytest.approx(0.6, abs=1e-6)
    assert found.lower <= 0.6 <= found.upper
    assert found.raw == 0.3, "what ranks stays as it was"


def test_an_estimator_without_predictions_is_calibrated_from_its_own_values() -> None:
    (found,) = recalibrated([score(-2.5)], recalibration(revealed(12, predicts=False)))
    assert found.predicted_dsc == pytest.approx(0.5, abs=1e-6)


def test_what_an_earlier_map_predicted_does_not_enter_the_next_one() -> None:
    """Masks of a second round carry predictions that the first round's map made: raw stays what it was."""
    later = [replace(mask, round=1, predicted_dsc=mask.dsc) for mask in revealed(12)]
    (found,) = recalibrated([score(0.3, predicted_dsc=0.3)], recalibration([*revealed(12), *later]))
    assert found.predicted_dsc == pytest.approx(0.6, abs=1e-6)
    assert recalibrated([found], recalibration([*revealed(12), *later])) == (found,)


def test_few_patients_give_a_map_without_bounds() -> None:
    before = replace(score(0.3, predicted_dsc=0.3), lower=0.1, upper=0.5)
    (found,) = recalibrated([before], recalibration(revealed(5)))
    assert found.predicted_dsc == pytest.approx(0.6, abs=1e-6)
    assert math.isnan(found.lower)
    assert math.isnan(found.upper)


def test_what_is_not_known_stays() -> None:
    calibration = recalibration([*revealed(3), *revealed(9, structure="spleen")])
    liver, missing = score(0.3, predicted_dsc=0.3), score(math.nan, structure="spleen")
    assert recalibrated([liver, missing], calibration) == (liver, missing)


def test_masks_without_a_score_teach_nothing() -> None:
    blind = [replace(mask, raw=math.nan, predicted_dsc=math.nan) for mask in revealed(12)]
    assert recalibration(blind).structures == {}
