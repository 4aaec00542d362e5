"""What file names tell: a text, or the part that a pattern finds."""

import re
from collections.abc import Sequence
from pathlib import PurePath

import pandas as pd

from store.errors import InputError
from store.spec import DatasetSpec
from store.table import find_column, to_text


def file_names(spec: DatasetSpec, table: pd.DataFrame, block: str | None) -> list[str | None]:
    """Return the n file names of an image block, without their folders; None where a row has none.

    Args:
        spec: Has the image blocks.
        table: n rows.
        block: None for the first; of a stack, the names of its first part are read.
    """
    image = spec.images[block or next(iter(spec.images))]
    if image.column is None:
        return file_names(spec, table, (image.stack or ())[0])
    cells = to_text(find_column(table, image.column))
    return [text and PurePath(text.rpartition("#")[0] or text).name for text in cells]


def match_names(pattern: str, names: Sequence[str | None]) -> pd.Series:
    """Return what the pattern's group finds in each name, n of them; ``""`` where it finds nothing.

    Raises:
        InputError: It matches no name.
    """
    found = [name and re.search(pattern, name) for name in names]
    if not any(found):
        example = next(filter(None, names), "none")
        raise InputError(f"pattern {pattern!r} matches no file name, {example!r} for one")
    return pd.Series([match[1] if match else "" for match in found])


def name_words(name: str) -> str:
    """Return a file name as text: ``plastic_bottle_12.png`` -> ``plastic bottle``."""
    return re.sub(r"[\s_]*\d+$", "", PurePath(name).stem).replace("_", " ").strip().lower()
