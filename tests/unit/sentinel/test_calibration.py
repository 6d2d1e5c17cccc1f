"""Calibration: lines recover a known distortion, bounds cover what they promise, few patients give none."""

import json
import math

import numpy as np
import pytest

from cohort.errors import ConfigError, ModelError
from sentinel.calibration import (
    BEYOND,
    NOT_CALIBRATED,
    Calibration,
    Observation,
    fit_calibration,
    min_patients,
)


def _observations(patients: int, seed: int, *, masks: int = 6, structure: str = "liver") -> list[Observation]:
    """True DSC with an effect of the patient; raw scores are a distorted, noisy view of it."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(patients):
        effect = rng.normal(0.0, 0.03)
        for dsc in rng.uniform(0.3, 0.95, masks):
            raw = (dsc - 0.3) / 0.8 + effect + rng.normal(0.0, 0.04)
            found.append(
                Observation(patient_id=f"p{number:03d}", structure=structure, raw=raw, dsc=float(dsc))
            )
    return found


def test_the_line_undoes_a_linear_distortion() -> None:
    calibration = fit_calibration(_observations(40, 0))
    learned = calibration.structures["liver"]
    for raw, dsc in ((0.1, 0.38), (0.4, 0.62), (0.7, 0.86)):
        assert calibration.apply("liver", raw).predicted_dsc == pytest.approx(dsc, abs=0.05)
    assert (learned.patients, learned.masks) == (40, 240)


def test_bounds_hold_new_patients_at_their_level() -> None:
    covered = []
    for seed in range(20):
        calibration = fit_calibration(_observations(30, seed), level=0.8)
        for seen in _observations(40, 1000 + seed):
            found = calibration.apply("liver", seen.raw)
            covered.append(found.lower <= seen.dsc <= found.upper)
    assert 0.77 <= float(np.mean(covered)) <= 0.87


def test_bounds_stay_within_0_and_1_and_hold_the_prediction() -> None:
    calibration = fit_calibration(_observations(30, 3))
    for raw in (-3.0, 0.0, 0.5, 1.0, 3.0):
        found = calibration.apply("liver", raw)
        assert 0.0 <= found.lower <= found.predicted_dsc <= found.upper <= 1.0


def test_a_structure_with_few_patients_gets_no_bounds_and_says_so() -> None:
    found = fit_calibration(_observations(8, 0)).apply("liver", 0.7)
    assert found.reason == NOT_CALIBRATED
    assert 0.0 <= found.predicted_dsc <= 1.0
    assert math.isnan(found.lower)
    assert math.isnan(found.upper)


def test_a_structure_that_was_never_seen_gets_no_guess() -> None:
    for calibration in (fit_calibration(_observations(30, 0)), fit_calibration(_observations(3, 0))):
        found = calibration.apply("spleen", 0.7)
        assert found.reason == NOT_CALIBRATED
        assert math.isnan(found.predicted_dsc)
    assert math.isnan(fit_calibration(_observations(3, 0)).apply("liver", 0.7).predicted_dsc)


def test_an_estimator_that_ranks_backwards_becomes_a_constant() -> None:
    turned = [
        Observation(patient_id=seen.patient_id, structure="liver", raw=-seen.raw, dsc=seen.dsc)
        for seen in _observations(30, 0)
    ]
    calibration = fit_calibration(turned)
    assert calibration.apply("liver", -1.0).predicted_dsc == calibration.apply("liver", 1.0).predicted_dsc


def test_the_order_of_observations_does_not_matter_and_nan_is_left_out() -> None:
    seen = _observations(20, 0)
    broken = Observation(patient_id="x", structure="liver", raw=math.nan, dsc=0.5)
    assert fit_calibration(seen) == fit_calibration([*reversed(seen), broken])


def test_a_score_unlike_those_that_calibrated_is_named() -> None:
    seen = _observations(20, 0)
    calibration = fit_calibration(seen)
    low, high = min(each.raw for each in seen), max(each.raw for each in seen)
    reach = 0.25 * (high - low)
    for raw, reason in (
        (low, ""),
        (high + 0.9 * reach, ""),
        (high + 1.1 * reach, BEYOND),
        (low - 1.1 * reach, BEYOND),
    ):
        found = calibration.apply("liver", raw)
        assert found.reason == reason
        assert not math.isnan(found.lower), "the numbers stay"


def test_a_calibration_survives_json() -> None:
    calibration = fit_calibration(_observations(20, 0))
    assert Calibration.from_dict(calibration.as_dict()) == calibration
    values = json.loads(json.dumps(calibration.as_dict()))
    assert Calibration.from_dict(values) == calibration
    del values["structures"]["liver"]["span"]  # as files had it before
    assert Calibration.from_dict(values).apply("liver", 1e6).reason == ""
    with pytest.raises(ModelError, match="cannot be read"):
        Calibration.from_dict({"level": 0.9, "structures": {"liver": {"slop": 1.0}}})


def test_a_level_outside_0_and_1_is_refused() -> None:
    with pytest.raises(ConfigError, match="level"):
        fit_calibration([], level=1.0)
    assert min_patients(0.8) == 4
