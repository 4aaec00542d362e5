"""Copies of images with what was predicted for them written below."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from extract.decode import ImageError
from extract.sheet import row_picture, with_words
from store import Dataset, ImageBlock, ImageRef, InputError, write_error

if TYPE_CHECKING:
    from pandas import DataFrame

Words = Callable[[Mapping[str, Any]], Sequence[str]]
"""What to draw for a row of the predictions, line by line."""


class _Copy(NamedTuple):
    path: Path
    block: ImageBlock
    row: int
    lines: Sequence[str]


class Drawing:
    """A folder of copies, PNGs, in the same folders below it as the originals.

    Attributes:
        folder: Where they go.
        n_drawn: Copies written.
        left_out: Why a row has no copy, by its id.
    """

    def __init__(self, folder: Path, source: Path) -> None:
        """Begin with nothing drawn.

        Args:
            folder: Made when the first copy is.
            source: What is predicted: a folder, or a table.
        """
        self.folder, self._source = folder, source
        self.n_drawn = 0
        self.left_out: dict[str, str] = {}
        self._taken: set[str] = set()

    def draw(self, tables: Iterable["DataFrame"], dataset: Dataset, words: Words) -> Iterator["DataFrame"]:
        """Yield tables of predictions as they come, each once its rows are drawn.

        Args:
            tables: Below each other they have the dataset's rows, with ``id`` and ``status``.
            dataset: n rows; a file that several blocks read is drawn once, as the first of them sees it.
            words: What to draw.

        Raises:
            InputError: The copies would lie among the originals, there is no image, or they cannot be written.
            StoreError: The disk is full.
        """
        self._check(dataset)
        start = 0
        for table in tables:
            copies: list[_Copy] = []
            for row, predicted in enumerate(table.to_dict("records"), start):
                if predicted["status"] == "ok":
                    copies += self._copies(dataset, row, words(predicted))
                else:
                    self.left_out[str(predicted["id"])] = str(predicted["status"])
            self._write(copies, dataset)
            start += len(table)
            yield table

    def document(self) -> dict[str, Any]:
        """Return what was drawn as JSON values."""
        return {"folder": str(self.folder), "images": self.n_drawn, "left_out": self.left_out}

    def _check(self, dataset: Dataset) -> None:
        folder = self.folder.resolve()
        if not dataset.images:
            raise InputError("--draw: the bundle reads no images; leave it out")
        refs = chain.from_iterable(block.refs for block in dataset.images.values())
        is_among = folder.is_relative_to(self._source.resolve())
        if is_among or any(ref.path.is_relative_to(folder) for ref in refs if ref is not None):
            raise InputError(f"--draw {self.folder}: the images to predict on lie there; give a folder of its own")

    def _copies(self, dataset: Dataset, row: int, lines: Sequence[str]) -> list[_Copy]:
        """Return a copy to make of each file of a row."""
        blocks: dict[ImageRef, ImageBlock] = {}
        for block in dataset.images.values():
            if (ref := block.refs[row]) is not None:
                blocks.setdefault(ref, block)
        return [_Copy(self._new_path(ref, dataset.root), block, row, lines) for ref, block in blocks.items()]

    def _new_path(self, ref: ImageRef, root: Path) -> Path:
        """Return the original's path below the folder, its suffix kept (``a.tif`` beside ``a.png``) and never twice."""
        page = "" if ref.page is None else f".page{ref.page}"
        name = f"{ref.path.relative_to(root)}{page}"
        name = next(one for one in chain([name], (f"{name}.{i}" for i in count(2))) if one not in self._taken)
        self._taken.add(name)
        return self.folder / f"{name}.png"

    def _write(self, copies: Sequence[_Copy], dataset: Dataset) -> None:
        with ThreadPoolExecutor() as pool:
            for copy, reason in zip(copies, pool.map(_write_copy, copies), strict=True):
                if reason is None:
                    self.n_drawn += 1
                else:
                    self.left_out[str(dataset.ids[copy.row])] = reason


def _write_copy(copy: _Copy) -> str | None:
    """Write one copy; return why not where its image cannot be read."""
    try:
        picture = with_words(row_picture(copy.block, copy.row), copy.lines)
    except ImageError as error:
        return str(error)
    try:
        copy.path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(copy.path)
    except OSError as error:
        raise write_error(copy.path, error) from None
    return None
