"""From a ``dataset.toml`` and the rows that it names to a checked `Dataset`."""

import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from store.condition import evaluate, is_known, values_words
from store.dataset import Dataset, ImageBlock, ImageRef, MetadataColumn, TextBlock, image_block
from store.errors import InputError
from store.filenames import file_names, match_names, name_words
from store.rows import SPLIT_WORDS, read_rows
from store.scale import read_scales
from store.section import counted
from store.sections import Column, ImageSpec, MetadataSpec, TaskSpec, TextSpec
from store.spec import FOLDER, DatasetSpec, read_spec
from store.table import find_column, missing_cells, to_number, to_text
from store.task import Task
from store.units import nm_per

MAX_INTEGER_CLASSES = 20
"""Whole numbers with at most this many values are classes, more of them a quantity, unless `kind` says so."""
_SHOWN = 5
R = TypeVar("R")


def load_dataset(path: Path) -> Dataset:
    """Read a ``dataset.toml`` and all it names, and check it.

    Raises:
        InputError: With every problem at once: missing tables, columns and cells, duplicate ids, unknown classes.
    """
    spec = read_spec(path)
    folder = path.resolve().parent
    rows = read_rows(spec, folder)
    return _Reader(spec, rows.table, folder, folder / spec.root).dataset(given_split=rows.roles)


def read_new_rows(spec: DatasetSpec, table: pd.DataFrame, folder: Path, root: Path) -> Dataset:
    """Return the dataset of a table of rows to predict, whose images lie below `root`.

    Raises:
        InputError: With every problem at once; metadata cells that cannot be used are noted in `bad_cells` instead.
    """
    return _Reader(spec, table, folder, root, is_to_predict=True).dataset(given_split=None)


class _Reader:
    """Turns one table into a dataset; problems are collected and raised together.

    Of rows to predict, metadata cells that cannot be used are noted in `bad_cells` instead.
    """

    def __init__(
        self,
        spec: DatasetSpec,
        table: pd.DataFrame,
        folder: Path,
        root: Path,
        *,
        is_to_predict: bool = False,
    ) -> None:
        self.spec, self.table, self.folder, self.root = spec, table, folder, root
        self.is_to_predict, self.bad_cells = is_to_predict, dict[str, str]()
        self.inside = os.path.join(os.path.normpath(root), "")  # noqa: PTH118 - ends with a slash
        self.problems: list[str] = []
        self.images: dict[str, ImageBlock] = {}
        self.ids = np.arange(len(table)).astype(str)

    def dataset(self, *, given_split: NDArray[np.str_] | None) -> Dataset:
        spec = self.spec
        if spec.id is not None:
            self.ids = self.read("id", self.read_ids, spec.id)
        stacks_last = sorted(spec.images.items(), key=lambda item: item[1].stack is not None)
        found = {name: self.read(f"[images.{name}]", self.image_block, name, p) for name, p in stacks_last}
        images = {name: found[name] for name in spec.images}
        texts = {name: self.read(f"[texts.{name}]", self.text_block, name, p) for name, p in spec.texts.items()}
        metadata = {name: self.read(f"[metadata.{name}]", self.metadata, name, p) for name, p in spec.metadata.items()}
        tasks = {name: self.read(f"[tasks.{name}]", self.task, name, p) for name, p in spec.tasks.items()}
        groups = None if spec.group is None else self.read("group", self.complete_text, spec.group)
        if spec.split is not None:
            given_split = self.read("split", self.split_roles, spec.split)
        if self.problems:
            raise InputError(f"dataset {spec.name!r}: " + "; ".join(self.problems))
        return Dataset(
            spec,
            self.folder,
            self.ids,
            groups,
            images,
            texts,
            metadata,
            tasks,
            given_split,
            Path(self.inside),
            self.bad_cells,
        )

    def read(self, where: str, build: Callable[..., R], *args: Any) -> R:
        """Return what `build` makes; on an `InputError` note it for `dataset` to raise, and go on."""
        try:
            return build(*args)
        except InputError as error:
            self.problems.append(f"{where}: {error}")
            return cast(R, self.ids)

    def column(self, column: Column) -> pd.Series:
        return find_column(self.table, column)

    def rows(self, where: NDArray[np.bool_]) -> str:
        shown = ", ".join(self.ids[where][:_SHOWN])
        return f"{counted(int(where.sum()), 'row')} ({shown}{', …' if where.sum() > _SHOWN else ''})"

    def complete_text(self, column: Column) -> NDArray[np.str_]:
        texts = to_text(self.column(column))
        empty = np.array([text is None for text in texts])
        if empty.any():
            raise InputError(f"column {column!r} is empty in {self.rows(empty)}; fill it in")
        return np.asarray(texts, dtype=np.str_)

    def read_ids(self, column: Column) -> NDArray[np.str_]:
        ids = self.complete_text(column)
        if self.spec.has_sheets:
            ids = np.array([f"{folder}/{id_}" for folder, id_ in zip(self.table[FOLDER], ids, strict=True)])
        distinct, counts = np.unique(ids, return_counts=True)
        if (counts > 1).any():
            twice = distinct[counts > 1]
            shown = ", ".join(twice[:_SHOWN])
            raise InputError(f"{len(twice)} ids of column {column!r} stand in several rows ({shown}); make them unique")
        return ids

    def split_roles(self, column: Column) -> NDArray[np.str_]:
        words = [word.lower() for word in self.complete_text(column)]
        roles = np.array([SPLIT_WORDS.get(word, word) for word in words])
        if not (roles == "train").any():
            raise InputError(f"column {column!r} has no row 'train'; it has {', '.join(sorted(set(roles))[:_SHOWN])}")
        return roles

    def image_block(self, name: str, spec: ImageSpec) -> ImageBlock:
        if spec.column is None:
            return self.stack(name, spec)
        refs = tuple(self.image_ref(*path, spec.page) for path in self.paths(spec, spec.column))
        first = next((ref.path for ref in refs if ref), None)
        if first and not any(ref.path.exists() for ref in refs if ref):
            raise InputError(f"none of its files exists, {first} for one; correct root, folder or column")
        self.images[name] = image_block(name, spec, refs)
        return self.images[name]

    def paths(self, spec: ImageSpec, column: Column) -> Iterator[tuple[str, str | None]]:
        """Return the folder that each row's path is relative to, and the path."""
        base = self.root / spec.folder
        if not self.spec.has_sheets and not base.is_dir():
            what = "put the images there" if self.is_to_predict else "correct root or folder"
            raise InputError(f"there is no image folder {base}; {what}")
        cells = to_text(self.column(column))
        if not self.spec.has_sheets:
            return zip(itertools.repeat(str(base)), cells, strict=False)
        bases = {name: str(self.root / name / spec.folder) for name in self.table[FOLDER].unique()}
        return zip(self.table[FOLDER].map(bases), cells, strict=True)

    def stack(self, name: str, spec: ImageSpec) -> ImageBlock:
        missing = [part for part in spec.stack or () if part not in self.images]
        if missing:  # its own problem is reported
            raise InputError(f"cannot be stacked without [images.{missing[0]}]")
        self.images[name] = image_block(name, spec, (), [self.images[part] for part in spec.stack or ()])
        return self.images[name]

    def image_ref(self, base: str, text: str | None, page: int | None) -> ImageRef | None:
        if text is None:
            return None
        file, mark, number = text.rpartition("#")
        if mark and number.isdecimal():
            text, page = file, int(number)
        path = os.path.normpath(os.path.join(base, text))  # noqa: PTH118 - of 200,000 rows, in a third of the time
        if not path.startswith(self.inside):
            raise InputError(f"{text!r} leaves the root {self.root}; keep images inside it, or set root higher")
        return ImageRef(path, page)

    def text_block(self, name: str, spec: TextSpec) -> TextBlock:
        if spec.column is not None:
            return TextBlock(name, tuple(to_text(self.column(spec.column))))
        return TextBlock(name, tuple(file and name_words(file) for file in self.file_names(spec.from_filename)))

    def file_names(self, block: str | None) -> list[str | None]:
        return file_names(self.spec, self.table, block)

    def metadata(self, name: str, spec: MetadataSpec) -> MetadataColumn:
        if spec.tag is not None:
            block = self.images.get(spec.image or next(iter(self.spec.images)))
            scales = read_scales(block.refs, spec.tag) if block else np.empty(0)  # a block that failed is reported
            return MetadataColumn(name, "numeric", scales, spec.transform, spec.monotone)
        cells = self.cells(spec)
        if self.is_to_predict and spec.kind != "categorical":
            cells = self.without_bad(name, cells, spec)
        if spec.kind == "categorical" or (spec.kind is None and self.is_categorical(cells)):
            if wish := _numeric_wish(spec):
                raise InputError(f"{wish} needs numbers, and the column has none{_first_word(cells)}")
            return MetadataColumn(name, "categorical", to_text(cells))
        values = self.numbers(cells) * (nm_per(spec.unit) or 1.0)
        if spec.transform == "log" and (low := values <= 0).any():
            raise InputError(f"transform = 'log' needs values above 0; {self.rows(low)} have not")
        return MetadataColumn(name, "numeric", values, spec.transform, spec.monotone)

    def cells(self, spec: MetadataSpec) -> pd.Series:
        if spec.column is not None:
            return self.column(spec.column)
        return match_names(str(spec.pattern), self.file_names(spec.image))

    def without_bad(self, name: str, cells: pd.Series, spec: MetadataSpec) -> pd.Series:
        """Return cells, empty where they are no number or have no logarithm, which is noted; words alone stay."""
        values = to_number(cells)
        if spec.kind is None and not np.isfinite(values).any():
            return cells
        no_number = ~missing_cells(cells) & ~np.isfinite(values)
        no_log = (values <= 0) & (spec.transform == "log")
        for bad, why in ((no_number, "is no number"), (no_log, "has no logarithm")):
            for row in np.flatnonzero(bad):
                self.bad_cells.setdefault(str(self.ids[row]), f"metadata {name!r}: {str(cells.iloc[row])!r} {why}")
        return cells.mask(no_number | no_log)

    def is_categorical(self, cells: pd.Series) -> bool:
        numbers, words = ~np.isnan(to_number(cells)), np.isnan(to_number(cells)) & ~missing_cells(cells)
        if numbers.any() and words.any():
            word = str(cells[words].iloc[0])
            raise InputError(f"numbers and words ({word!r} in {self.rows(words)}) are mixed; correct them or set kind")
        return not numbers.any()

    def numbers(self, cells: pd.Series) -> NDArray[np.float64]:
        values, missing = to_number(cells), missing_cells(cells)
        words = np.isnan(values) & ~missing
        if words.any():
            word = str(cells[words].iloc[0])
            raise InputError(f"{word!r} is no number, in {self.rows(words)}; correct the cells or leave them empty")
        if np.isinf(values).any():
            raise InputError(f"infinite values in {self.rows(np.isinf(values))}; correct the cells or leave them empty")
        return values

    def task(self, name: str, spec: TaskSpec) -> Task:
        columns = [self.column(column) for column in spec.sources]
        names = tuple(str(column.name) for column in columns)
        applies = np.ones(len(self.ids), bool) if spec.when is None else evaluate(spec.when, self.table)
        if spec.when is not None and not applies.any():
            raise InputError(f"when = {spec.when!r} holds in no row; {values_words(spec.when, self.table)}")
        kind = spec.kind or ("regression" if len(columns) > 1 else _infer_kind(columns[0], spec))
        classes: tuple[str, ...] = ()
        if kind == "classification":
            y, classes = self.labels(columns[0], spec.classes)
        else:
            y = np.stack([self.numbers(column) for column in columns], axis=1)
        if spec.class_weight is not None and kind == "regression":
            raise InputError(f"class_weight = {spec.class_weight!r} belongs to a classification; these are numbers")
        task = Task(
            name=name,
            kind=kind,
            columns=names,
            classes=classes,
            y=y,
            when=spec.when,
            applies=applies,
            weights=np.array(spec.weights or [1.0] * len(columns)),
            class_weight=spec.class_weight,
            is_known=None if spec.when is None else is_known(spec.when, self.table),
        )
        if not task.labelled.any():
            raise InputError("no row has a label")
        return replace(task, sample_weight=self.sample_weight(spec, task.labelled))

    def sample_weight(self, spec: TaskSpec, labelled: NDArray[np.bool_]) -> NDArray[np.float64] | None:
        column = self.spec.weight if spec.weight is None else spec.weight
        if column is None:
            return None
        values = self.numbers(self.column(column))
        wrong = labelled & ~(values > 0)
        if wrong.any():
            row = int(np.argmax(wrong))
            shown = "is empty" if np.isnan(values[row]) else f"is {values[row]:g}"
            raise InputError(
                f"weight {column!r} {shown} in {self.rows(wrong)}; sample weights are positive numbers. "
                "Fill them in, or leave rows out by emptying their label."
            )
        return values

    def labels(self, cells: pd.Series, given: Sequence[str] | None) -> tuple[NDArray[np.int64], tuple[str, ...]]:
        texts = to_text(cells)
        if given is not None:  # a word such as "NA" may be a class when the spec says so
            stripped = cells.astype(str).str.strip()
            texts[stripped.isin(given)] = stripped[stripped.isin(given)]
        classes = tuple(given or sorted({text for text in texts if text is not None}, key=_by_number))
        place = {name: i for i, name in enumerate(classes)}
        foreign = np.array([text is not None and text not in place for text in texts])
        if foreign.any():
            row = int(np.argmax(foreign))
            raise InputError(
                f"class {texts[row]!r} in row '{self.ids[row]}' is not one of {', '.join(classes)}. "
                "Correct the table or add it to classes."
            )
        if not classes:
            raise InputError("no row has a label")
        if len(classes) < 2:
            raise InputError(f"only one class ({', '.join(classes)}); a classification needs two")
        return np.array([-1 if text is None else place[text] for text in texts], dtype=np.int64), classes


def _is_numeric(cells: pd.Series) -> bool:
    present = ~missing_cells(cells)
    return bool(present.any()) and not np.isnan(to_number(cells)[present]).any()


def _infer_kind(cells: pd.Series, spec: TaskSpec) -> Any:
    if spec.classes is not None or not _is_numeric(cells) or pd.api.types.is_bool_dtype(cells):
        return "classification"
    values = to_number(cells)
    values = values[~np.isnan(values)]
    whole = bool((values % 1 == 0).all())
    return "classification" if whole and len(np.unique(values)) <= MAX_INTEGER_CLASSES else "regression"


def _by_number(word: str) -> tuple[float, str]:
    try:
        return float(word), word
    except ValueError:
        return math.inf, word


def _first_word(cells: pd.Series) -> str:
    words = cells[~missing_cells(cells)]
    return f" ({words.iloc[0]!r} for one)" if len(words) else ""


def _numeric_wish(spec: MetadataSpec) -> str:
    """Return the first key of a section that only numbers can have; nothing where there is none."""
    wishes = {
        "transform = 'log'": spec.transform == "log",
        f"unit = {spec.unit!r}": spec.unit is not None,
        f"monotone = {spec.monotone!r}": spec.monotone != "none",
    }
    return next((wish for wish, is_there in wishes.items() if is_there), "")
