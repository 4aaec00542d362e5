"""One column of a dataset's table, as text: what rows may be held out by."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from store.dataset import Dataset
from store.errors import InputError, did_you_mean
from store.rows import read_rows
from store.table import to_text


def read_column(dataset: Dataset, name: str) -> NDArray[np.object_]:
    """Return a column's cells, object ``(n,)`` of stripped str, None where empty.

    Args:
        dataset: n rows; its table is read again.
        name: A column of the table, or metadata by its name in the spec.

    Raises:
        InputError: There is no such column.
    """
    table = read_rows(dataset.spec, dataset.folder).table
    if name in table:
        return to_text(table[name])
    if name not in dataset.metadata:
        known = list(dict.fromkeys([*map(str, table.columns), *dataset.metadata]))
        raise InputError(f"there is no column {name!r}; there is {', '.join(known)}.{did_you_mean(name, known)}")
    return to_text(pd.Series(dataset.metadata[name].values))
