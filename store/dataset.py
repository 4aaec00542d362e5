"""A dataset: a ``dataset.toml`` and the table, images and texts it names, checked when it is loaded."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from store.keys import file_key, text_key
from store.spec import DatasetSpec
from store.task import Task


class ImageRef(NamedTuple):
    """A file, and the page (counted from 0) for a multi-page one."""

    path: Path
    page: int | None = None


@dataclass(frozen=True)
class ImageBlock:
    """One image modality: n references (None where the table has no path) and how their pixels are read."""

    name: str
    refs: tuple[ImageRef | None, ...]
    convert: str
    crop_bottom_px: int = 0

    def keys(self) -> list[str | None]:
        """Return n content keys in row order; None where there is no file to read."""
        distinct = list({ref for ref in self.refs if ref is not None})
        with ThreadPoolExecutor() as pool:  # hashing releases the GIL
            found = dict(zip(distinct, pool.map(_key_or_none, distinct), strict=True))
        return [None if ref is None else found[ref] for ref in self.refs]


@dataclass(frozen=True)
class TextBlock:
    """One text per row, None where the row has none."""

    name: str
    texts: tuple[str | None, ...]

    def keys(self) -> list[str | None]:
        """Return n content keys in row order; None where there is no text."""
        return [None if text is None else text_key(text) for text in self.texts]


@dataclass(frozen=True)
class MetadataColumn:
    """One metadata column as the table has it; whatever is fitted is fitted later, on training rows.

    Attributes:
        name: Its name in the spec.
        kind: ``"numeric"`` or ``"categorical"``.
        values: numeric: float64 ``(n,)``, NaN where missing; categorical: object ``(n,)`` of str, None where missing.
        transform: ``"none"`` or ``"log"``; numeric only, not yet applied to `values`.
    """

    name: str
    kind: Literal["numeric", "categorical"]
    values: NDArray[Any]
    transform: Literal["none", "log"] = "none"


@dataclass(frozen=True)
class Dataset:
    """A checked dataset of n rows; every sequence in it is in row order.

    Attributes:
        spec: The spec it came from.
        folder: Where the spec lies; ``features.zarr``, ``splits.json`` and ``runs/`` stand beside it.
        ids: str ``(n,)``, unique.
        groups: str ``(n,)``, or None without a group column.
        images: Image blocks by name.
        texts: Text blocks by name.
        metadata: Metadata columns by name.
        tasks: Tasks by name.
        given_split: str ``(n,)`` (``"train"``, ``"val"``, ``"test"`` or another held-out set's name), or None.
    """

    spec: DatasetSpec
    folder: Path
    ids: NDArray[np.str_]
    groups: NDArray[np.str_] | None
    images: Mapping[str, ImageBlock]
    texts: Mapping[str, TextBlock]
    metadata: Mapping[str, MetadataColumn]
    tasks: Mapping[str, Task]
    given_split: NDArray[np.str_] | None

    @property
    def n_rows(self) -> int:
        """The number of rows, n."""
        return len(self.ids)


def _key_or_none(ref: ImageRef) -> str | None:
    try:
        return file_key(ref.path, ref.page)
    except OSError:
        return None
