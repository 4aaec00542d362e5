"""Coordinates in which folds are fitted, exactly: rotated to what their rows span, or shared by many folds.

A linear model with an L2 penalty does not change when the standardised columns are rotated, and its coefficients lie
in the span of the training rows. So a fold of few rows is fitted in r <= min(n - 1, d) coordinates along the principal
axes of its rows, in which the penalty is the same sum of squares.

Folds of many rows are fitted side by side on one matrix, the rows of all of them standardised together. What sets a
fold apart there is a weight of 0 for other rows, and a penalty per column: the square of what its own scale is to the
shared one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from heads.head import Float, Index, Standardiser, row_chunks, standardise

FLOAT64_CELLS = 2**24  # coordinates of larger folds are kept in float32: their rounding is that of X itself


@dataclass(frozen=True)
class Design:
    """One fold's training rows in coordinates.

    Attributes:
        rows: Training rows of X, m of them.
        weight: Sample weight of each, ``(m,)``.
        standard: The fold's standardisation.
        axes: Factors whose product ``(d, r)`` has the axes as columns; kept apart where that is less work. None where
            the axes are the columns.
        coordinates: ``(n, r + 1)``; the last column is 1, for the intercept. Shared designs have the same array.
        place: Which of these n are `rows`, ``(m,)``.
        ratio: The fold's scale over that of the coordinates, ``(r,)``; the penalty is the sum of (ratio * V)^2.
        shift: The fold's mean in these coordinates, ``(r,)``.
        basis: Principal axes of shared coordinates, ``(r, r)``; None where they are the coordinates.
        power: ``(r,)``: mean square of the coordinates along the principal axes.
    """

    rows: Index
    weight: Float
    standard: Standardiser
    axes: tuple[Float, ...]
    coordinates: NDArray[Any]
    place: Index
    ratio: Float
    shift: Float
    basis: NDArray[Any] | None
    power: Float

    def coefficients(self, V: Float) -> tuple[Float, Float]:
        """Coefficients ``(k, d)`` of standardised columns, and intercepts ``(k,)``, of parameters ``(k, r + 1)``."""
        rotated = V[:, :-1] * self.ratio
        for factor in reversed(self.axes):
            rotated = rotated @ factor.T
        return rotated, V[:, -1] + V[:, :-1] @ self.shift

    @property
    def is_shared(self) -> bool:
        """Whether other folds have the same coordinates."""
        return self.basis is not None

    @cached_property
    def is_uniform(self) -> bool:
        """Whether all rows weigh 1, so that `power` is the weighted one too."""
        return bool((self.weight == 1).all())


def make_design(X: NDArray[Any], rows: Index, weight: Float, standard: Standardiser) -> Design:
    """Rotate one fold; `weight` is per entry of `rows`."""
    make = _from_rows if len(rows) <= X.shape[1] else _from_columns
    spectrum, axes, coordinates = make(X, rows, standard)
    unit, zero = np.ones(len(spectrum)), np.zeros(len(spectrum))
    place = np.arange(len(rows))
    return Design(rows, weight, standard, axes, coordinates, place, unit, zero, None, spectrum / len(rows))


def rank(X: NDArray[Any], rows: Index) -> int:
    """Return the dimensions in which some rows lie, standardised; of at most d of them, evenly drawn."""
    drawn = rows[np.linspace(0, len(rows) - 1, min(len(rows), X.shape[1])).astype(np.intp)]
    Z = standardise(X, drawn).apply(X[drawn])
    gram = Z @ Z.T
    floor = len(gram) * np.finfo(np.float64).eps * gram.diagonal().max()
    return int(lapack.dpstrf(gram, tol=floor)[2])


def share_designs(
    X: NDArray[Any], folds: Sequence[tuple[Index, Float]], standards: Sequence[Standardiser], shared: Standardiser
) -> list[Design]:
    """Put the rows of all folds ``(rows, weight)`` into one matrix, standardised by `shared`."""
    union = np.unique(np.concatenate([rows for rows, _ in folds]))
    T = np.ones((len(union), X.shape[1] + 1), np.float32)
    for part in row_chunks(T):
        T[part, :-1] = shared.apply(X[union[part]])
    values, basis = np.linalg.eigh(T[:, :-1].T @ T[:, :-1])
    power = np.maximum(values, 0).astype(np.float64) / len(union)
    return [
        Design(rows, weight, own, (), T, np.searchsorted(union, rows), *_relative(own, shared), basis, power)
        for (rows, weight), own in zip(folds, standards, strict=True)
    ]


def _relative(own: Standardiser, shared: Standardiser) -> tuple[Float, Float]:
    """Ratio of the scales and difference of the means, ``(d,)``. A column that does not vary in the fold is a second
    intercept, which any penalty keeps at 0."""
    varies = np.isfinite(own.scale) & np.isfinite(shared.scale)
    ratio = np.divide(own.scale, shared.scale, out=np.ones(len(varies)), where=varies)
    return ratio, (own.mean - shared.mean) / shared.scale


def _from_rows(X: NDArray[Any], rows: Index, standard: Standardiser) -> tuple[Float, tuple[Float, ...], Float]:
    """Fewer rows than columns: the axes come from the rows' inner products."""
    Z = standard.apply(X[rows])
    spectrum, vectors = _principal(Z @ Z.T, len(rows))
    root = np.sqrt(spectrum)
    return spectrum, (Z.T, vectors / root), _with_ones(vectors * root)


def _from_columns(
    X: NDArray[Any], rows: Index, standard: Standardiser
) -> tuple[Float, tuple[Float, ...], NDArray[Any]]:
    """More rows than columns: the axes come from the columns' inner products."""
    gram = np.zeros((X.shape[1], X.shape[1]))
    for part in _parts(X, rows):
        Z = standard.apply(X[part])
        gram += Z.T @ Z
    spectrum, basis = _principal(gram, len(rows))
    cells = len(rows) * (len(spectrum) + 1)
    coordinates = np.empty((len(rows), len(spectrum) + 1), np.float64 if cells <= FLOAT64_CELLS else np.float32)
    start = 0
    for part in _parts(X, rows):
        coordinates[start : start + len(part)] = _with_ones(standard.apply(X[part]) @ basis)
        start += len(part)
    return spectrum, (basis,), coordinates


def _principal(gram: Float, n_rows: int) -> tuple[Float, Float]:
    """Eigenvalues, largest first, and eigenvectors of `gram`, without those that are rounding only."""
    values, vectors = np.linalg.eigh(gram)
    floor = max(n_rows, len(gram)) * np.finfo(np.float64).eps * max(values[-1], 0.0) if len(gram) else 0.0
    kept = np.flatnonzero(values > floor)[::-1]
    return values[kept], vectors[:, kept]


def _with_ones(coordinates: Float) -> Float:
    return np.hstack([coordinates, np.ones((len(coordinates), 1))])


def _parts(X: NDArray[Any], rows: Index) -> list[Index]:
    """`rows` in pieces whose float64 copy stays small."""
    step = next(row_chunks(X)).stop
    return [rows[start : start + step] for start in range(0, len(rows), step)]
