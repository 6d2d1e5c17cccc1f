"""The fused estimator is fitted so that no part judges what it learned from."""

import json
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from cohort.case import CaseView, Structure
from cohort.errors import ModelError
from cohort.records import GradedMask, Prediction, TrainingCase
from cohort.slabs import Slab
from cohort.volume import read_image, read_label_map, write_volume
from sentinel.config import SentinelConfig
from sentinel.estimators.fused import FusedEstimator
from sentinel.fused_fitting import (
    CrossFittedMask,
    PartialSentinel,
    fit_fused,
    fusion_rows,
    patients_left_out,
    usual_volumes,
)
from sentinel.scoring import Sentinel
from sentinel.text import embed_names

Graded = Callable[..., list[GradedMask]]
Structures = tuple[Structure, ...]


def make_sentinel(seed: int) -> Sentinel:
    torch.manual_seed(seed)
    config = SentinelConfig(image_size=32, margin=3.0, precision="float32", device="cpu")
    names = ("liver", "spleen")
    return Sentinel(config=config, structures=names, embeddings=embed_names(names))


def cross_fitted(graded: list[GradedMask], structures: Structures) -> list[CrossFittedMask]:
    found = []
    for number, mask in enumerate(graded):
        labels = read_label_map(mask.mask).array
        prediction = Prediction(
            case_id=mask.case_id,
            mask=mask.mask,
            checkpoint_sha256="0" * 64,
            voxels={s.name: int((labels == s.label).sum()) for s in structures},
            uncertainty={
                kind: {s.name: 0.01 * (number + s.label) for s in structures}
                for kind in ("entropy", "inconsistency")
            },
        )
        view = CaseView(
            case_id=mask.case_id, patient_id=mask.patient_id, image=mask.image, shape=labels.shape
        )
        found.append(CrossFittedMask(graded=mask, view=view, prediction=prediction))
    return found


def training_cases(graded: list[GradedMask]) -> list[TrainingCase]:
    return [
        TrainingCase(
            case_id=mask.case_id,
            patient_id=mask.patient_id,
            image=mask.image,
            label_map=mask.reference,
            annotated=frozenset({"liver", "spleen"}),
        )
        for mask in graded
    ]


@pytest.fixture
def partial(graded: Graded) -> list[PartialSentinel]:
    left_out = patients_left_out([mask.patient_id for mask in graded(cases=4)], 0)
    return [
        PartialSentinel(left_out=patients, sentinel=make_sentinel(number))
        for number, patients in enumerate(left_out)
    ]


def test_every_patient_is_left_out_once() -> None:
    patients = [f"p{number}" for number in range(11)]
    left_out = patients_left_out(patients * 2, 5)
    assert sorted(patient for part in left_out for patient in part) == sorted(patients)
    assert sorted(len(part) for part in left_out) == [3, 4, 4]
    assert left_out == patients_left_out(patients[::-1], 5)
    assert left_out != patients_left_out(patients, 6)


def test_a_mask_is_judged_by_the_sentinel_that_left_its_patient_out(
    graded: Graded, structures: Structures, partial: list[PartialSentinel]
) -> None:
    masks = cross_fitted(graded(cases=4), structures)
    rows = fusion_rows(masks, structures, partial, training_cases(graded(cases=4)))
    assert len(rows) == 4 * 2 * 2
    judge = {patient: part.sentinel for part in partial for patient in part.left_out}
    by_key = {(mask.graded.patient_id, mask.graded.source): mask.graded for mask in masks}
    for row in rows:
        mask = by_key[row.patient_id, row.source]
        label = {s.name: s.label for s in structures}[row.structure]
        voxels = read_label_map(mask.mask).array == label
        (alone,) = judge[row.patient_id].score(read_image(mask.image), {row.structure: voxels})
        assert row.features["sentinel"] == pytest.approx(alone.raw, abs=1e-5)
        reference = read_label_map(mask.reference).array == label
        overlap = 2.0 * (voxels & reference).sum() / (voxels.sum() + reference.sum())
        assert row.dsc == pytest.approx(overlap)


def test_usual_volumes_in_mm3(graded: Graded, structures: Structures) -> None:
    found = usual_volumes(
        training_cases(graded(cases=2, sources=1)), (*structures, Structure(name="x", label=9))
    )
    assert sorted(found) == ["liver", "spleen"]
    assert math.exp(found["liver"].mean) == pytest.approx(4 * 6 * 5 * 3.0 * 1.0 * 0.5)
    assert found["liver"].spread == pytest.approx(0.1)


def test_fitted_saved_and_read_again_it_scores_the_same(
    graded: Graded, structures: Structures, partial: list[PartialSentinel]
) -> None:
    known = graded(cases=4)
    masks = cross_fitted(known, structures)
    fitted = fit_fused(masks, structures, partial, training_cases(known))
    values = json.loads(json.dumps(fitted.as_dict()))
    read = FusedEstimator.from_dict(values, [part.sentinel for part in partial])
    own = [mask for mask in masks if mask.graded.source.endswith("step0")]
    given = ([mask.view for mask in own], [mask.prediction for mask in own], structures)
    scores = fitted.estimate(*given)
    assert read.estimate(*given) == scores
    assert np.isfinite([score.predicted_dsc for score in scores]).all()
    with pytest.raises(ModelError, match="A fused estimator cannot be read"):
        FusedEstimator.from_dict({"fusion": values["fusion"]}, [])


def test_how_large_a_structure_is_in_the_patient_itself_is_not_known(
    graded: Graded, structures: Structures, partial: list[PartialSentinel]
) -> None:
    """One patient's liver is annotated much larger; only masks of the others notice."""
    known = graded(cases=4, sources=1)
    cases = training_cases(known)
    before = fusion_rows(cross_fitted(known, structures), structures, partial, cases)
    volume = read_label_map(known[0].reference)
    labels = volume.array.copy()
    labels[:, 6:] = np.where(labels[:, 6:] == 0, 1, labels[:, 6:])
    write_volume(known[0].reference, labels, volume.affine)
    after = fusion_rows(cross_fitted(known, structures), structures, partial, cases)
    for one, other in zip(before, after, strict=True):
        if one.structure == "liver":
            (own,) = (part.left_out for part in partial if one.patient_id in part.left_out)
            same = one.features["volume_deviation"] == other.features["volume_deviation"]
            assert same == (known[0].patient_id in own)


def test_cases_of_which_only_slabs_are_annotated_do_not_tell_usual_volumes(
    graded: Graded, structures: Structures
) -> None:
    cases = training_cases(graded(cases=2, sources=1))
    partly = [replace(case, slabs=(Slab(first=0, last=3),)) for case in cases]
    assert usual_volumes([cases[0], partly[1]], structures) == usual_volumes(cases[:1], structures)
    assert usual_volumes(partly, structures) == {}
