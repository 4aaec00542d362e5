"""What every head family shares: the job to solve, the fitted head, and standardisation inside the fold."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Index = NDArray[np.intp]
Fold = tuple[Index, Float]
CHUNK_BYTES = 64 * 2**20
CANCELLED = 1e-6


@dataclass(frozen=True)
class Job:
    """One model to fit: one outer fold of one task, or the last refit.

    Attributes:
        kind: ``"classification"`` or ``"regression"``.
        y: Labels of all rows of X. Classification: int64 ``(n,)``, class index. Regression: float64 ``(n, t)``.
            Rows outside `train` and `inner` are never read.
        n_classes: c, over the whole task; classes may be absent from a fold. 0 for regression.
        train: Rows of X to fit on.
        inner: ``(fit rows, score rows)`` pairs within `train`, on which hyperparameters are chosen.
        sample_weight: Positive weight per row of X, ``(n,)``; 0 leaves a row out; None for ones.
        output_weights: Weight per regression output when strengths are compared, ``(t,)``; None for ones.
        monotone: Per column of X, int8 ``(d,)``: 1 where trees may only let outputs, or the second of two classes,
            rise with it, -1 only fall, 0 as they like; None for zeros.
    """

    kind: Literal["classification", "regression"]
    y: NDArray[Any]
    n_classes: int
    train: Index
    inner: Sequence[tuple[Index, Index]]
    sample_weight: Float | None = None
    output_weights: Float | None = None
    monotone: NDArray[np.int8] | None = None

    def weight(self, rows: Index) -> Float:
        """Sample weights of `rows`, ``(len(rows),)``."""
        return np.ones(len(rows)) if self.sample_weight is None else np.asarray(self.sample_weight, np.float64)[rows]


class Head(Protocol):
    """A fitted head: scikit-learn's words, on raw rows (standardisation and imputation are inside)."""

    @property
    def classes_(self) -> NDArray[np.int64]:
        """int64 ``(c,)``: class indices in the order of the columns of `predict_proba`; empty for regression."""

    def predict(self, X: NDArray[Any]) -> NDArray[Any]:
        """Class index ``(n,)`` or outputs ``(n, t)`` of raw rows ``(n, d)``, NaN allowed."""

    def predict_proba(self, X: NDArray[Any]) -> Float:
        """Class probabilities ``(n, c)`` of raw rows ``(n, d)``; rows sum to one."""

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any] | str]]:
        """What a bundle keeps: a JSON-able dict, and named arrays or texts; `from_state` of the class reads it."""


def balanced_weights(y: NDArray[np.int64], rows: Index) -> Float:
    """Sample weights ``(len(y),)`` that give every class present in `rows` the same sum; 0 outside `rows`.

    scikit-learn's ``class_weight="balanced"``: rows / (classes * rows of the class).
    """
    _, inverse, counts = np.unique(y[rows], return_inverse=True, return_counts=True)
    weight = np.zeros(len(y))
    weight[rows] = len(rows) / (len(counts) * counts[inverse])
    return weight


@dataclass(frozen=True)
class Standardiser:
    """Centre and scale of each column, from training rows only.

    Attributes:
        mean: float64 ``(d,)``: mean of the values present; 0 for a column without any.
        scale: float64 ``(d,)``: standard deviation (ddof 0); inf for a column that does not vary, so that it becomes 0.
    """

    mean: Float
    scale: Float

    def apply(self, X: NDArray[Any]) -> Float:
        """Standardised rows, float64 ``(n, d)``; NaN becomes 0, that is the training mean."""
        Z = X.astype(np.float64)
        Z -= self.mean
        Z *= 1 / self.scale
        missing = np.isnan(Z)
        if missing.any():
            Z[missing] = 0.0
        return Z


def standardise(X: NDArray[Any], rows: Index, weight: Float | None = None) -> Standardiser:
    """Fit the standardisation of `rows` of X ``(n, d)``, NaN skipped; `weight` is per entry of `rows`."""
    return standardise_folds(X, [(rows, np.ones(len(rows)) if weight is None else weight)])[0]


def standardise_folds(X: NDArray[Any], folds: Sequence[Fold]) -> list[Standardiser]:
    """Fit the standardisation of many folds in one pass over X.

    Args:
        X: ``(n, d)``, NaN allowed.
        folds: ``(rows, weight of each of them)``; a row may repeat.

    Returns:
        One `Standardiser` per fold.
    """
    member = np.zeros((len(folds), len(X)))
    for row, (rows, weight) in zip(member, folds, strict=True):
        np.add.at(row, rows, weight)
    centre = _centre(X)
    count, total, square = (np.zeros((len(folds), X.shape[1])) for _ in range(3))
    for part in row_chunks(X):
        values = X[part].astype(np.float64) - centre
        gaps = np.isnan(values)
        values[gaps] = 0.0
        count += member[:, part].sum(axis=1, keepdims=True)
        if gaps.any():
            count -= member[:, part] @ gaps
        total += member[:, part] @ values
        square += member[:, part] @ np.square(values, out=values)
    return [_standardiser(X, fold, centre, moments) for fold, *moments in zip(folds, count, total, square, strict=True)]


def row_chunks(X: NDArray[Any]) -> Iterator[slice]:
    """Slices of rows of X whose float64 copy stays small."""
    step = max(1, CHUNK_BYTES // (8 * max(1, X.shape[1])))
    return (slice(start, start + step) for start in range(0, len(X), step))


def _centre(X: NDArray[Any]) -> Float:
    """Column means over all rows, ``(d,)``: removed before squares are summed, so that little cancels."""
    total, count = np.zeros(X.shape[1]), np.zeros(X.shape[1])
    for part in row_chunks(X):
        present = ~np.isnan(X[part])
        total += np.sum(X[part], axis=0, where=present, dtype=np.float64)
        count += present.sum(axis=0)
    return total / np.maximum(count, 1)


def _standardiser(X: NDArray[Any], fold: Fold, centre: Float, moments: Sequence[Float]) -> Standardiser:
    """Mean and scale of one fold from its centred moments; columns where digits cancelled are summed again."""
    count, total, square = moments
    filled = np.where(count > 0, count, 1)
    shift, power = total / filled, square / filled
    mean, variance = centre + shift, power - shift**2
    doubtful = np.flatnonzero(variance <= CANCELLED * power)
    if len(doubtful):
        mean[doubtful], variance[doubtful] = _two_pass(X[:, doubtful], fold)
    # A variance below the rounding of its sum is no variance: sklearn/preprocessing/_data.py, _is_constant_feature.
    eps = np.finfo(np.float64).eps
    constant = variance <= count * eps * variance + (count * mean * eps) ** 2
    return Standardiser(np.where(count > 0, mean, 0.0), np.where(constant, np.inf, np.sqrt(np.maximum(variance, 0))))


def _two_pass(X: NDArray[Any], fold: Fold) -> tuple[Float, Float]:
    """Weighted mean and variance ``(d,)`` of the fold's rows, deviations taken from the fold's own mean."""
    rows, weight = fold
    values = X[rows].astype(np.float64)
    present = ~np.isnan(values)
    share = weight[:, None] * present
    total = np.maximum(share.sum(axis=0), np.finfo(np.float64).tiny)
    first = np.where(present.any(axis=0), np.nanmax(np.where(present, values, -np.inf), axis=0), 0.0)
    values = np.where(present, values - first, 0.0)
    shift = (share * values).sum(axis=0) / total
    return first + shift, (share * (values - shift) ** 2).sum(axis=0) / total
