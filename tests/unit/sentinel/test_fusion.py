"""The fusion: learns what tells masks of one model apart, never against the sign of a feature."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from cohort.errors import ModelError
from sentinel.fusion import SIGNS, Fusion, FusionRow, cross_validated, fit_fusion


def rows(
    patients: int = 12,
    seed: int = 0,
    *,
    offset: float = 0.0,
    source: str = "repeat0",
    structure: str = "liver",
) -> list[FusionRow]:
    """Entropy tells the DSC with little noise, inconsistency with much, the sentinel nothing."""
    rng = np.random.default_rng(seed)
    found = []
    for number, dsc in enumerate(rng.uniform(0.5, 0.9, patients)):
        features = {
            "entropy": 1.0 - dsc + offset + rng.normal(0.0, 0.02),
            "inconsistency": 1.0 - dsc + rng.normal(0.0, 0.5),
            "sentinel": rng.normal(),
        }
        found.append(
            FusionRow(
                patient_id=f"p{number:02d}",
                structure=structure,
                source=source,
                features=features,
                dsc=float(dsc),
            )
        )
    return found


def weight(fusion: Fusion, name: str) -> float:
    return dict(zip(fusion.names, fusion.weights, strict=True))[name]


def test_the_feature_that_knows_more_weighs_more_and_new_masks_are_ranked() -> None:
    fusion = fit_fusion(rows())
    assert weight(fusion, "entropy") < 4.0 * weight(fusion, "inconsistency") <= 0.0
    new = rows(40, seed=1)
    predicted = [fusion.predict(row.structure, row.features) for row in new]
    assert np.corrcoef(predicted, [row.dsc for row in new])[0, 1] > 0.9


def test_no_weight_points_against_what_is_sure() -> None:
    turned = [replace(row, dsc=1.0 - row.dsc) for row in rows(30)]
    fusion = fit_fusion(turned)
    assert weight(fusion, "entropy") == 0.0
    assert all(SIGNS[name] * value >= 0.0 for name, value in zip(fusion.names, fusion.weights, strict=True))


def test_differences_between_models_and_structures_teach_no_weight() -> None:
    """A worse model is less certain of everything; among masks of one model that says nothing."""
    rng = np.random.default_rng(0)
    found = []
    for source, dsc in (("bad", 0.3), ("good", 0.9)):
        for number in range(10):
            features = {"entropy": 1.0 - dsc + rng.normal(0.0, 0.01)}
            noise = float(rng.normal(0.0, 0.01))
            found.append(
                FusionRow(
                    patient_id=f"p{number}",
                    structure="liver",
                    source=source,
                    features=features,
                    dsc=dsc + noise,
                )
            )
    fusion = fit_fusion(found)
    low, high = (fusion.predict("liver", {"entropy": value}) for value in (0.7, 0.1))
    assert abs(high - low) < 0.3, "0.6 if the models had taught it"


def test_a_missing_feature_counts_as_average() -> None:
    fusion = fit_fusion([*rows(), *rows(seed=3, structure="spleen")])
    assert fusion.predict("liver", {}) == pytest.approx(fusion.intercepts["liver"])
    assert fusion.predict("spleen", {"entropy": math.nan}) == pytest.approx(fusion.intercepts["spleen"])
    partial = [replace(row, features={**row.features, "committee": math.nan}) for row in rows()]
    assert "committee" not in fit_fusion(partial).names


def test_the_order_of_rows_does_not_matter() -> None:
    assert fit_fusion(rows()) == fit_fusion(rows()[::-1])


def test_a_structure_that_no_segmenter_found_counts_as_an_average_one() -> None:
    fusion = fit_fusion([*rows(), *rows(seed=3, structure="spleen")])
    usual = (fusion.intercepts["liver"] + fusion.intercepts["spleen"]) / 2.0
    assert fusion.predict("brain", {}) == pytest.approx(usual)
    sure, unsure = (fusion.predict("brain", {"entropy": value}) for value in (0.1, 0.9))
    assert sure > unsure


@pytest.mark.parametrize(("kept", "told"), [(rows()[:5], "5 .* of 5 patients"), (rows(2) * 4, "of 2 pat")])
def test_too_little_to_learn_from(kept: list[FusionRow], told: str) -> None:
    with pytest.raises(ModelError, match=told):
        fit_fusion(kept)


def test_cross_validated_values_do_not_know_the_patients_own_dsc() -> None:
    """With features that say nothing, the own DSC would be all there is to remember."""
    rng = np.random.default_rng(0)
    blind = [replace(row, features={"sentinel": float(rng.normal())}) for row in rows(40)]
    values = cross_validated(blind)
    assert len(values) == 40
    assert np.corrcoef(values, [row.dsc for row in blind])[0, 1] < 0.3
    changed = [replace(blind[0], dsc=0.0), *blind[1:]]
    assert cross_validated(changed)[0] == values[0]


def test_where_nothing_out_of_sample_can_be_said_there_is_no_value() -> None:
    lonely = replace(rows()[0], structure="spleen", patient_id="p00")
    values = cross_validated([*rows(), lonely])
    assert math.isnan(values[-1])
    assert not np.isnan(values[:-1]).any()
    assert np.isnan(cross_validated([*rows(3), *rows(3, seed=1)])).all(), "two patients are too few"


def test_a_fusion_survives_json() -> None:
    fusion = fit_fusion(rows())
    assert Fusion.from_dict(json.loads(json.dumps(fusion.as_dict()))) == fusion
    with pytest.raises(ModelError, match="A fusion cannot be read"):
        Fusion.from_dict({"names": ["entropy"]})


def test_features_that_know_equally_little_weigh_alike() -> None:
    """Noise picks no favourite: few rows, three features of one worth."""
    rng = np.random.default_rng(3)
    names = ("entropy", "inconsistency", "committee")
    found = []
    for number, dsc in enumerate(rng.uniform(0.6, 0.8, 12)):
        features = {name: 1.0 - float(dsc) + float(rng.normal(0.0, 0.1)) for name in names}
        found.append(
            FusionRow(
                patient_id=f"p{number:02d}", structure="liver", source="r", features=features, dsc=float(dsc)
            )
        )
    weights = [abs(weight(fit_fusion(found), name)) for name in names]
    assert min(weights) > 0.0
    assert max(weights) < 2.0 * min(weights)
