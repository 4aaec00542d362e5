"""A dataset: a ``dataset.toml`` and the table, images and texts it names, checked when it is loaded."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from store.keys import file_key, stack_key, text_key
from store.progress import Progress
from store.sections import ImageSpec
from store.space import Crop
from store.spec import DatasetSpec
from store.task import Task
from store.threads import in_threads
from store.view import PART_FIELDS, VIEW_FIELDS


class ImageRef(NamedTuple):
    """A file, and the page (counted from 0) for a multi-page one."""

    file: str  # of many rows a text takes a fraction of the memory of a Path
    page: int | None = None

    @property
    def path(self) -> Path:
        """Where the file is."""
        return Path(self.file)


Hashes = Mapping[ImageRef, str | None]
"""Content keys of files; None for one that cannot be read."""


@dataclass(frozen=True)
class ImageBlock:
    """One image modality, or one view of it: n references and how their pixels are read (`FeatureSpace` has the words).

    Attributes:
        name: In the spec; ``bf.log`` for a variant of ``bf``.
        refs: n files, None where the table has no path. Of a stack the first part's, None where any part has none.
        convert: None where there is nothing to convert: of a spectrum, and of a stack.
        parts: Of a stack, the blocks whose pixels are stacked.
    """

    name: str
    refs: tuple[ImageRef | None, ...]
    convert: str | None
    crop_bottom_px: Crop = 0
    view: str = "plain"
    tiles: str | None = None
    tile_px: int | None = None
    pool: Literal["mean", "max"] = "mean"
    turns: Literal["none", "flips", "d4"] = "none"
    parts: tuple["ImageBlock", ...] = ()

    @property
    def stack(self) -> list[dict[str, Any]]:
        """How the pixels of each part are read, as `FeatureSpace.stack` has it."""
        return [{name: getattr(part, name) for name in PART_FIELDS} for part in self.parts]

    @property
    def sources(self) -> list[tuple[ImageRef, ...] | None]:
        """The n files, or tuples of stacked files, that the rows are read from; None where a row has none."""
        columns = [part.refs for part in self.parts] or [self.refs]
        return [None if None in row else tuple(filter(None, row)) for row in zip(*columns, strict=True)]

    def take(self, rows: Sequence[int]) -> "ImageBlock":
        """Return the same block of some rows."""
        refs = tuple(self.refs[row] for row in rows)
        return replace(self, refs=refs, parts=tuple(part.take(rows) for part in self.parts))

    def keys(self, hashes: Hashes | None = None) -> list[str | None]:
        """Return n content keys in row order; None where there is no file to read.

        Args:
            hashes: What `hash_files` gave, to read each file once for several blocks.
        """
        hashes = hash_files([self]) if hashes is None else hashes
        return [None if row is None else _stacked([hashes[ref] for ref in row]) for row in self.sources]


def hash_files(blocks: Iterable["ImageBlock | TextBlock"]) -> Hashes:
    """Return the content keys of all files of some blocks, each file read once."""
    rows = [row for block in blocks if isinstance(block, ImageBlock) for row in block.sources]
    distinct = list(dict.fromkeys(ref for row in rows for ref in row or ()))
    return dict(zip(distinct, in_threads(_key_or_none, distinct), strict=True))  # hashing releases Python's lock


def image_block(
    name: str, spec: ImageSpec, refs: Sequence[ImageRef | None], parts: Sequence[ImageBlock] = ()
) -> ImageBlock:
    """Return the block that a spec's ``[images.NAME]`` describes; of a stack, `refs` are not read."""
    settings = {field: getattr(spec, field) for field in VIEW_FIELDS if field != "stack"}
    if parts or spec.view == "fourier":
        settings["convert"] = None
    if parts:
        rows = zip(*(part.refs for part in parts), strict=True)
        refs = [None if None in row else row[0] for row in rows]
    return ImageBlock(name=name, refs=tuple(refs), parts=tuple(parts), **settings)


@dataclass(frozen=True)
class TextBlock:
    """One text per row, None where the row has none."""

    name: str
    texts: tuple[str | None, ...]

    def keys(self, hashes: Hashes | None = None) -> list[str | None]:  # noqa: ARG002 - as an image block has it
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
        monotone: ``"increasing"``, ``"decreasing"`` or ``"none"``: how trees may let outputs depend on it.
    """

    name: str
    kind: Literal["numeric", "categorical"]
    values: NDArray[Any]
    transform: Literal["none", "log"] = "none"
    monotone: Literal["none", "increasing", "decreasing"] = "none"

    @property
    def is_missing(self) -> NDArray[np.bool_]:
        """bool ``(n,)``: rows whose cell is empty."""
        numeric = self.kind == "numeric"
        return np.array([np.isnan(value) if numeric else value is None for value in self.values], dtype=bool)


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
        root: All image files lie below it.
        bad_cells: Of rows to predict, why a metadata cell of theirs cannot be used, by id; it is empty in `metadata`.
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
    root: Path = Path()
    bad_cells: Mapping[str, str] = field(default_factory=dict)

    @property
    def n_rows(self) -> int:
        """The number of rows, n."""
        return len(self.ids)

    def take(self, rows: Sequence[int]) -> "Dataset":
        """Return the dataset of some rows, in the order of `rows`, with their labels."""
        index = np.asarray(rows, dtype=np.int64)
        return replace(
            self,
            ids=self.ids[index],
            groups=None if self.groups is None else self.groups[index],
            images={name: block.take(rows) for name, block in self.images.items()},
            texts={
                name: TextBlock(name, tuple(block.texts[row] for row in rows)) for name, block in self.texts.items()
            },
            metadata={name: replace(one, values=one.values[index]) for name, one in self.metadata.items()},
            tasks={name: task.take(index) for name, task in self.tasks.items()},
            given_split=None if self.given_split is None else self.given_split[index],
            bad_cells={row: self.bad_cells[row] for row in self.ids[index].tolist() if row in self.bad_cells},
        )

    def parts(self, n_rows: int) -> Iterator["Dataset"]:
        """Yield the dataset in pieces of up to `n_rows` rows, in order, to predict on; tasks stay behind."""
        unlabelled = replace(self, tasks={})
        for start in range(0, self.n_rows, n_rows):
            yield unlabelled.take(range(start, min(start + n_rows, self.n_rows)))

    def parts_of_progress(self, n_rows: int, progress: Progress | None) -> Iterator[tuple["Dataset", Progress]]:
        """Yield `parts`, each with a callback (done, to do) for it, which calls `progress` with rows of the whole."""
        before = 0
        for part in self.parts(n_rows):

            def advance(done: int, to_do: int, before: int = before, n_rows: int = part.n_rows) -> None:
                if progress is not None:
                    progress(before + n_rows * done // max(1, to_do), self.n_rows)

            yield part, advance
            before += part.n_rows


def _key_or_none(ref: ImageRef) -> str | None:
    try:
        return file_key(ref.path, ref.page)
    except OSError:
        return None


def _stacked(keys: Sequence[str | None]) -> str | None:
    known = [key for key in keys if key is not None]
    if len(known) < len(keys):
        return None
    return known[0] if len(known) == 1 else stack_key(known)
