"""Tables on disk: csv, tsv, parquet, xlsx and xlsm, read as they are, without guessing types."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from store.errors import InputError, did_you_mean

MISSING = frozenset({"", "NA", "N/A", "n/a", "NaN", "nan", "<NA>", "NULL", "null", "#N/A"})
"""Cells that count as missing. "None" is not among them: it is a class of particle counts."""

_READERS: dict[str, Callable[[Path, str | None], pd.DataFrame]] = {
    ".csv": lambda path, _: pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig"),
    ".tsv": lambda path, _: pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", sep="\t"),
    ".parquet": lambda path, _: pd.read_parquet(path),
    ".xlsx": lambda path, sheet: pd.read_excel(path, sheet_name=sheet or 0, dtype=str, keep_default_na=False),
    ".xlsm": lambda path, sheet: pd.read_excel(path, sheet_name=sheet or 0, dtype=str, keep_default_na=False),
}


def read_table(path: Path, sheet: str | None = None) -> pd.DataFrame:
    """Return the table; text formats give cells as str, parquet keeps its types.

    Raises:
        InputError: It is not there, of another kind, broken, empty, or has two columns of one name.
    """
    if path.suffix.lower() not in _READERS:
        raise InputError(f"{path}: tables are {', '.join(_READERS)}, not {path.suffix or 'a file without an ending'!r}")
    if not path.is_file():
        raise InputError(f"{path}: there is no such table")
    try:
        table = _READERS[path.suffix.lower()](path, sheet)
    except (ValueError, OSError, KeyError, ImportError) as error:  # pandas and pyarrow raise subclasses of these
        raise InputError(f"{path}: cannot be read as a table: {str(error).splitlines()[0]}") from None
    except Exception as error:
        if type(error).__name__ not in ("BadZipFile", "InvalidFileException"):  # a broken Excel file
            raise
        raise InputError(f"{path}: is no Excel file: {error}") from None
    if table.empty:
        raise InputError(f"{path}: the table has no rows")
    table.columns = [str(column).strip() for column in table.columns]
    if len(table.columns) == 1 and (other := {";", "\t"} & set(table.columns[0])):
        raise InputError(f"{path}: columns seem to be separated by {other.pop()!r}; csv needs commas, tsv tabs")
    if not table.columns.is_unique:
        twice = sorted(set(table.columns[table.columns.duplicated()]))
        raise InputError(f"{path}: two columns are called {', '.join(map(repr, twice))}; rename one")
    return table


def find_column(table: pd.DataFrame, column: str | int) -> pd.Series:
    """Return a column by its name, or by its position counted from 0.

    Raises:
        InputError: There is no such column.
    """
    if isinstance(column, int):
        if not 0 <= column < table.shape[1]:
            raise InputError(f"there is no column {column}; the table has {table.shape[1]}, counted from 0")
        return table.iloc[:, column]
    if column not in table:
        names = [str(name) for name in table.columns]
        hint = did_you_mean(str(column), names) or f" The table has: {', '.join(names)}."
        raise InputError(f"column {column!r} is not in the table.{hint}")
    return table[column]


def missing_cells(cells: pd.Series) -> NDArray[np.bool_]:
    """Return bool ``(n,)``: empty, not a number, or one of the words of `MISSING`."""
    return np.asarray(cells.isna() | cells.astype(str).str.strip().isin(MISSING), dtype=bool)


def to_number(cells: pd.Series) -> NDArray[np.float64]:
    """Return float64 ``(n,)``; NaN where a cell is missing or no number."""
    return np.asarray(pd.to_numeric(cells, errors="coerce"), dtype=np.float64)


def to_text(cells: pd.Series) -> NDArray[np.object_]:
    """Return object ``(n,)`` of stripped str, whole floats without ``.0``; None where missing."""
    missing = missing_cells(cells)
    if pd.api.types.is_float_dtype(cells) and (cells.dropna() % 1 == 0).all():
        cells = cells.astype("Int64")
    texts = cells.astype(str).str.strip().to_numpy(dtype=object)
    texts[missing] = None
    return np.asarray(texts, dtype=object)
