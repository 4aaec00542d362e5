"""The sections of a ``dataset.toml``: images, texts, metadata, tasks, columns, and the parts of a split."""

import itertools
import os
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from store.condition import check_condition
from store.space import INFO_BAR, Crop
from store.units import NM_PER_UNIT, nm_per
from store.view import PLAINLY, check_convert, check_tiles, check_view

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


def _pattern(value: str) -> str:
    try:
        n_groups = re.compile(value).groups
    except re.error as error:
        raise ValueError(f"pattern {value!r} is no regular expression: {error}") from None
    if n_groups != 1:
        raise ValueError(f"pattern {value!r} has {n_groups} groups; put (…) around the value, once")
    return value


Pattern = Annotated[str, AfterValidator(_pattern)]
"""A regular expression with one group."""

STRICT = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Section(BaseModel):
    model_config = STRICT


class ImageSpec(_Section):
    """``[images.NAME]``: one image modality, or another view of one."""

    column: Column | None = None
    stack: tuple[str, ...] | None = Field(default=None, strict=False, min_length=2)
    """Instead of a column: the blocks whose pixels become one input of three channels each, as each converts and
    crops them; tiles and turns are the stack's own."""
    folder: str = "."
    """Where this modality's files lie, relative to the root."""
    convert: Annotated[str, AfterValidator(check_convert)] = PLAINLY["convert"]
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


class TextSpec(_Section):
    """``[texts.NAME]``: one text per row, from a column or from an image's file name."""

    column: Column | None = None
    from_filename: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.column is None) == (self.from_filename is None):
            raise ValueError("needs either column or from_filename")
        return self


class MetadataSpec(_Section):
    """``[metadata.NAME]``: a number or a category, from a column, a pattern in the file name, or the image's tags."""

    column: Column | None = None
    """Its own name, where neither `pattern` nor `tag` is given."""
    pattern: Pattern | None = None
    tag: Literal["nm_per_px", "magnification"] | None = None
    """Read from what the microscope or ImageJ wrote into the image file (`store.scale`)."""
    image: str | None = None
    """The image block whose file name `pattern` reads, or whose file `tag` reads; the first block when left out."""
    kind: Literal["numeric", "categorical"] | None = None
    unit: str | None = None
    """Unit of length of a column or pattern; the values become nm."""
    transform: Literal["none", "log"] = "none"
    monotone: Literal["none", "increasing", "decreasing"] = "none"
    """What trees may only learn: outputs (of two classes the second's probability) that rise, or fall, with it."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(source is not None for source in (self.column, self.pattern, self.tag)) != 1:
            raise ValueError("needs one of column, pattern and tag")
        if self.kind == "categorical" and self.tag is not None:
            raise ValueError("a tag is a number, not a category")
        if self.kind == "categorical" and self.transform != "none":
            raise ValueError("transform is for numeric metadata")
        if self.kind == "categorical" and self.monotone != "none":
            raise ValueError("monotone is for numeric metadata")
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


class TaskSpec(_Section):
    """``[tasks.NAME]``: what is predicted."""

    column: Column | None = None
    columns: tuple[Column, ...] | None = Field(default=None, strict=False, min_length=1)
    kind: Literal["classification", "regression"] | None = None
    classes: tuple[str, ...] | None = Field(default=None, strict=False, min_length=2)
    when: Annotated[str, AfterValidator(check_condition)] | None = None
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


class ColumnSpec(_Section):
    """``[columns.NAME]``: a further column of the table, read from the file names or from which cells are filled."""

    pattern: Pattern | None = None
    """A regular expression with one group, searched in the file name without its folders."""
    image: str | None = None
    """The image block whose file names `pattern` reads; the first block when left out."""
    filled: Column | None = None
    """Instead: yes where this column has a value, no where it is empty."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.pattern is None) == (self.filled is None):
            raise ValueError("needs either pattern or filled")
        if self.image is not None and self.pattern is None:
            raise ValueError("image is for pattern")
        return self


class PartsSpec(_Section):
    """``[tables]`` or ``[folders]``: one table, or one folder of class folders, per part of a split made elsewhere."""

    train: str
    val: str | None = None
    test: str | None = None

    @property
    def given(self) -> dict[str, str]:
        """Table or folder by role, without those left out."""
        return {role: name for role, name in self.model_dump().items() if name is not None}

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        places = {role: PurePosixPath(os.path.normpath(name)) for role, name in self.given.items()}
        for (role, place), (other, inside) in itertools.permutations(places.items(), 2):
            if inside == place or place in inside.parents:
                raise ValueError(f"{other} = {str(inside)!r} is a part of {role} = {str(place)!r}; keep them apart")
        return self
