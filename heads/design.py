"""Exact low-dimensional coordinates of a fold: rotated to the space that its training rows span.

A linear model with an L2 penalty does not change when the standardised columns are rotated, and its
coefficients lie in the span of the training rows. So a fold of n rows and d columns is fitted in
r <= min(n - 1, d) coordinates along the principal axes of its rows, in which the penalty is the same sum of squares.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.head import Float, Index, Standardiser, row_chunks

FLOAT64_CELLS = 2**24  # coordinates of larger folds are kept in float32: their rounding is that of X itself


@dataclass(frozen=True)
class Design:
    """One fold's training rows in principal coordinates.

    Attributes:
        rows: Training rows of X, m of them.
        weight: Sample weight of each, ``(m,)``.
        standard: The fold's standardisation.
        axes: Factors whose product ``(d, r)`` has the principal axes as columns; kept apart where that is less work.
        spectrum: ``(r,)``: sum of squares of the training rows along each axis.
        coordinates: ``(m, r + 1)``: standardised rows times axes; the last column is 1, for the intercept.
    """

    rows: Index
    weight: Float
    standard: Standardiser
    axes: tuple[Float, ...]
    spectrum: Float
    coordinates: NDArray[Any]

    def coefficients(self, V: Float) -> tuple[Float, Float]:
        """Coefficients ``(k, d)`` of standardised columns, and intercepts ``(k,)``, of parameters ``(k, r + 1)``."""
        rotated = V[:, :-1]
        for factor in reversed(self.axes):
            rotated = rotated @ factor.T
        return rotated, V[:, -1].copy()

    @cached_property
    def is_uniform(self) -> bool:
        """Whether all rows weigh 1, so that `spectrum` is the weighted one too."""
        return bool((self.weight == 1).all())


def make_design(X: NDArray[Any], rows: Index, weight: Float, standard: Standardiser) -> Design:
    """Rotate one fold; `weight` is per entry of `rows`."""
    if len(rows) <= X.shape[1]:
        return _from_rows(X, rows, weight, standard)
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
    return Design(rows, weight, standard, (basis,), spectrum, coordinates)


def _from_rows(X: NDArray[Any], rows: Index, weight: Float, standard: Standardiser) -> Design:
    """Fewer rows than columns: the axes come from the rows' inner products."""
    Z = standard.apply(X[rows])
    spectrum, vectors = _principal(Z @ Z.T, len(rows))
    root = np.sqrt(spectrum)
    return Design(rows, weight, standard, (Z.T, vectors / root), spectrum, _with_ones(vectors * root))


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
