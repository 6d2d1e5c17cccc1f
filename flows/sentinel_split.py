"""Who trains, calibrates and tests a sentinel: patients apart."""

from collections.abc import Sequence
from dataclasses import dataclass

from cohort.case import Dataset
from cohort.errors import ConfigError
from cohort.seeds import generator


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Ids of cases, patients apart."""

    train: tuple[str, ...]
    calibrate: tuple[str, ...]
    test: tuple[str, ...]


def split_cases(
    dataset: Dataset, test: Sequence[str], *, calibration: int, training: int | None, seed: int
) -> Split:
    """Split a data set by patient.

    Args:
        dataset: all cases; those without a reference take no part.
        test: ids of the held-out cases.
        calibration: patients that calibrate.
        training: patients that train, None for all that are left.
        seed: of the choice.

    Raises:
        ConfigError: if fewer patients are left than asked for, or fewer than 2 would train.
    """
    held_out = {dataset.by_id[case_id].patient_id for case_id in test}
    usable = [
        case for case in dataset.cases if case.reference is not None and case.patient_id not in held_out
    ]
    patients = sorted({case.patient_id for case in usable})
    wanted = len(patients) - calibration if training is None else training
    if wanted < 2 or wanted + calibration > len(patients):
        raise ConfigError(
            f"{len(patients)} patients with references are not held out, but {calibration} shall calibrate "
            f"and {'at least 2' if training is None else training} train; lower split.calibration_patients, "
            "split.training_patients or data.held_out_cases"
        )
    order = [patients[int(i)] for i in generator(seed, "sentinel", "split").permutation(len(patients))]
    calibrating, learning = set(order[:calibration]), set(order[calibration : calibration + wanted])
    return Split(
        train=tuple(case.case_id for case in usable if case.patient_id in learning),
        calibrate=tuple(case.case_id for case in usable if case.patient_id in calibrating),
        test=tuple(test),
    )
