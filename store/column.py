"""One column of a dataset's table, as text: what rows may be held out by."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from store.dataset import Dataset
from store.errors import InputError, did_you_mean
from store.table import read_table, to_text


def read_column(dataset: Dataset, name: str) -> NDArray[np.object_]:
    """Return a column's cells, object ``(n,)`` of stripped str, None where empty.

    Args:
        dataset: n rows; its table is read again.
        name: A column of the table, or metadata by its name in the spec.

    Raises:
        InputError: There is no such column.
    """
    spec = dataset.spec
    names = [spec.table] if spec.tables is None else [spec.tables.train, spec.tables.val, spec.tables.test]
    table = pd.concat([read_table(dataset.folder / part, spec.sheet) for part in names if part], ignore_index=True)
    if name in table:
        return to_text(table[name])
    if name not in dataset.metadata:
        known = [*map(str, table.columns), *dataset.metadata]
        raise InputError(f"there is no column {name!r}; there is {', '.join(known)}.{did_you_mean(name, known)}")
    return to_text(pd.Series(dataset.metadata[name].values))
