"""From a folder or a table of new rows to a `Dataset` to predict on."""

from pathlib import Path

import pandas as pd

from store.dataset import Dataset
from store.errors import InputError
from store.reader import read_new_rows
from store.rows import NO_IMAGES, list_images, sheet_of
from store.spec import FILE, FOLDER, DatasetSpec
from store.table import read_table


def prediction_dataset(spec: DatasetSpec, source: Path) -> Dataset:
    """Return a dataset without tasks to predict on.

    Args:
        spec: The spec that a bundle was fitted on.
        source: A table with the same columns, its images under the same root relative to it (beside it, where the
            root is an absolute path that is not there); or a folder, each of whose images is a row with its relative
            path as id. Metadata cells that no model can read are noted in
            `bad_cells`; all other rows are predicted.

    Raises:
        InputError: Neither of both, no images, or the folder cannot give what the blocks need.
    """
    source = source.resolve()
    spec = spec.model_copy(update={"columns": {}, "tasks": {}, "group": None, "split": None, "folders": None})
    if source.is_dir():
        spec, table, root = _as_folder(spec, source), _list_folder(spec, source), source
    elif source.is_file():
        spec, table, root = _as_table(spec, source)
    else:
        raise InputError(f"{source}: there is no such folder or table to predict on")
    return read_new_rows(spec, table, source.parent, root.resolve())


def _as_folder(spec: DatasetSpec, source: Path) -> DatasetSpec:
    images = {
        name: block if block.stack else block.model_copy(update={"column": 0}) for name, block in spec.images.items()
    }
    names = {"table": source.name, "tables": None, "id": 0, "root": "."}
    return spec.model_copy(update={**names, "images": images})


def _as_table(spec: DatasetSpec, source: Path) -> tuple[DatasetSpec, pd.DataFrame, Path]:
    table = read_table(source, spec.sheet)
    sheet = sheet_of(spec, source) if spec.has_sheets else None
    if sheet is not None:
        return spec, table.assign(**{FOLDER: sheet[1]}), sheet[0]
    return spec.model_copy(update={"table": source.name, "tables": None}), table, _root_beside(spec, source)


def _root_beside(spec: DatasetSpec, source: Path) -> Path:
    """Return where the images of a table to predict on lie; an absolute root may be another machine's."""
    root = source.parent / spec.root
    return source.parent if Path(spec.root).is_absolute() and not root.is_dir() else root


def _list_folder(spec: DatasetSpec, source: Path) -> pd.DataFrame:
    needs = [f"[texts.{name}]" for name, text in spec.texts.items() if text.column is not None]
    needs += [f"[metadata.{name}]" for name, meta in spec.metadata.items() if meta.column is not None]
    if needs:
        raise InputError(f"{source}: {', '.join(needs)} come from a column, which a folder has not; give a table")
    for name, block in spec.images.items():
        if block.stack is None and not (source / block.folder).is_dir():
            raise InputError(_lacks_folder(source, name, block.folder))
    found = list_images(spec, source)
    if not found:
        raise InputError(f"{source}: {NO_IMAGES}; give the folder that has them, or a table")
    return pd.DataFrame({FILE: found})


def _lacks_folder(source: Path, name: str, folder: str) -> str:
    """Say that a folder to predict on does not hold what an image block lies in; it may be that very folder."""
    parts = Path(folder).parts
    is_it = source.parts[-len(parts) :] == parts
    remedy = f"give {source.parents[len(parts) - 1]}" if is_it else "give a folder that has it, or a table"
    return f"{source}: has to hold the folder {folder}, as [images.{name}] folder = {folder!r} says; {remedy}"
