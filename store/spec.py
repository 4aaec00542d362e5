"""The dataset spec: every key of ``dataset.toml``, its default and its meaning."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from store.errors import InputError, did_you_mean
from store.space import INFO_BAR, Crop
from store.units import NM_PER_UNIT, nm_per
from store.view import check_tiles, check_view

Column = str | int
"""A column's name, or its position counted from 0."""

BlockName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")]
ImageName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*(\.[A-Za-z0-9_.-]+)?$")]
"""What follows a dot tells variants of one image apart: ``bf.log``, ``bf.fourier``."""


def _crop(value: Any) -> Any:
    if value in ("auto", INFO_BAR):
        return INFO_BAR
    if type(value) is int and value >= 0:
        return value
    raise ValueError(f"needs a number of rows from 0 on, or 'auto' (got {value!r})")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ImageSpec(_Part):
    """``[images.NAME]``: one image modality, or another view of one."""

    column: Column | None = None
    stack: tuple[str, ...] | None = Field(default=None, strict=False, min_length=2)
    """Instead of a column: the blocks whose pixels become one input of three channels each, as each converts and
    crops them; tiles and turns are the stack's own."""
    folder: str = "."
    """Where this modality's files lie, relative to the root."""
    convert: str = "percentile_stretch"
    """How more than 8 bits become 8; 8-bit files pass unchanged."""
    crop_bottom_px: Annotated[Crop, BeforeValidator(_crop)] = 0
    """Rows to cut off below; ``auto`` finds the instrument's info bar in each image."""
    page: Annotated[int, Field(ge=0)] | None = None
    """Which page of multi-page files, counted from 0; a path may also end in ``#2``."""

    view: Annotated[str, AfterValidator(check_view)] = "plain"
    """``plain``; ``fourier``, the log magnitude spectrum; or a perturbation such as ``gaussian_noise:0.1``."""
    tiles: Annotated[str, AfterValidator(check_tiles)] | None = None
    """Cut into rows x columns, such as ``2x2``; the vectors of the tiles are pooled."""
    tile_px: Annotated[int, Field(ge=8)] | None = None
    """Cut into squares of this side instead, for images of several sizes; they overlap where it does not divide."""
    pool: Literal["mean", "max"] = "mean"
    """How the vectors of the tiles become one."""
    turns: Literal["none", "flips", "d4"] = "none"
    """Average over the image mirrored both ways (4 vectors), or over quarter turns too (8)."""

    @model_validator(mode="before")
    @classmethod
    def _expand_percentile(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("convert") == "percentile":
            return {**values, "convert": "percentile_stretch"}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.column is None) == (self.stack is None):
            raise ValueError("needs either column or stack")
        if self.tiles is not None and self.tile_px is not None:
            raise ValueError("tiles and tile_px both say how it is cut: keep one")
        if self.pool != "mean" and self.tiles is None and self.tile_px is None:
            raise ValueError("pool is for tiles or tile_px")
        own = [name for name in _NOT_STACKED if getattr(self, name) != type(self).model_fields[name].default]
        if self.stack is not None and own:
            raise ValueError(f"a stack has only tiles, pool and turns; set {', '.join(own)} on the stacked blocks")
        return self


_NOT_STACKED = ("folder", "convert", "crop_bottom_px", "page", "view")


class TextSpec(_Part):
    """``[texts.NAME]``: one text per row, from a column or from an image's file name."""

    column: Column | None = None
    from_filename: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.column is None) == (self.from_filename is None):
            raise ValueError("needs either column or from_filename")
        return self


class MetadataSpec(_Part):
    """``[metadata.NAME]``: a number or a category, from a column, a pattern in the file name, or the image's tags."""

    column: Column | None = None
    """Its own name, where neither `pattern` nor `tag` is given."""
    pattern: str | None = None
    tag: Literal["nm_per_px", "magnification"] | None = None
    """Read from what the microscope or ImageJ wrote into the image file (`store.scale`)."""
    image: str | None = None
    """The image block whose file name `pattern` reads, or whose file `tag` reads; the first block when left out."""
    kind: Literal["numeric", "categorical"] | None = None
    unit: str | None = None
    """Unit of length of a column or pattern; the values become nm."""
    transform: Literal["none", "log"] = "none"

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(source is not None for source in (self.column, self.pattern, self.tag)) != 1:
            raise ValueError("needs one of column, pattern and tag")
        if self.kind == "categorical" and self.tag is not None:
            raise ValueError("a tag is a number, not a category")
        if self.kind == "categorical" and self.transform != "none":
            raise ValueError("transform is for numeric metadata")
        return self

    @model_validator(mode="after")
    def _known_unit(self) -> Self:
        if self.unit is None:
            return self
        if self.tag is not None or self.kind == "categorical":
            raise ValueError("unit is for numeric metadata from a column or pattern; a tag is in nm already")
        if nm_per(self.unit) is None:
            raise ValueError(f"unit {self.unit!r} is not one of {', '.join(NM_PER_UNIT)}")
        return self


class TaskSpec(_Part):
    """``[tasks.NAME]``: what is predicted."""

    column: Column | None = None
    columns: tuple[Column, ...] | None = Field(default=None, strict=False, min_length=1)
    kind: Literal["classification", "regression"] | None = None
    classes: tuple[str, ...] | None = Field(default=None, strict=False, min_length=2)
    when: str | None = None
    weights: tuple[float, ...] | None = Field(default=None, strict=False)
    """One per output, of several columns."""
    weight: Column | None = None
    """A column of sample weights, instead of the dataset's own; fitting respects them, scores do not."""
    class_weight: Literal["balanced"] | None = None
    """``balanced``: every class weighs the same in fitting, however rare."""
    unit: str | None = None

    @property
    def sources(self) -> tuple[Column, ...]:
        """The columns it is read from, one or several."""
        return self.columns or (() if self.column is None else (self.column,))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.column is None) == (self.columns is None):
            raise ValueError("needs either column or columns")
        if self.columns is not None and self.kind == "classification":
            raise ValueError("several columns are a regression; give one task per class column")
        if self.classes is not None and (self.kind == "regression" or self.columns is not None):
            raise ValueError("classes belong to a classification")
        if self.class_weight is not None and (self.kind == "regression" or self.columns is not None):
            raise ValueError("class_weight belongs to a classification")
        if self.weights is not None and len(self.weights) != len(self.sources):
            raise ValueError(f"{len(self.weights)} weights for {len(self.sources)} columns")
        return self


class TablesSpec(_Part):
    """``[tables]``: one table per part of a split made elsewhere."""

    train: str
    val: str | None = None
    test: str | None = None


class DatasetSpec(_Part):
    """A whole ``dataset.toml``."""

    name: str
    table: str | None = None
    tables: TablesSpec | None = None
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
    images: dict[ImageName, ImageSpec] = {}
    texts: dict[BlockName, TextSpec] = {}
    metadata: dict[BlockName, MetadataSpec] = {}
    tasks: dict[BlockName, TaskSpec] = {}

    @model_validator(mode="before")
    @classmethod
    def _metadata_is_named_like_its_column(cls, values: Any) -> Any:
        parts = values.get("metadata") if isinstance(values, Mapping) else None
        if not isinstance(parts, Mapping) or not all(isinstance(part, Mapping) for part in parts.values()):
            return values
        sources = {"column", "pattern", "tag"}
        filled = {name: part if sources & set(part) else {"column": name, **part} for name, part in parts.items()}
        return {**values, "metadata": filled}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.table is None) == (self.tables is None):
            raise ValueError("needs either table or [tables]")
        if self.tables is not None and self.split is not None:
            raise ValueError("split and [tables] both say how rows are divided: keep one")
        blocks = [("texts", name, text.from_filename) for name, text in self.texts.items()]
        blocks += [("metadata", name, meta.image) for name, meta in self.metadata.items()]
        for part, name, block in blocks:
            if block is not None and block not in self.images:
                raise ValueError(f"[{part}.{name}] names image block {block!r}{_known(self.images, block)}")
        for name, image in self.images.items():
            for part in image.stack or ():
                if part not in self.images:
                    raise ValueError(f"[images.{name}] stacks image block {part!r}{_known(self.images, part)}")
                if self.images[part].stack is not None:
                    raise ValueError(f"[images.{name}] stacks {part!r}, which is a stack itself; name its blocks")
        if not self.images and any(meta.column is None for meta in self.metadata.values()):
            raise ValueError("a metadata pattern or tag reads image files, and there is no [images.NAME]")
        return self


def parse_spec(values: Mapping[str, Any], source: str) -> DatasetSpec:
    """Check a spec and return it.

    Args:
        values: The parsed TOML (or JSON of a bundle).
        source: What to call it in messages.

    Raises:
        InputError: With every problem at once, misspelt keys with the nearest right one.
    """
    try:
        return DatasetSpec.model_validate(values)
    except ValidationError as error:
        problems = [_describe(e) for e in error.errors()]
        raise InputError(f"{source}: " + "; ".join(problems)) from None


def read_spec(path: Path) -> DatasetSpec:
    """Read and check a ``dataset.toml``.

    Raises:
        InputError: No such file, no TOML, or not a valid spec.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot read it ({_reason(error)}); give --data a dataset.toml") from None
    try:
        return parse_spec(tomllib.loads(text), str(path))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: is no valid TOML: {error}") from None


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return (error.strerror or str(error)).lower() if isinstance(error, OSError) else "no UTF-8 text"


def _known(names: Mapping[str, Any], wrong: str) -> str:
    hint = did_you_mean(wrong, names)
    return f", which is not there.{hint}" if hint else f", which is not there (there is: {', '.join(names) or 'none'})"


_PARTS: dict[str, type[_Part]] = {
    "images": ImageSpec,
    "texts": TextSpec,
    "metadata": MetadataSpec,
    "tasks": TaskSpec,
    "tables": TablesSpec,
}


def _describe(error: ErrorDetails) -> str:
    *where, key = [str(part) for part in error["loc"] if part not in ("str", "int")] or [""]
    if error["type"] == "extra_forbidden":
        fields = (_PARTS[where[0]] if where else DatasetSpec).model_fields
        hint = did_you_mean(key, fields) or f" Known keys: {', '.join(fields)}."
        return f"unknown key '{'.'.join([*where, key])}'.{hint}"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "literal_error":
        message += did_you_mean(str(error["input"]), re.findall(r"'([^']*)'", error["ctx"]["expected"])).rstrip("?")
    shown = "" if error["type"] in ("missing", "value_error") else f" (got {error['input']!r})"
    return f"{'.'.join([*where, key])}: {message}{shown}".removeprefix(": ")
