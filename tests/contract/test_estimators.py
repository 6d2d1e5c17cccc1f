"""What every registered quality estimator promises."""

import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cohort.case import CaseView, Structure
from cohort.errors import ConfigError, DataError, GeometryError, ModelError
from cohort.records import EMPTY_MASK, NO_REFERENCE, NO_REGION, Prediction
from cohort.volume import read_image, read_label_map, write_volume
from sentinel.config import SentinelConfig
from sentinel.estimators.base import QualityEstimator
from sentinel.estimators.fused import FusedEstimator, VolumeRange
from sentinel.estimators.oracle import OracleEstimator, Reference, References
from sentinel.estimators.registry import ESTIMATORS, Learned, build_estimator, estimator_entry
from sentinel.estimators.sentinel import SentinelEstimator
from sentinel.estimators.uncertainty import KINDS, UncertaintyEstimator
from sentinel.fusion import FusionRow, fit_fusion
from sentinel.scoring import Sentinel
from sentinel.text import embed_names

Cohort = tuple[list[CaseView], list[Prediction]]


@pytest.fixture(scope="module")
def sentinel() -> Sentinel:
    torch.manual_seed(0)
    config = SentinelConfig(image_size=32, margin=3.0, precision="float32", device="cpu")
    return Sentinel(
        config=config, structures=("liver", "spleen"), embeddings=embed_names(["liver", "spleen"])
    )


@pytest.fixture(scope="module")
def fused(sentinel: Sentinel) -> FusedEstimator:
    rng = np.random.default_rng(0)
    rows = [
        FusionRow(
            patient_id=f"p{number}",
            structure=name,
            source="repeat0",
            features={"entropy": 1.0 - dsc, "sentinel": dsc, "inconsistency": 0.5 - 0.4 * dsc},
            dsc=dsc,
        )
        for number in range(8)
        for name, dsc in zip(("liver", "spleen"), rng.uniform(0.4, 0.9, 2).tolist(), strict=True)
    ]
    volumes = {name: VolumeRange.of([800.0, 1000.0]) for name in ("liver", "spleen")}
    return FusedEstimator(fusion=fit_fusion(rows), sentinels=(sentinel,), volumes=volumes)


@pytest.fixture
def references(tmp_path: Path, affine: np.ndarray, make_label_map: Callable[[int], np.ndarray]) -> References:
    """References of the cases: whole liver and spleen where the predictions are those, or a part of them."""
    by_case = {}
    for seed in range(3):
        labels = make_label_map(seed)
        labels[:, :, : 4 * seed] = 0
        path = tmp_path / f"case_{seed}_reference.nii.gz"
        write_volume(path, labels, affine)
        by_case[f"case_{seed}"] = Reference(path=path, evaluated=frozenset({"liver", "spleen"}))
    return References(by_case=by_case)


@pytest.fixture(params=sorted(ESTIMATORS))
def estimator(
    request: pytest.FixtureRequest, sentinel: Sentinel, fused: FusedEstimator, references: References
) -> QualityEstimator:
    learned: dict[str, Learned] = {
        "nothing": None,
        "sentinel": sentinel,
        "fused": fused,
        "references": references,
    }
    return build_estimator(request.param, learned[estimator_entry(request.param).learns])


@pytest.fixture
def cohort(
    tmp_path: Path,
    affine: np.ndarray,
    make_image: Callable[[int], np.ndarray],
    make_label_map: Callable[[int], np.ndarray],
) -> Cohort:
    """Three predicted cases; the last has no spleen."""
    cases, predictions = [], []
    for seed in range(3):
        case_id = f"case_{seed}"
        labels = make_label_map(seed)
        if seed == 2:
            labels[labels == 2] = 0
        image, mask = tmp_path / f"{case_id}.nii.gz", tmp_path / f"{case_id}_mask.nii.gz"
        write_volume(image, make_image(seed), affine)
        write_volume(mask, labels, affine)
        voxels = {name: int((labels == label).sum()) for name, label in (("liver", 1), ("spleen", 2))}
        entropy = {
            name: 0.1 * (seed + label) if count else math.nan
            for label, (name, count) in enumerate(voxels.items())
        }
        cases.append(CaseView(case_id=case_id, patient_id=case_id, image=image, shape=labels.shape))
        predictions.append(
            Prediction(
                case_id=case_id,
                mask=mask,
                checkpoint_sha256="0" * 64,
                voxels=voxels,
                uncertainty=dict.fromkeys(KINDS, entropy),
            )
        )
    return cases, predictions


class TestEveryEstimator:
    def test_is_one(self, estimator: QualityEstimator) -> None:
        assert isinstance(estimator, QualityEstimator)
        assert estimator.needs == estimator_entry(estimator.name).needs

    def test_scores_every_structure_of_every_case_in_order(
        self, estimator: QualityEstimator, cohort: Cohort, structures: tuple[Structure, ...]
    ) -> None:
        cases, predictions = cohort
        scores = estimator.estimate(cases, predictions[::-1], structures)
        assert [(s.case_id, s.structure) for s in scores] == [
            (case.case_id, structure.name) for case in cases for structure in structures
        ]
        assert {s.estimator for s in scores} == {estimator.name}

    def test_an_empty_mask_has_no_score(
        self, estimator: QualityEstimator, cohort: Cohort, structures: tuple[Structure, ...]
    ) -> None:
        scores = estimator.estimate(*cohort, structures)
        assert [s.reason for s in scores] == ["", "", "", "", "", "empty mask"]
        assert [s.missing for s in scores] == [False] * 5 + [True]
        assert math.isnan(scores[-1].predicted_dsc)

    def test_predicted_dsc_is_a_dsc_or_nothing(
        self, estimator: QualityEstimator, cohort: Cohort, structures: tuple[Structure, ...]
    ) -> None:
        for score in estimator.estimate(*cohort, structures):
            assert math.isnan(score.predicted_dsc) or 0.0 <= score.predicted_dsc <= 1.0

    def test_a_case_scores_the_same_in_any_company(
        self, estimator: QualityEstimator, cohort: Cohort, structures: tuple[Structure, ...]
    ) -> None:
        cases, predictions = cohort
        together = estimator.estimate(cases, predictions, structures)
        alone = estimator.estimate(cases[1:2], predictions, structures)
        for one, other in zip(alone, together[2:4], strict=True):
            assert one.raw == pytest.approx(other.raw, abs=1e-5)

    def test_tells_of_progress(
        self, estimator: QualityEstimator, cohort: Cohort, structures: tuple[Structure, ...]
    ) -> None:
        told: list[tuple[int, int]] = []
        estimator.estimate(*cohort, structures, report=lambda done, total, _: told.append((done, total)))
        assert told[-1][0] == told[-1][1] >= 3
        assert [done for done, _ in told] == list(range(1, len(told) + 1))

    def test_no_cases(self, estimator: QualityEstimator, structures: tuple[Structure, ...]) -> None:
        assert estimator.estimate([], [], structures) == ()

    def test_refuses_a_case_without_a_prediction_or_with_two(
        self, estimator: QualityEstimator, cohort: Cohort, structures: tuple[Structure, ...]
    ) -> None:
        cases, predictions = cohort
        with pytest.raises(DataError, match="Case case_2 has 0 predictions, expected one"):
            estimator.estimate(cases, predictions[:2], structures)
        with pytest.raises(DataError, match="Case case_0 has 2 predictions, expected one"):
            estimator.estimate(cases, [*predictions, predictions[0]], structures)

    def test_survives_pickling(
        self, estimator: QualityEstimator, cohort: Cohort, structures: tuple[Structure, ...]
    ) -> None:
        copy = pickle.loads(pickle.dumps(estimator))
        cases, predictions = cohort[0][:1], cohort[1][:1]
        assert copy.estimate(cases, predictions, structures) == estimator.estimate(
            cases, predictions, structures
        )


def test_sentinel_clamps_only_the_predicted_dsc(
    sentinel: Sentinel, cohort: Cohort, structures: tuple[Structure, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.concatenate([np.full(3, 1.25), np.full(100, -0.5)])
    monkeypatch.setattr(
        Sentinel,
        "judge",
        lambda self, slices, index: np.repeat(values[: len(slices), None], 3, axis=1).astype(np.float32),
    )
    sentinel = Sentinel(
        config=replace(sentinel.config, aggregation="mean"),
        structures=sentinel.structures,
        embeddings=sentinel.embeddings,
    )
    liver, spleen = SentinelEstimator(sentinel=sentinel).estimate(cohort[0][:1], cohort[1][:1], structures)
    assert (liver.raw, liver.predicted_dsc) == (pytest.approx(1.25), 1.0)
    assert (spleen.raw, spleen.predicted_dsc) == (pytest.approx(-0.5), 0.0)


def test_sentinel_refuses_what_it_was_not_trained_for(sentinel: Sentinel, cohort: Cohort) -> None:
    with pytest.raises(ModelError, match="not trained for structure 'brain'; it knows liver, spleen"):
        SentinelEstimator(sentinel=sentinel).estimate(
            *cohort, [Structure(name="brain", label=1), Structure(name="colon", label=2)]
        )


def test_sentinel_knows_a_structure_by_another_spelling(sentinel: Sentinel, cohort: Cohort) -> None:
    named = [Structure(name="Liver", label=1), Structure(name="SPLEEN", label=2)]
    plain = [Structure(name="liver", label=1), Structure(name="spleen", label=2)]
    estimator = SentinelEstimator(sentinel=sentinel)
    found, wanted = (estimator.estimate(*cohort, names) for names in (named, plain))
    assert [score.raw for score in found] == [score.raw for score in wanted]
    assert {score.structure for score in found} == {"Liver", "SPLEEN"}


def test_sentinel_refuses_a_mask_on_another_grid(
    sentinel: Sentinel, cohort: Cohort, structures: tuple[Structure, ...], affine: np.ndarray
) -> None:
    write_volume(cohort[1][0].mask, np.ones((8, 12, 15), dtype=np.uint8), affine)
    with pytest.raises(GeometryError, match="both must lie on one grid"):
        SentinelEstimator(sentinel=sentinel).estimate(*cohort, structures)


def test_entropy_ranks_by_certainty(cohort: Cohort, structures: tuple[Structure, ...]) -> None:
    scores = UncertaintyEstimator(name="entropy").estimate(*cohort, structures)
    assert [s.raw for s in scores[:5]] == pytest.approx([-0.0, -0.1, -0.1, -0.2, -0.2])
    assert all(math.isnan(s.predicted_dsc) for s in scores)


def test_entropy_says_what_the_segmenter_left_out(cohort: Cohort, structures: tuple[Structure, ...]) -> None:
    cases, predictions = cohort
    without = replace(predictions[0], uncertainty={})
    with pytest.raises(DataError, match="case_0 has no entropy for 'liver'"):
        UncertaintyEstimator(name="entropy").estimate(cases[:1], [without], structures)
    uncounted = replace(predictions[0], voxels={})
    with pytest.raises(DataError, match="does not count the voxels of 'liver'"):
        UncertaintyEstimator(name="entropy").estimate(cases[:1], [uncounted], structures)


def test_unknown_estimator_lists_the_known() -> None:
    with pytest.raises(
        ConfigError, match="Unknown estimator 'oracel'; expected one of bald, entropy, fused, incons"
    ):
        build_estimator("oracel")


def test_sentinel_estimator_needs_a_sentinel() -> None:
    with pytest.raises(ConfigError, match="needs a trained sentinel"):
        build_estimator("sentinel")


def test_an_oracle_knows_the_true_dsc(
    references: References, cohort: Cohort, structures: tuple[Structure, ...]
) -> None:
    scores = OracleEstimator(references=references).estimate(*cohort, structures)
    assert [s.raw for s in scores[:2]] == [1.0, 1.0]  # the mask is the reference
    assert scores[2].raw < 1.0  # a part of the reference is missing
    assert all(s.raw == s.predicted_dsc == s.lower == s.upper for s in scores if not s.missing)


def test_an_oracle_says_which_structure_nobody_contoured(
    references: References, cohort: Cohort, structures: tuple[Structure, ...]
) -> None:
    known = references.by_case["case_0"]
    partial = References(by_case={"case_0": replace(known, evaluated=frozenset({"liver"}))})
    cases, predictions = cohort
    liver, spleen = OracleEstimator(references=partial).estimate(cases[:1], predictions, structures)
    assert not liver.missing
    assert (spleen.missing, spleen.reason) == (True, NO_REFERENCE)
    with pytest.raises(DataError, match="case_1 has no reference"):
        OracleEstimator(references=partial).estimate(cases[1:2], predictions, structures)


def test_an_empty_mask_does_not_hide_that_nobody_contoured_its_structure(
    references: References, cohort: Cohort, structures: tuple[Structure, ...], tmp_path: Path
) -> None:
    known = references.by_case["case_0"]
    cases, predictions = cohort
    grid = read_label_map(predictions[0].mask)
    write_volume(tmp_path / "empty.nii.gz", np.zeros_like(grid.array), grid.affine)
    nothing = replace(
        predictions[0], mask=tmp_path / "empty.nii.gz", voxels={"liver": 0, "spleen": 0}, slices={}
    )
    partial = References(by_case={"case_0": replace(known, evaluated=frozenset({"liver"}))})
    liver, spleen = OracleEstimator(references=partial).estimate(cases[:1], [nothing], structures)
    assert (liver.missing, liver.reason) == (True, EMPTY_MASK)
    assert (spleen.missing, spleen.reason) == (True, NO_REFERENCE)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_without_a_region_on_the_segmenters_grid_has_no_score(
    kind: str, cohort: Cohort, structures: tuple[Structure, ...]
) -> None:
    cases, predictions = cohort
    tiny = replace(predictions[0], uncertainty={kind: {"liver": 0.3, "spleen": math.nan}})
    liver, spleen = UncertaintyEstimator(name=kind).estimate(cases[:1], [tiny], structures)
    assert liver.raw == pytest.approx(-0.3)
    assert (spleen.missing, spleen.reason) == (True, NO_REGION)


def test_an_oracle_needs_references() -> None:
    with pytest.raises(ConfigError, match="reads references, and was given none"):
        build_estimator("oracle")


@pytest.mark.parametrize("orientation", ["as_stored", "canonical"])
def test_sentinel_says_which_slice_of_the_file_has_which_score(
    sentinel: Sentinel,
    cohort: Cohort,
    structures: tuple[Structure, ...],
    affine: np.ndarray,
    orientation: str,
) -> None:
    other = Sentinel(
        config=replace(sentinel.config, orientation=orientation, max_slices=2),
        structures=sentinel.structures,
        embeddings=sentinel.embeddings,
        network=sentinel.network,
    )
    turned = affine.copy()
    turned[:, 2] *= -1
    cases, predictions = cohort[0][:1], cohort[1][:1]
    for path in (cases[0].image, predictions[0].mask):
        volume = read_image(path) if path == cases[0].image else read_label_map(path)
        write_volume(path, volume.array, turned)
    liver, spleen = SentinelEstimator(sentinel=other).estimate(cases, predictions, structures)
    assert len(liver.slice_indices) == len(liver.slice_scores) == 2
    assert list(liver.slice_indices) == sorted(liver.slice_indices)
    image, labels = read_image(cases[0].image), read_label_map(predictions[0].mask).array
    for score, label in ((liver, 1), (spleen, 2)):
        for index, value in zip(score.slice_indices, score.slice_scores, strict=True):
            alone = np.zeros(labels.shape, dtype=bool)
            alone[index] = labels[index] == label
            (found,) = other.score(image, {score.structure: alone})
            assert found.slice_scores == (pytest.approx(value, abs=1e-5),)
