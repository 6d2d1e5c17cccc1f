"""`patients.csv`: which patient a case is of, so that splits can keep the cases of a patient together."""

from collections.abc import Collection
from pathlib import Path

import pandas as pd

from cohort.case import check_case_id
from cohort.errors import DataError

FILE = "patients.csv"
_COLUMNS = ("case_id", "patient_id")


def read_patients(folder: Path, case_ids: Collection[str]) -> dict[str, str]:
    """Case id -> patient id from `patients.csv` in a folder; empty where the file is absent.

    Args:
        folder: that may hold the file.
        case_ids: of the data set. The file must name each of them once and no other: a misspelt id would
            quietly let a patient into both sides of a split.

    Raises:
        DataError: if the file cannot be read, a column or a case is missing, or a case is unknown or twice.
    """
    path = folder / FILE
    if not path.is_file():
        return {}
    table = _read(path)
    patients: dict[str, str] = {}
    for case_id, patient_id in zip(table["case_id"], table["patient_id"], strict=True):
        _check_row(path, case_id, patient_id, patients, case_ids)
        patients[case_id] = patient_id
    missing = sorted(set(case_ids) - patients.keys())
    if missing:
        raise DataError(
            f"{path} does not name a patient for {len(missing)} cases, the first is {missing[0]!r}; add a "
            "row for each case or remove the file to split by case"
        )
    return patients


def _read(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path} cannot be read as a CSV table: {error}") from error
    absent = [column for column in _COLUMNS if column not in table.columns]
    if absent:
        raise DataError(
            f"{path} has the columns {', '.join(map(str, table.columns))}; expected case_id and patient_id"
        )
    for column in _COLUMNS:
        table[column] = table[column].str.strip()
    return table


def _check_row(
    path: Path, case_id: str, patient_id: str, patients: dict[str, str], case_ids: Collection[str]
) -> None:
    try:
        check_case_id(case_id)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    if case_id not in case_ids:
        raise DataError(f"{path} names the case {case_id!r}, which the data set does not have")
    if case_id in patients:
        raise DataError(f"{path} names the case {case_id!r} twice; expected one row a case")
    if not patient_id:
        raise DataError(f"{path} has no patient for the case {case_id!r}")
