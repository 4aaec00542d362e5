"""What a command prints for people: tables with a few lines under them, made below the command line, printed there."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Section:
    """One table and the lines under it.

    Attributes:
        title: Above the table.
        columns: Names of the columns; without any there is no table, only lines.
        rows: Cells, as many per row as there are columns.
        lines: Printed as they are, below the table; an empty one leaves a gap.
    """

    title: str = ""
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    lines: Sequence[str] = ()


def counted(n: int, one: str, several: str | None = None) -> str:
    """Return a number with its words: ``1 row``, ``2 rows``; `several` where more than an s makes the difference."""
    return f"{n} {one if n == 1 else several or f'{one}s'}"
