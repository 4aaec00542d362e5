"""A bundle: fitted heads, and all that is needed to use them on new files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heads.calibration import CalibratedHead
from heads.columns import applies_column, applies_name, task_columns
from heads.combination import fused_columns
from heads.matrix import METADATA, FeatureMatrix, load_matrix_like
from heads.ood import Reference
from store import Dataset, DatasetSpec, FeatureSpace, FeatureStore, StoreError, Task


@dataclass(frozen=True)
class Model:
    """One task's fitted head, and the blocks that it reads.

    Attributes:
        task: Without labels: name, kind, classes and columns.
        head: Name in `HEADS`.
        blocks: Sorted; the head's columns are theirs, in this order.
        fitted: The head and its calibration.
        scores: What the leaderboard said of it, baseline included.
    """

    task: Task
    head: str
    blocks: tuple[str, ...]
    fitted: CalibratedHead
    scores: Mapping[str, Any]


@dataclass(frozen=True)
class Bundle:
    """Fitted models and all that is needed to use them on new files.

    Attributes:
        spec: The dataset spec: tasks, and the blocks and metadata that are read.
        blocks: Every block that a model reads, in column order, and how many columns it has.
        spaces: The space of each image and text block.
        provenance: Where each space's weights came from.
        columns: Metadata columns, in order.
        models: By task.
        reference: What training rows look like.
        about: Split, seed, versions.
        conditions: By task that exists only `when` something holds: the model of whether it does.
    """

    spec: DatasetSpec
    blocks: Mapping[str, int]
    spaces: Mapping[str, FeatureSpace]
    provenance: Mapping[str, Any]
    columns: tuple[str, ...]
    models: Mapping[str, Model]
    reference: Reference
    about: Mapping[str, Any]
    conditions: Mapping[str, Model] = field(default_factory=dict)

    def load_matrix(self, dataset: Dataset, store: FeatureStore) -> FeatureMatrix:
        """Return the matrix that `predict` takes, of a dataset whose contents are extracted into `store`."""
        columns = self.columns if METADATA in self.blocks else ()
        return load_matrix_like(dataset, store, spaces=self.spaces, columns=columns)

    def predict(self, matrix: FeatureMatrix) -> pd.DataFrame:
        """Predict every task for every row.

        Returns:
            Columns ``id``; per task its prediction under the task's name (``task_column`` for several outputs),
            ``task_p_class`` per class and ``task_set``, or ``task_low`` and ``task_high``, and ``task_p_applies`` where
            it has a condition; ``ood_distance``. `describe_columns` says more, and of ``status``, which the command
            line adds. A row without the vectors, or the metadata, that a model needs stays empty.

        Raises:
            StoreError: The matrix has other spaces, or lacks a block.
        """
        X = self.aligned(matrix)
        has_vectors = {name: ~np.isnan(X[:, part][:, 0]) for name, part in self.slices().items() if name in self.spaces}
        if matrix.has_metadata is not None:
            has_vectors[METADATA] = matrix.has_metadata
        table: dict[str, Any] = {"id": matrix.ids}
        for name, model in self.models.items():
            table |= task_columns(model, X[:, self.select(model.blocks)], _all_of(model.blocks, has_vectors, len(X)))
            if (condition := self.conditions.get(name)) is not None:
                usable = _all_of(condition.blocks, has_vectors, len(X))
                table[applies_name(name)] = applies_column(condition, X[:, self.select(condition.blocks)], usable)
        table["ood_distance"] = np.full(len(X), np.nan)
        whole = _all_of(tuple(self.blocks), has_vectors, len(X))
        table["ood_distance"][whole] = self.reference.distance(X[whole][:, self.select(tuple(self.blocks))])
        return pd.DataFrame(table)

    def nearest(self, matrix: FeatureMatrix, training: FeatureMatrix, *, k: int = 3) -> list[list[tuple[str, float]]]:
        """Return the training rows that look most like each row.

        Args:
            matrix: n rows.
            training: Rows that the bundle was fitted on; those without a vector are passed over.
            k: How many, at most.

        Returns:
            For each of the n rows ids and distances, nearest first, in the unit of ``ood_distance``; nothing for a row
            without the vectors that the models need.
        """
        known, new = training.complete.nonzero()[0], matrix.complete.nonzero()[0]
        columns = self.select(tuple(self.blocks))
        X, P = self.aligned(matrix)[new][:, columns], self.aligned(training)[known][:, columns]
        rows, distances = self.reference.nearest(X, P, min(k, len(P)))
        found: list[list[tuple[str, float]]] = [[] for _ in matrix.ids]
        for place, near, far in zip(new, known[rows], distances, strict=True):
            found[place] = list(zip(training.ids[near].tolist(), far.tolist(), strict=True))
        return found

    def aligned(self, matrix: FeatureMatrix) -> NDArray[np.float32]:
        """Return the matrix's columns in the order of the bundle's blocks, float32 ``(n, d)``.

        Raises:
            StoreError: The matrix has other spaces, or lacks a block.
        """
        for name, space in self.spaces.items():
            theirs = matrix.spaces.get(name)
            if theirs is None:
                raise StoreError(
                    f"the bundle needs block {name!r}; the matrix has {', '.join(matrix.blocks) or 'none'}"
                )
            if theirs.fingerprint != space.fingerprint:
                raise StoreError(
                    f"block {name!r} is of another space than the bundle was fitted on "
                    f"({'; '.join(space.differences(theirs))}). Extract with the bundle's own encoder."
                )
        parts = [self._block_columns(matrix, name) for name in self.blocks]
        return np.concatenate(parts, axis=1)

    def _block_columns(self, matrix: FeatureMatrix, name: str) -> NDArray[np.float32]:
        if name != METADATA:
            return matrix.X[:, matrix.blocks[name]]
        absent = [column for column in self.columns if column not in matrix.columns]
        if absent:
            raise StoreError(
                f"the bundle needs metadata column {absent[0]!r}; the matrix has {', '.join(matrix.columns)}"
            )
        start = matrix.blocks[METADATA].start
        return matrix.X[:, [start + matrix.columns.index(column) for column in self.columns]]

    def slices(self) -> dict[str, slice]:
        """Return where each block lies among the columns of `aligned`."""
        ends = np.cumsum([0, *self.blocks.values()])
        return {name: slice(int(a), int(b)) for name, a, b in zip(self.blocks, ends[:-1], ends[1:], strict=True)}

    def select(self, blocks: Sequence[str]) -> NDArray[np.int64]:
        """Return the columns of `aligned` that a model of some blocks reads, in its order."""
        return fused_columns(self.slices(), blocks)


def _all_of(blocks: Sequence[str], has_vectors: Mapping[str, NDArray[np.bool_]], n_rows: int) -> NDArray[np.bool_]:
    """Return the rows that have a vector in every one of some blocks, bool ``(n,)``."""
    whole = np.ones(n_rows, dtype=bool)
    for name in blocks:
        if name in has_vectors:
            whole &= has_vectors[name]
    return whole
