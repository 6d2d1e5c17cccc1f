import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from cohort.errors import ConfigError, ModelError
from cohort.records import TrainingCase
from segmenters.distributed import ALONE
from segmenters.early_stopping import Stopping, Validation, hold_back
from segmenters.preprocessing import IGNORED, PreparedCase
from segmenters.training_config import EarlyStopping


def make_cases(tmp_path, annotated: list[tuple[str, set[str]]]) -> list[TrainingCase]:
    return [
        TrainingCase(
            case_id=f"c{index}",
            patient_id=patient,
            image=tmp_path / f"c{index}.nii.gz",
            label_map=tmp_path / f"c{index}_labels.nii.gz",
            annotated=frozenset(names),
        )
        for index, (patient, names) in enumerate(annotated)
    ]


def test_by_default_nobody_is_held_back(tmp_path):
    cases = make_cases(tmp_path, [("p0", {"liver"})])

    assert hold_back(cases, EarlyStopping(), 0) == (tuple(cases), ())


def test_a_patient_is_on_one_side_only(tmp_path):
    cases = make_cases(tmp_path, [(f"p{index // 2}", {"liver"}) for index in range(20)])

    learning, held = hold_back(cases, EarlyStopping(fraction=0.25), 0)

    assert sorted([*learning, *held], key=cases.index) == cases
    assert {case.patient_id for case in held}.isdisjoint(case.patient_id for case in learning)
    # 2.5 of 10 patients, rounded down, with two cases each
    assert len(held) == 4


def test_who_is_held_back_depends_on_the_seed_and_not_on_the_order(tmp_path):
    cases = make_cases(tmp_path, [(f"p{index}", {"liver"}) for index in range(12)])
    settings = EarlyStopping(fraction=0.25)

    choices = {
        frozenset(case.case_id for case in hold_back(order, settings, seed)[1])
        for seed in range(5)
        for order in (cases, cases[::-1])
    }

    assert 1 < len(choices) <= 5


def test_what_a_model_labelled_does_not_stand_in_for_the_last_who_annotated(tmp_path):
    own = make_cases(tmp_path, [("p0", {"liver", "spleen"}), *((f"p{i}", {"liver"}) for i in range(1, 5))])
    (made,) = make_cases(tmp_path, [("q", {"spleen"})])
    pseudo = replace(made, case_id="q", pseudo=True)

    for seed in range(8):
        _, held = hold_back([*own, pseudo], EarlyStopping(fraction=0.5), seed)
        assert "p0" not in {case.patient_id for case in held}


def test_the_last_to_annotate_a_structure_is_not_held_back(tmp_path):
    rare = [("p0", {"liver", "spleen"}), *((f"p{index}", {"liver"}) for index in range(1, 5))]
    cases = make_cases(tmp_path, rare)

    for seed in range(10):
        learning, held = hold_back(cases, EarlyStopping(fraction=0.8), seed)
        assert "p0" in {case.patient_id for case in learning}
        assert len(held) == 4


@pytest.mark.parametrize(
    ("patients", "fraction", "message"),
    [
        (4, 0.2, r"fraction is 0\.2, but of the 4 labelled patients 0 can be held back .* at least 1: label"),
        (1, 0.9, r"of the 1 labelled patients 0 can be held back"),
    ],
)
def test_too_few_patients_are_refused(tmp_path, patients, fraction, message):
    cases = make_cases(tmp_path, [(f"p{index}", {"liver"}) for index in range(patients)])

    with pytest.raises(ConfigError, match=message):
        hold_back(cases, EarlyStopping(fraction=fraction), 0)


def test_patients_that_cannot_be_spared_are_refused(tmp_path):
    cases = make_cases(tmp_path, [("p0", {"liver"}), ("p1", {"spleen"}), ("p2", {"stomach"})])

    with pytest.raises(ConfigError, match="of the 3 labelled patients 0 can be held back"):
        hold_back(cases, EarlyStopping(fraction=0.5), 0)


class Thresholds(nn.Module):
    """Says 1 above `weight` and 0 below."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, images):
        above = 100.0 * (images - self.weight)
        return torch.cat([torch.zeros_like(above), above, torch.full_like(above, -1e4)], dim=1)


def make_prepared(name: str, inside: int, known: tuple[bool, bool]) -> PreparedCase:
    """Voxel values are 0, 1, 2 ... along W; the structure is where they are above 11.5."""
    image = torch.arange(16.0).expand(8, 12, 16).contiguous()
    channels = torch.zeros(8, 12, 16, dtype=torch.uint8)
    channels[..., 12:] = inside
    return PreparedCase(
        case_id=name, image=image, channels=channels, known=torch.tensor([True, *known]), places={}
    )


def measured(cases, config, threshold: float) -> float:
    validation = Validation(cases, Thresholds(), config, torch.device("cpu"), ALONE)
    return validation.mean_dsc({"weight": torch.tensor(threshold)})


def test_dsc_is_measured_with_the_weights_that_are_given(config):
    cases = [make_prepared("a", 1, (True, True)), make_prepared("b", 1, (True, False))]

    assert measured(cases, config, 11.5) == 1.0
    # 8 voxels of a row are predicted, 4 of them right: 2 * 4 / (8 + 4)
    assert measured(cases, config, 7.5) == pytest.approx(2 / 3)


def test_only_structures_that_are_annotated_and_there_count(config):
    good, unknown = make_prepared("a", 1, (True, True)), make_prepared("b", 1, (False, True))
    missed = make_prepared("c", 2, (True, True))

    assert measured([good, unknown], config, 11.5) == 1.0
    # structure 2 is never predicted: 0, and structure 1 is not in case c
    assert measured([good, missed], config, 11.5) == pytest.approx(0.5)
    with pytest.raises(
        ModelError, match="None of the 1 cases held back for early stopping holds a structure"
    ):
        measured([unknown], config, 11.5)


def test_what_is_predicted_outside_of_annotated_slices_does_not_count(config):
    case = make_prepared("a", 1, (True, True))
    case.channels[..., 4:12] = IGNORED

    # predicted from voxel 4 on: those up to 11 are nobody's
    assert measured([case], config, 3.5) == 1.0
    # and from voxel 0 on: 2 * 4 / (8 + 4)
    assert measured([case], config, -1.0) == pytest.approx(2 / 3)


def test_best_weights_are_remembered_until_patience_ends():
    stopping = Stopping(EarlyStopping(fraction=0.5, patience=2))
    weights = {"w": torch.zeros(1)}
    ended = []
    for step, (value, dsc) in enumerate([(1.0, 0.3), (2.0, 0.6), (3.0, 0.6), (4.0, 0.5)], start=1):
        weights["w"].fill_(value)
        stopping.take(step, dsc, weights)
        ended.append(stopping.is_enough)

    assert ended == [False, False, False, True]
    assert (stopping.best_step, stopping.best_dsc) == (2, 0.6)
    assert float(stopping.best_weights["w"]) == 2.0
    again = Stopping(EarlyStopping(fraction=0.5, patience=2))
    again.restore(stopping.state())
    assert again.is_enough
    assert again.best_step == 2


def test_a_window_smaller_than_the_volume_sees_all_of_it(config):
    small = replace(config, patch=(4, 6, 8))

    assert measured([make_prepared("a", 1, (True, True))], small, 11.5) == 1.0
    assert not math.isnan(measured([make_prepared("a", 1, (True, True))], small, 100.0))


def test_pseudo_labels_never_measure_and_never_leak_a_measured_patient(tmp_path):
    human = make_cases(tmp_path, [(f"p{index}", {"liver"}) for index in range(4)])
    pseudo = [replace(case, case_id=f"pseudo_{case.case_id}", pseudo=True) for case in human]
    stranger = replace(pseudo[0], case_id="stranger", patient_id="p9")

    learning, held = hold_back([*human, *pseudo, stranger], EarlyStopping(fraction=0.5), 0)

    assert len(held) == 2
    assert not any(case.pseudo for case in held)
    assert {case.patient_id for case in held}.isdisjoint(case.patient_id for case in learning)
    assert stranger in learning
