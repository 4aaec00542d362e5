"""How far a row lies from the training rows: the distance to its k-th nearest one.

Deep nearest neighbours (Sun, Ming, Zhu, Li 2022, "Out-of-distribution detection with deep nearest neighbors",
arXiv 2204.06507), on standardised columns and in units of the training rows themselves: each of those is measured
against the others, its own group left out, and 1 is the 95th percentile of that. So about one row in twenty that is
like the training rows lies above 1, and one far above 1 asks for a look before its prediction is believed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from heads.head import Standardiser, row_chunks, standardise
from store import Rows

N_NEIGHBOURS = 5
N_REFERENCES = 500  # training rows kept, drawn evenly; a distance costs as many products
N_MEASURED = 2000  # training rows whose distance says what 1 is
UNIT_PERCENTILE = 95.0


@dataclass(frozen=True)
class Reference:
    """What training rows look like.

    Attributes:
        standard: Centre and scale of each column.
        points: float32 ``(r, d)``, standardised training rows.
        unit: The distance that counts as 1.
        k: Which neighbour.
    """

    standard: Standardiser
    points: NDArray[np.float32]
    unit: float
    k: int

    def distance(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the distance of raw rows ``(n, d)``, ``(n,)``; 1 is as far as the farthest twentieth in training."""
        parts = [_nearest(self.standard.apply(X[part]), self.points, self.k) for part in row_chunks(X)]
        return np.concatenate([np.empty(0), *parts]) / self.unit

    def nearest(
        self, X: NDArray[np.float32], training: NDArray[np.float32], k: int
    ) -> tuple[Rows, NDArray[np.float64]]:
        """Return the k nearest of some training rows to each row, nearest first.

        Args:
            X: Raw rows ``(n, d)``.
            training: Raw rows ``(m, d)``, k of them or more.
            k: How many.

        Returns:
            Row numbers of `training` ``(n, k)``, and their distances ``(n, k)`` in the unit of `distance`.
        """
        Z, P = self.standard.apply(X), self.standard.apply(training)
        squares = (Z**2).sum(axis=1)[:, None] + (P**2).sum(axis=1) - 2 * Z @ P.T
        order = np.argsort(squares, axis=1, kind="stable")[:, :k]
        return order, np.sqrt(np.maximum(np.take_along_axis(squares, order, axis=1), 0.0)) / self.unit

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what a bundle keeps."""
        scalars = np.array([self.unit, self.k])
        return {"mean": self.standard.mean, "scale": self.standard.scale, "points": self.points, "unit_and_k": scalars}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Rebuild the reference from `arrays`."""
        unit, k = arrays["unit_and_k"]
        return cls(Standardiser(arrays["mean"], arrays["scale"]), arrays["points"], float(unit), int(k))


def make_reference(X: NDArray[np.float32], rows: Rows, *, groups: Rows | None, seed: int) -> Reference:
    """Measure training rows against each other.

    Args:
        X: Raw rows ``(n, d)``, NaN allowed.
        rows: Training rows of X.
        groups: Group number per row of X: a row's own group is no neighbour of it. None: only the row itself.
        seed: Of the rows that are kept where there are many.
    """
    drawn = np.random.default_rng(seed).permutation(rows)
    kept, measured = drawn[:N_REFERENCES], drawn[:N_MEASURED]
    standard = standardise(X, rows)
    points = standard.apply(X[kept]).astype(np.float32)
    unit = np.arange(len(X)) if groups is None else groups
    forbidden = unit[measured][:, None] == unit[kept]
    k = max(1, min(N_NEIGHBOURS, int((~forbidden).sum(axis=1).min())))
    far = _nearest(standard.apply(X[measured]), points, k, forbidden=forbidden)
    far = far[np.isfinite(far)]
    scale = float(np.percentile(far, UNIT_PERCENTILE)) if len(far) else 1.0
    return Reference(standard, points, scale or 1.0, k)


def _nearest(
    Z: NDArray[np.float64], points: NDArray[np.float32], k: int, *, forbidden: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Return the distance of each row to its k-th nearest point, ``(n,)``; inf where fewer are allowed."""
    P = points.astype(np.float64)
    squares = (Z**2).sum(axis=1)[:, None] + (P**2).sum(axis=1) - 2 * Z @ P.T
    if forbidden is not None:
        squares[forbidden] = np.inf
    k = min(k, squares.shape[1])
    found: NDArray[np.float64] = np.partition(squares, k - 1, axis=1)[:, k - 1]
    return np.sqrt(np.maximum(found, 0.0))
