"""The file of predictions, written part by part."""

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from store import InputError, write_error

if TYPE_CHECKING:
    from pandas import DataFrame


def write_predictions(tables: Iterable["DataFrame"], out: Path) -> None:
    """Write tables below each other as one csv; it appears whole, and only then replaces an earlier one.

    Args:
        tables: Of the same columns; each is written and forgotten before the next is asked for.
        out: The file; a pipe or a device is written to as it is.

    Raises:
        InputError: It cannot be written there; found out before the first table is asked for.
        StoreError: The disk is full.
    """
    is_file = out.is_file() or not out.exists()
    path = out.with_name(f".{out.name}.{os.getpid()}") if is_file else out
    with _writing(out):
        file = path.open("w", newline="", encoding="utf-8")
    try:
        with file:
            for i, table in enumerate(tables):
                with _writing(out):
                    table.to_csv(file, index=False, header=i == 0)
                    file.flush()
        if is_file:
            with _writing(out):
                path.replace(out)
    finally:
        if is_file:
            path.unlink(missing_ok=True)


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise write_error(out, error) from None
        raise InputError(f"{out}: cannot be written ({error.strerror or error}); give another --out") from None
