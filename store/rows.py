"""Where a dataset's rows come from: a table, a table per part, a sheet per folder, or the images of class folders."""

import glob
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from store.errors import InputError, did_you_mean
from store.filenames import file_names, match_names
from store.sections import ColumnSpec
from store.spec import FILE, FOLDER, PLACEHOLDER, DatasetSpec
from store.table import find_column, missing_cells, read_table

IMAGE_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp")
_NOT_READ = (".webp", ".gif", ".heic", ".avif", ".jp2")
"""Listed all the same: their rows say why they have no vector, and nothing is left out in silence."""
NO_IMAGES = f"holds no images ({', '.join(IMAGE_SUFFIXES)}; listed, but not read: {', '.join(_NOT_READ)})"
SPLIT_WORDS = {"training": "train", "validation": "val", "valid": "val", "dev": "val", "testing": "test"}
"""What parts of a split are also called."""
_SHOWN = 5


class Listing(NamedTuple):
    """n rows: their columns, and the part that each is in where a split made elsewhere is given."""

    table: pd.DataFrame
    roles: NDArray[np.str_] | None


def read_rows(spec: DatasetSpec, folder: Path) -> Listing:
    """Return the rows that a spec describes, with the columns that it reads from file names.

    Args:
        spec: Names tables, or class folders below its root.
        folder: Where the spec lies.

    Raises:
        InputError: A table, sheet or folder is not there, is empty, or does not fit the others.
    """
    if spec.tables is not None:
        rows = _join({name: read_table(folder / name, spec.sheet) for name in spec.tables.given.values()})
        roles = np.repeat(list(spec.tables.given), [len(table) for table in rows])
        found = Listing(pd.concat(rows, ignore_index=True), roles)
    elif spec.has_sheets:
        found = Listing(pd.concat(_join(_read_sheets(spec, folder)), ignore_index=True), None)
    elif spec.table is not None:
        found = Listing(read_table(folder / spec.table, spec.sheet), None)
    else:
        found = _class_folders(spec, folder / spec.root)
    return found._replace(table=_with_columns(spec, found.table))


def list_images(spec: DatasetSpec, root: Path, place: str = ".") -> list[str]:
    """Return the paths of all images below a folder, relative to it and sorted; those of several blocks united.

    Args:
        spec: Its image blocks say which folders of the root are looked into.
        root: The folder of all images.
        place: The part of it to list.

    Raises:
        InputError: A folder is not there or cannot be read.
    """
    folders = {image.folder for image in spec.images.values() if image.stack is None}
    return sorted({path for folder in folders for path in _walk(root / folder / place)})


def sheet_of(spec: DatasetSpec, sheet: Path) -> tuple[Path, str] | None:
    """Return the root of a sheet's images, and the name of its folder; None where the path is of another form."""
    template = PurePosixPath(os.path.normpath(str(spec.table)))
    named = [part for part in template.parts if part != ".."]
    last = PurePosixPath(*sheet.parts[-len(named) :])
    match = _sheet_pattern(PurePosixPath(*named)).fullmatch(last.as_posix())
    if match is None:
        return None
    images = os.path.relpath(f"{spec.root}/{PLACEHOLDER}", template.parent).replace(PLACEHOLDER, match["folder"])
    return Path(os.path.normpath(sheet.parent / images)).parent, match["folder"]


def _join(tables: Mapping[str, pd.DataFrame]) -> list[pd.DataFrame]:
    first, *_ = tables
    for name, table in tables.items():
        if different := sorted(set(table.columns) ^ set(tables[first].columns)):
            raise InputError(f"{name}: has other columns than {first}: {', '.join(different)}")
    return list(tables.values())


def _sheet_pattern(template: PurePosixPath) -> re.Pattern[str]:
    first, *others = [re.escape(piece) for piece in template.as_posix().split(PLACEHOLDER)]
    return re.compile(first + "(?P<folder>[^/]+)" + "(?P=folder)".join(others))


def _read_sheets(spec: DatasetSpec, folder: Path) -> dict[str, pd.DataFrame]:
    template = PurePosixPath(os.path.normpath(str(spec.table)))
    paths = folder.glob("*".join(map(glob.escape, template.as_posix().split(PLACEHOLDER))))
    matches = [_sheet_pattern(template).fullmatch(path.relative_to(folder).as_posix()) for path in sorted(paths)]
    names = {match[0]: match["folder"] for match in matches if match and not match["folder"].startswith((".", "~$"))}
    if not names:
        raise InputError(f"{spec.table}: there is no such sheet in any folder of {folder}; correct table")
    _check_folders(spec, folder / spec.root, set(names.values()))
    return {sheet: _with_folder(sheet, read_table(folder / sheet, spec.sheet), name) for sheet, name in names.items()}


def _with_folder(sheet: str, table: pd.DataFrame, name: str) -> pd.DataFrame:
    if FOLDER in table:
        raise InputError(f"{sheet}: has a column {FOLDER!r}, the name of the column for its folder; rename it")
    return table.assign(**{FOLDER: name})


def _check_folders(spec: DatasetSpec, root: Path, with_sheet: set[str]) -> None:
    """See to it that every sheet has its folder and, in a root of their own, every folder of images its sheet."""
    for name in sorted(with_sheet):
        if not (root / name).is_dir():
            sheet = str(spec.table).replace(PLACEHOLDER, name)
            raise InputError(f"{sheet}: has no folder of images {root / name}; correct root, or rename one of them")
    own_root = os.path.normpath(spec.root) != "."
    for name in sorted(set(_subfolders(root)) - with_sheet) if own_root else []:
        if next(_walk(root / name), None) is not None:
            sheet = str(spec.table).replace(PLACEHOLDER, name)
            raise InputError(f"folder {root / name} has images and no sheet {sheet}; add it, or move the folder away")


def _class_folders(spec: DatasetSpec, root: Path) -> Listing:
    parts = {"train": "."} if spec.folders is None else spec.folders.given
    paths = {role: list_images(spec, root, place) for role, place in parts.items()}
    classes = {role: [path.partition("/")[0] if "/" in path else "" for path in paths[role]] for role in parts}
    if not any(paths.values()):
        raise InputError(f"{root}: {NO_IMAGES}; correct root, or give table = …")
    if any(FOLDER in task.sources for task in spec.tasks.values()):
        _check_classes(spec, root, {parts[role]: set(found) - {""} for role, found in classes.items()})
    files = [os.path.normpath(f"{parts[role]}/{path}") for role in parts for path in paths[role]]
    table = pd.DataFrame({FILE: files, FOLDER: [name for role in parts for name in classes[role]]}, dtype=str)
    roles = None if spec.folders is None else np.repeat(list(parts), [len(found) for found in paths.values()])
    return Listing(table, roles)


def _check_classes(spec: DatasetSpec, root: Path, classes: Mapping[str, set[str]]) -> None:
    """See to it that class folders are no parts of a split, that none is empty, and that train has every class."""
    train, *others = classes
    words = {*SPLIT_WORDS, *SPLIT_WORDS.values()}
    if spec.folders is None and classes[train] and {name.lower() for name in classes[train]} <= words:
        raise InputError(f"{root}: {_list(classes[train])} look like the parts of a split; name them under [folders]")
    for place, found in classes.items():
        if not found:
            raise InputError(f"{root / place}: has no class folders with images; correct root or [folders]")
        bases = [root / image.folder / place for image in spec.images.values() if image.stack is None]
        if empty := {name for base in bases for name in _subfolders(base)} - found:
            raise InputError(
                f"{root / place}: no images in class folder {_list(empty)}; add some, or remove the folder"
            )
    for place in others:
        if unknown := classes[place] - classes[train]:
            remedy = f"add images to {train}, or take the folder out"
            raise InputError(f"{root}: class folder {_list(unknown)} is in {place} and not in {train}; {remedy}")


def _with_columns(spec: DatasetSpec, table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with the columns that ``[columns.NAME]`` makes."""
    for name, column in spec.columns.items():
        if name in table:
            raise InputError(f"[columns.{name}]: the table has a column {name!r} already; rename one of them")
        try:
            table = table.assign(**{name: _made_column(spec, table, column)})
        except InputError as error:
            raise InputError(f"[columns.{name}]: {error}") from None
    return table


def _made_column(spec: DatasetSpec, table: pd.DataFrame, column: ColumnSpec) -> pd.Series:
    if column.pattern is not None:
        return match_names(column.pattern, file_names(spec, table, column.image))
    missing = missing_cells(find_column(table, column.filled or 0))
    return pd.Series(np.where(missing, "no", "yes"), index=table.index)


def _walk(base: Path) -> Iterator[str]:
    """Yield the images below a folder, relative to it; hidden ones are left out, links are followed."""
    if not base.is_dir():
        near = did_you_mean(base.name, _subfolders(base.parent))
        raise InputError(f"there is no image folder {base}; correct root or folder.{near}")
    for place, folders, files in os.walk(base, onerror=_refuse, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".") and not _leads_back(place, name)]
        inside = Path(place).relative_to(base).as_posix()
        for name in files:
            if name.lower().endswith(IMAGE_SUFFIXES + _NOT_READ) and not name.startswith("."):
                yield name if inside == "." else f"{inside}/{name}"


def _leads_back(place: str, name: str) -> bool:
    """Whether a folder is a link to one that was passed on the way to it."""
    link = Path(place, name)
    return link.is_symlink() and link.resolve() in {folder.resolve() for folder in link.parents}


def _refuse(error: OSError) -> None:
    raise InputError(f"{error.filename}: cannot be listed ({(error.strerror or str(error)).lower()})")


def _subfolders(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return [path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]


def _list(names: Iterable[str]) -> str:
    shown = sorted(names)
    return ", ".join(shown[:_SHOWN]) + (", …" if len(shown) > _SHOWN else "")
