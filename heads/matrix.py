"""The matrix heads are fitted on: the stored vectors of every image and text block, and the metadata columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.combination import fused_columns
from store import (
    BlockSpace,
    Dataset,
    FeatureSpace,
    FeatureStore,
    Hashes,
    InputError,
    MetadataColumn,
    StoreError,
    block_names,
    block_spaces,
    did_you_mean,
    find_block,
    hash_files,
)

METADATA = "metadata"
SIGNS = {"none": 0, "increasing": 1, "decreasing": -1}
MISSING = ":missing"  # ends the name of an indicator column


@dataclass(frozen=True)
class FeatureMatrix:
    """n rows in dataset order, d columns in named blocks.

    Attributes:
        ids: str ``(n,)``.
        X: float32 ``(n, d)``; NaN where metadata is missing, and over a whole image or text block where the row has
            no vector (no file, no text, or an image that could not be read).
        blocks: Columns of each block: ``image:bf@efficientnet_b0``, ``text:notes@ngrams``, ``metadata``.
        columns: Names of the metadata columns, in order; ``magnification:missing`` indicates, ``instrument=SEM``
            is one category of several.
        complete: bool ``(n,)``: every image and text block has a vector, and metadata can be used. Only such rows are
            fitted and scored.
        spaces: The space of each image and text block.
        provenance: Where each space's weights came from, when vectors were last added to it.
        has_metadata: bool ``(n,)``: rows whose metadata cells can be used; None: all of them.
        absent: Blocks of the dataset for which nothing was extracted (``image:bf``).
    """

    ids: NDArray[np.str_]
    X: NDArray[np.float32]
    blocks: Mapping[str, slice]
    columns: tuple[str, ...]
    complete: NDArray[np.bool_]
    spaces: Mapping[str, FeatureSpace]
    provenance: Mapping[str, Mapping[str, Any]]
    absent: tuple[str, ...] = ()
    has_metadata: NDArray[np.bool_] | None = None

    def monotone(self, metadata: Mapping[str, MetadataColumn]) -> NDArray[np.int8]:
        """Return 1 per column that outputs may only rise with, -1 that they may only fall with, else 0: ``(d,)``."""
        signs = np.zeros(self.X.shape[1], np.int8)
        if METADATA in self.blocks:
            own = (SIGNS[metadata[name].monotone] if name in metadata else 0 for name in self.columns)
            signs[self.blocks[METADATA]] = list(own)
        return signs

    def select(self, blocks: Sequence[str]) -> NDArray[np.int64]:
        """Return the column numbers of some blocks as heads see them (`fused_columns`)."""
        return fused_columns(self.blocks, blocks)

    def without_vector(self) -> dict[str, int]:
        """Return, for each image and text block with gaps, how many rows have no vector there."""
        counts = {name: int(np.isnan(self.X[:, self.blocks[name]][:, :1]).sum()) for name in self.spaces}
        return {name: count for name, count in counts.items() if count}


def load_matrix(
    dataset: Dataset,
    store: FeatureStore,
    *,
    backbones: Sequence[str] | None = None,
    digests: Mapping[str, str] | None = None,
) -> FeatureMatrix:
    """Return all that is stored for a dataset's blocks, and its metadata.

    Which spaces fit which block, and their names: `block_spaces`.

    Args:
        dataset: n rows.
        store: Read only here.
        backbones: Encoder names to keep; all of them by default.
        digests: Of the weights of those backbones that are folders: they mean the spaces of these very weights.

    Raises:
        InputError: Nothing was extracted, some rows are not extracted yet, or no such backbone.
    """
    kept = _only(block_spaces(dataset, store), backbones, digests or {})
    found = {name: at.space for name, at in kept.items()}
    vectors = {name: _read(store, at.space, at.keys, where=name) for name, at in kept.items()}
    begun = {at.block for at in kept.values()}
    absent = tuple(block for block in block_names(dataset) if block not in begun)
    if absent and not found:
        raise InputError(f"nothing is extracted for {', '.join(absent)}: run extract first")
    return _assemble(dataset, vectors, found, store, columns=None, absent=absent)


def load_matrix_like(
    dataset: Dataset,
    store: FeatureStore,
    *,
    spaces: Mapping[str, FeatureSpace],
    columns: Sequence[str],
    hashes: Hashes | None = None,
) -> FeatureMatrix:
    """Return the matrix that a fitted model expects: the same blocks, spaces and metadata columns.

    A category that was never seen is zero in every indicator.

    Args:
        dataset: n rows, labels not needed.
        store: Holds the vectors of every row that has content.
        spaces: The space of each block.
        columns: Names of the metadata columns.
        hashes: What `hash_files` gave, to read each file once for several matrices.

    Raises:
        InputError: The dataset has no such block or column, or rows are not extracted yet.
    """
    blocks = {name: find_block(dataset, name.split("@")[0]) for name in spaces}
    hashes = hash_files(blocks.values()) if hashes is None else hashes
    vectors = {name: _read(store, space, blocks[name].keys(hashes), where=name) for name, space in spaces.items()}
    return _assemble(dataset, vectors, spaces, store, columns=columns)


def _assemble(
    dataset: Dataset,
    vectors: Mapping[str, NDArray[np.float32]],
    spaces: Mapping[str, FeatureSpace],
    store: FeatureStore,
    *,
    columns: Sequence[str] | None,
    absent: tuple[str, ...] = (),
) -> FeatureMatrix:
    values = metadata_columns(dataset.metadata, columns)
    parts = dict(vectors)
    if values:
        parts[METADATA] = np.stack(list(values.values()), axis=1)
    ends = np.cumsum([0, *(part.shape[1] for part in parts.values())])
    has_metadata = ~np.isin(dataset.ids, list(dataset.bad_cells))
    complete = has_metadata.copy()
    for part in vectors.values():
        complete &= ~np.isnan(part[:, 0])
    return FeatureMatrix(
        ids=dataset.ids,
        X=np.concatenate([np.empty((dataset.n_rows, 0), np.float32), *parts.values()], axis=1),
        blocks={name: slice(int(a), int(b)) for name, a, b in zip(parts, ends[:-1], ends[1:], strict=True)},
        columns=tuple(values),
        complete=complete,
        spaces=dict(spaces),
        provenance={name: store.provenance(space) for name, space in spaces.items()},
        absent=absent,
        has_metadata=has_metadata,
    )


def metadata_columns(
    metadata: Mapping[str, MetadataColumn], columns: Sequence[str] | None = None
) -> dict[str, NDArray[np.float32]]:
    """Return metadata as numbers, float32 ``(n,)`` each, not yet standardised; NaN where a number is missing.

    Args:
        metadata: Columns by name.
        columns: What to produce; by default every number, an indicator where some are missing, and one column per
            category.

    Raises:
        InputError: A column is asked for that the metadata does not have, or the log of a number that is not positive.
    """
    made = {name: values for column in metadata.values() for name, values in _encoded(column, columns).items()}
    if columns is None:
        return made
    unknown = [name for name in columns if name not in made]
    if unknown:
        raise InputError(f"metadata column {unknown[0]!r} is not in this table; it has {', '.join(metadata) or 'none'}")
    return {name: made[name] for name in columns}


def _encoded(column: MetadataColumn, wanted: Sequence[str] | None) -> dict[str, NDArray[np.float32]]:
    if column.kind == "numeric":
        values = _transformed(column)
        made, missing = {column.name: values}, np.isnan(values)
    else:
        missing = np.array([value is None for value in column.values])
        made = {
            f"{column.name}={category}": (column.values == category).astype(np.float32)
            for category in _categories(column, wanted)
        }
    if missing.any() if wanted is None else f"{column.name}{MISSING}" in wanted:
        made[f"{column.name}{MISSING}"] = missing.astype(np.float32)
    return made


def _categories(column: MetadataColumn, wanted: Sequence[str] | None) -> list[str]:
    start = f"{column.name}="
    if wanted is not None:
        return [name.removeprefix(start) for name in wanted if name.startswith(start)]
    return sorted({value for value in column.values if value is not None})


def _transformed(column: MetadataColumn) -> NDArray[np.float32]:
    values = np.asarray(column.values, dtype=np.float64)
    if column.transform == "none":
        return values.astype(np.float32)
    wrong = values[values <= 0]
    if len(wrong):
        raise InputError(
            f"metadata {column.name!r}: the log of {wrong[0]:g} does not exist ({len(wrong)} such values). "
            'Correct the table or use transform = "none".'
        )
    return np.log(values).astype(np.float32)


def _only(
    stored: dict[str, BlockSpace], backbones: Sequence[str] | None, digests: Mapping[str, str]
) -> dict[str, BlockSpace]:
    if backbones is None:
        return stored
    known = sorted({at.space.encoder for at in stored.values()})
    meant = {backbone: _meant(stored, backbone, digests.get(backbone)) for backbone in backbones}
    for backbone, names in meant.items():
        if not names:
            raise InputError(
                f"backbone {backbone!r} is not extracted for this dataset; there is {', '.join(known) or 'none'}."
                f"{did_you_mean(backbone, known)} Run extract --backbone {backbone} first."
            )
    return {name: at for name, at in stored.items() if any(name in names for names in meant.values())}


def _meant(stored: Mapping[str, BlockSpace], backbone: str, digest: str | None) -> list[str]:
    """Return the spaces of an encoder of that name, or of those weights."""
    return [
        name
        for name, at in stored.items()
        if (at.space.encoder == backbone if digest is None else at.space.weights_digest == digest)
    ]


def _read(store: FeatureStore, space: FeatureSpace, keys: Sequence[str | None], *, where: str) -> NDArray[np.float32]:
    known = [key for key in keys if key is not None]
    todo = store.missing(space, known)
    if todo:
        raise InputError(f"{where}: {len(todo)} of {len(set(known))} contents are not extracted yet: run extract first")
    has_vector = np.zeros(len(keys), dtype=bool)
    has_vector[[key is not None for key in keys]] = store.present(space, known)
    stored = store.read(space, [key for key, has in zip(keys, has_vector, strict=True) if has and key is not None])
    if not np.isfinite(stored).all():
        raise StoreError(f"{where}: a stored vector is not finite: run store verify, then extract again")
    vectors = np.full((len(keys), space.dim), np.nan, dtype=np.float32)
    vectors[has_vector] = stored
    return vectors
