from pathlib import Path

import pytest

from cohort.errors import DataError
from cohort.layouts.patients import read_patients

IDS = ("a", "b")


def write(folder: Path, text: str) -> Path:
    (folder / "patients.csv").write_text(text)
    return folder


def test_no_file_no_patients(tmp_path: Path) -> None:
    assert read_patients(tmp_path, IDS) == {}


def test_ids_stay_text_and_further_columns_do_not_matter(tmp_path: Path) -> None:
    write(tmp_path, "age,case_id,patient_id\n40,a,007\n50,b,NA\n")
    assert read_patients(tmp_path, IDS) == {"a": "007", "b": "NA"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read as a CSV table"),
        ('case_id,patient_id\na,1,2,3\nb,"', "cannot be read as a CSV table"),
        ("case,patient\na,1\n", "has the columns case, patient; expected case_id and patient_id"),
        ("case_id,patient_id\na,1\n", "does not name a patient for 1 cases, the first is 'b'"),
        ("case_id,patient_id\na,1\nb,2\nc,3\n", "names the case 'c', which the data set does not have"),
        ("case_id,patient_id\na,1\na,2\nb,3\n", "names the case 'a' twice"),
        ("case_id,patient_id\na,\nb,3\n", "has no patient for the case 'a'"),
        ("case_id,patient_id\nx/a,1\nb,3\n", "Case id 'x/a' cannot be used as a file name"),
    ],
)
def test_a_malformed_table_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"patients\.csv.*{message}"):
        read_patients(write(tmp_path, text), IDS)
