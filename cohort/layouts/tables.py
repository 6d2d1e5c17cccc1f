"""Tables of metadata beside a data set."""

import csv
import io
import warnings
from pathlib import Path

import pandas as pd

from cohort.errors import DataError

ID_COLUMNS = ("case_id", "image_id", "id", "patient_id")
_SEPARATORS = ",;\t"


def read_metadata(path: Path) -> pd.DataFrame:
    """Read a table with a row per case.

    Args:
        path: of a CSV whose columns are split by comma, semicolon or tab.

    Returns:
        Indexed by case id (text): the first of case_id, image_id, id, patient_id that it has.

    Raises:
        DataError: for a file that is missing or no such table, has no column of ids, or an id twice.
    """
    if not path.is_file():
        raise DataError(f"The table of metadata {path} does not exist")
    try:
        table = _table(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, csv.Error, pd.errors.ParserWarning) as error:
        raise DataError(
            f"{path} cannot be read as a table ({str(error).strip()}); expected a CSV with a header"
        ) from error
    by_lower = {str(name).strip().lower(): name for name in table.columns}
    wanted = next((by_lower[name] for name in ID_COLUMNS if name in by_lower), None)
    if wanted is None:
        raise DataError(
            f"{path} has no column of case ids: expected one of {', '.join(ID_COLUMNS)}, found "
            f"{', '.join(map(str, table.columns))}"
        )
    table[wanted] = table[wanted].str.strip()
    if table[wanted].duplicated().any():
        twice = table[wanted][table[wanted].duplicated()].iloc[0]
        raise DataError(f"{path} has the case {twice!r} twice; expected one row per case")
    return table.set_index(wanted)


def _table(text: str) -> pd.DataFrame:
    first = text.partition("\n")[0]
    separator = max(_SEPARATORS, key=first.count)
    names = pd.read_csv(io.StringIO(first), sep=separator, skipinitialspace=True).columns
    ids = {name: str for name in names if name.strip().lower() in ID_COLUMNS}  # 007 stays 007
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # a row that is longer than the header
        return pd.read_csv(
            io.StringIO(text), sep=separator, dtype=ids, index_col=False, skipinitialspace=True
        )
