from pathlib import Path

import pytest

from cohort.errors import DataError
from cohort.layouts.tables import read_metadata


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "meta.csv"


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_the_separator_is_read_off_the_header(path: Path, separator: str) -> None:
    rows = [("image_id", "age", "scanner"), ("s0000", "61", "A"), ("s0001", "", "B")]
    path.write_text("\n".join(separator.join(row) for row in rows))
    table = read_metadata(path)
    assert list(table.index) == ["s0000", "s0001"]
    assert list(table.columns) == ["age", "scanner"]
    assert table.loc["s0000", "age"] == 61
    assert table["age"].isna().tolist() == [False, True]


def test_values_may_hold_the_other_separators(path: Path) -> None:
    path.write_text("image_id;age;pathology\ns0000;61;tumor, vascular\ns0001;62;none\n")
    assert read_metadata(path)["pathology"].tolist() == ["tumor, vascular", "none"]


@pytest.mark.parametrize(
    ("header", "index"),
    [
        ("patient_id,image_id,case_id", "c"),
        ("patient_id,id,image_id", "c"),
        ("sex,patient_id,id", "c"),
        ("sex,age,patient_id", "c"),
        ("sex,Case_ID ,age", "b"),
    ],
)
def test_which_column_names_the_cases(path: Path, header: str, index: str) -> None:
    path.write_text(f"{header}\na,b,c\n")
    assert list(read_metadata(path).index) == [index]


def test_ids_are_text_as_they_are_written(path: Path) -> None:
    path.write_text("case_id,age\n007,61\n10,62\n1e5,63\n")
    assert list(read_metadata(path).index) == ["007", "10", "1e5"]


def test_blanks_around_values_and_a_mark_at_the_start(path: Path) -> None:
    path.write_bytes("case_id, sex\r\na , F\r\nb, M\r\n".encode("utf-8-sig"))
    table = read_metadata(path)
    assert list(table.index) == ["a", "b"]
    assert table["sex"].tolist() == ["F", "M"]


def test_a_separator_at_the_end_of_rows_shifts_nothing(path: Path) -> None:
    path.write_text("case_id,age,sex\na,61,F,\nb,62,M,\n")
    table = read_metadata(path)
    assert list(table.index) == ["a", "b"]
    assert table["age"].tolist() == [61, 62]


class TestRefused:
    def test_no_file(self, path: Path) -> None:
        with pytest.raises(DataError, match=r"The table of metadata .*meta\.csv does not exist"):
            read_metadata(path)

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\n",
            b"case_id,sex\na,\xff\xfe\n",
            b'case_id,sex\na,"F\n',
            b"case_id,age\na,52,5\n",
            b"case_id,age\na,52\nb,52,5\n",
        ],
    )
    def test_no_table(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"meta\.csv cannot be read as a table \(.*expected a CSV"):
            read_metadata(path)

    def test_no_column_of_ids(self, path: Path) -> None:
        path.write_text("name,age\na,61\n")
        with pytest.raises(
            DataError, match="expected one of case_id, image_id, id, patient_id, found name, age"
        ):
            read_metadata(path)

    def test_a_case_twice(self, path: Path) -> None:
        path.write_text("case_id,age\na,61\nb,62\na,63\n")
        with pytest.raises(DataError, match="has the case 'a' twice; expected one row per case"):
            read_metadata(path)
