"""The dataset spec: every key of ``dataset.toml``, its default and its meaning."""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ValidationError, model_validator

from store.errors import InputError, did_you_mean
from store.problems import spec_problems
from store.sections import (
    STRICT,
    BlockName,
    Column,
    ColumnSpec,
    ImageName,
    ImageSpec,
    MetadataSpec,
    PartsSpec,
    TaskSpec,
    TextSpec,
)

FILE, FOLDER = "file", "folder"
"""The columns that class folders have instead of a table: a path, and the folder that it lies in. Sheets of their own
add the second to their columns."""
PLACEHOLDER = "{folder}"


class DatasetSpec(BaseModel):
    """A whole ``dataset.toml``."""

    model_config = STRICT

    name: str
    table: str | None = None
    """A file; or, with ``{folder}`` in it, a sheet per folder of images, such as ``images/{folder}/labels.xlsm``."""
    tables: PartsSpec | None = None
    folders: PartsSpec | None = None
    """Without a table: where in the root the class folders of each part lie."""
    sheet: str | None = None
    root: str = "."
    id: Column | None = None
    group: Column | None = None
    weight: Column | None = None
    """Sample weights: how much each row counts in fitting. Scores stay unweighted."""
    split: Column | None = None
    """A column of train / val / test; another value names a further held-out set."""
    sample: str | None = None
    """Set by the `sample` command: extraction goes on with random weights when the hub is out of reach."""
    columns: dict[BlockName, ColumnSpec] = {}
    images: dict[ImageName, ImageSpec] = {}
    texts: dict[BlockName, TextSpec] = {}
    metadata: dict[BlockName, MetadataSpec] = {}
    tasks: dict[BlockName, TaskSpec] = {}
    finetune: dict[str, Any] = {}
    """``[finetune]``: the keys of `finetune.settings`, checked there."""

    @property
    def has_table(self) -> bool:
        """Whether a table lists the rows; otherwise the images of the class folders are the rows."""
        return self.table is not None or self.tables is not None

    @property
    def has_sheets(self) -> bool:
        """Whether each folder of images has a sheet of its own."""
        return self.table is not None and PLACEHOLDER in self.table

    @model_validator(mode="before")
    @classmethod
    def _class_folders_have_files(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        if values.get("folders") is None and any(values.get(name) is not None for name in ("table", "tables")):
            return values
        parts = values.get("images")
        if not isinstance(parts, Mapping) or not all(isinstance(part, Mapping) for part in parts.values()):
            return values
        filled = {name: part if "stack" in part else {"column": FILE, **part} for name, part in parts.items()}
        return {"id": FILE, **values, "images": filled}

    @model_validator(mode="before")
    @classmethod
    def _metadata_is_named_like_its_column(cls, values: Any) -> Any:
        parts = values.get("metadata") if isinstance(values, Mapping) else None
        if not isinstance(parts, Mapping) or not all(isinstance(part, Mapping) for part in parts.values()):
            return values
        sources = {"column", "pattern", "tag"}
        filled = {name: part if sources & set(part) else {"column": name, **part} for name, part in parts.items()}
        return {**values, "metadata": filled}

    def unit_of(self, task: str) -> str | None:
        """Return the unit of a task's numbers; None where there is none, or no such task."""
        return self.tasks[task].unit if task in self.tasks else None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if problems := [*self._row_problems(), *self._block_problems(), *self._reader_problems()]:
            raise ValueError("; ".join(problems))
        return self

    def _row_problems(self) -> Iterator[str]:
        sources = [name for name in ("table", "tables", "folders") if getattr(self, name) is not None]
        if len(sources) > 1:
            yield f"{' and '.join(sources)} both say where the rows come from: keep one"
        if self.split is not None and sources in (["tables"], ["folders"]):
            yield f"split and [{sources[0]}] both say how rows are divided: keep one"
        for name in [self.table or "", *(self.tables.given.values() if self.tables else ())]:
            if set(re.findall(r"{.*?}", name)) - ({PLACEHOLDER} if name == self.table else set()):
                yield f"{name!r}: only {PLACEHOLDER} can stand for a name, and only in table"
        if not self.has_table:
            yield from self._class_folder_problems()

    def _class_folder_problems(self) -> Iterator[str]:
        if not self.images:
            yield "there is neither a table nor an [images.NAME], so there are no rows; give table = …"
        elif self.folders is None and os.path.normpath(self.root) == ".":
            yield "needs either table, [tables], or as root the folder that holds the class folders"
        for name, image in self.images.items():
            if image.column not in (None, FILE):
                yield (
                    f"[images.{name}] reads column {image.column!r}, and there is no table; give table = …, or leave "
                    "column out where the images of class folders are the rows"
                )

    def _block_problems(self) -> Iterator[str]:
        blocks = [("texts", name, text.from_filename) for name, text in self.texts.items()]
        blocks += [("metadata", name, meta.image) for name, meta in self.metadata.items()]
        blocks += [("columns", name, column.image) for name, column in self.columns.items()]
        for part, name, block in blocks:
            if block is not None and block not in self.images:
                yield f"[{part}.{name}] names image block {block!r}{_known(self.images, block)}"
        for name, image in self.images.items():
            for part in image.stack or ():
                if part not in self.images:
                    yield f"[images.{name}] stacks image block {part!r}{_known(self.images, part)}"
                elif self.images[part].stack is not None:
                    yield f"[images.{name}] stacks {part!r}, which is a stack itself; name its blocks"

    def _reader_problems(self) -> Iterator[str]:
        readers = [column.pattern for column in self.columns.values()]
        readers += [meta.pattern or meta.tag for meta in self.metadata.values()]
        if not self.images and any(readers):
            yield "a pattern or tag reads image files, and there is no [images.NAME]"
        inputs = [("texts", name, text.column) for name, text in self.texts.items()]
        inputs += [("metadata", name, meta.column) for name, meta in self.metadata.items()]
        for part, name, column in inputs:
            if column in self.columns:
                remedy = f"let [{part}.{name}] itself read what that reads"
                yield f"[{part}.{name}] needs [columns.{column}], which new files do not have; {remedy}"


def parse_spec(values: Mapping[str, Any], source: str, *, folder: Path | None = None) -> DatasetSpec:
    """Check a spec and return it.

    Args:
        values: The parsed TOML (or JSON of a bundle).
        source: What to call it in messages.
        folder: Where it lies; its tables and its root are to be there.

    Raises:
        InputError: With every problem at once, misspelt keys with the nearest right one.
    """
    absent = [] if folder is None else absent_tables(values, folder)
    wrong: list[str] = []
    try:
        spec = DatasetSpec.model_validate(values)
    except ValidationError as error:
        wrong = spec_problems(error, DatasetSpec, _PARTS)
    if wrong or absent:
        absent += [] if folder is None else absent_root(values, folder)
        raise InputError(f"{source}: " + "; ".join([*wrong, *absent]))
    return spec


def absent_tables(values: Mapping[str, Any], folder: Path) -> list[str]:
    """Return which of the tables that a spec names, right or wrong as it may be, are not there."""
    parts = values.get("tables")
    names = [values.get("table"), *(parts.values() if isinstance(parts, Mapping) else ())]
    paths = [folder / name for name in names if isinstance(name, str) and not re.search("{.*}", name)]
    return [f"{path}: there is no such table{_near(path)}" for path in paths if not path.is_file()]


def absent_root(values: Mapping[str, Any], folder: Path) -> list[str]:
    """Return that a spec's root is not there."""
    root = values.get("root", ".")
    if not isinstance(root, str) or (folder / root).is_dir():
        return []
    return [f"there is no image folder {folder / root}; correct root{_near(folder / root)}"]


def read_spec(path: Path) -> DatasetSpec:
    """Read and check a ``dataset.toml``, and whether the tables it names are there.

    Raises:
        InputError: No such file, no TOML, not a valid spec, or no such table.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot read it ({_reason(error)}); give --data a dataset.toml") from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: is no valid TOML: {error}") from None
    return parse_spec(values, str(path), folder=path.resolve().parent)


def _near(path: Path) -> str:
    """Return what lies beside a path that is not there and has nearly its name."""
    beside = [one.name for one in path.parent.iterdir()] if path.parent.is_dir() else []
    hint = did_you_mean(path.name, beside)
    return f".{hint}" if hint else ""


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return (error.strerror or str(error)).lower() if isinstance(error, OSError) else "no UTF-8 text"


def _known(names: Mapping[str, Any], wrong: str) -> str:
    hint = did_you_mean(wrong, names)
    return f", which is not there.{hint}" if hint else f", which is not there (there is: {', '.join(names) or 'none'})"


_PARTS: dict[str, type[BaseModel]] = {
    "images": ImageSpec,
    "texts": TextSpec,
    "metadata": MetadataSpec,
    "tasks": TaskSpec,
    "tables": PartsSpec,
    "folders": PartsSpec,
    "columns": ColumnSpec,
}
