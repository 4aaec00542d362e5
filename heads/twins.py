"""Rows that show the same thing: exact and near duplicates, found in stored vectors.

How near is too near is read from the data. In a neighbourhood of intrinsic dimension d, the distance to the nearest
neighbour follows a Weibull law, P(r1 < r) = 1 - exp(-(r / scale)^d) (Levina and Bickel 2004, "Maximum likelihood
estimation of intrinsic dimension"; Facco et al. 2017, 10.1038/s41598-017-11873-y). Its quartiles, which a few
duplicates do not move, give d and scale; rows nearer than that law allows once in twenty datasets are near duplicates.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heads.head import row_chunks, standardise

N_NEAREST = 5  # kept per row; larger families of duplicates hang together through them
CHANCE = 0.05  # of one false near duplicate among all rows
MIN_ROWS = 20  # fewer have no quartiles worth the name: only exact duplicates are found then

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Twins:
    """Pairs of rows that are the same or nearly so, nearest first.

    Attributes:
        pairs: int64 ``(p, 2)``, rows of the matrix, the smaller first.
        similarity: float64 ``(p,)``: cosine of the standardised vectors.
        is_exact: bool ``(p,)``: the vectors are the same to the last bit.
        threshold: The similarity from which pairs count as near duplicates.
    """

    pairs: Rows
    similarity: Floats
    is_exact: NDArray[np.bool_]
    threshold: float


def find_twins(X: NDArray[np.float32], unit: Rows) -> Twins:
    """Find pairs of rows of different units that are alike.

    Args:
        X: Raw vectors ``(n, d)`` of one space, finite.
        unit: int64 ``(n,)``: rows of one unit belong together anyway (a group), and are no news.
    """
    Z = standardise(X, np.arange(len(X))).apply(X)
    Z /= np.maximum(np.linalg.norm(Z, axis=1, keepdims=True), np.finfo(float).tiny)
    neighbour = _nearest(Z.astype(np.float32), unit)
    pairs = np.unique(np.sort(_listed(neighbour), axis=1), axis=0)
    distance = _distance(Z, pairs)
    exact = np.array([np.array_equal(X[a], X[b]) for a, b in pairs], dtype=bool)
    limit = _limit(_first_distance(pairs, distance, len(X)), exact=_rows_of(pairs[exact], len(X)))
    kept = np.flatnonzero(exact | (distance < limit))
    kept = kept[np.lexsort((pairs[kept, 1], pairs[kept, 0], distance[kept], ~exact[kept]))]
    return Twins(pairs[kept], 1 - distance[kept] ** 2 / 2, exact[kept], 1 - limit**2 / 2)


def _nearest(Z: NDArray[np.float32], unit: Rows) -> Rows:
    """Return the nearest rows of other units, ``(n, k)``; -1 where there are fewer."""
    k = min(N_NEAREST, len(Z))
    found = np.empty((len(Z), k), dtype=np.int64)
    for part in row_chunks(np.broadcast_to(np.float32(0), (len(Z), len(Z)))):
        similarity = Z[part] @ Z.T
        similarity[unit[part][:, None] == unit] = -np.inf
        top = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
        found[part] = np.where(np.isfinite(np.take_along_axis(similarity, top, axis=1)), top, -1)
    return found


def _listed(neighbour: Rows) -> Rows:
    row, place = np.nonzero(neighbour >= 0)
    return np.stack([row, neighbour[row, place]], axis=1)


def _distance(Z: Floats, pairs: Rows) -> Floats:
    """Distance of unit vectors, from their difference: the cosine itself has no digits left near 1."""
    parts = [pairs[part] for part in row_chunks(np.broadcast_to(np.float32(0), (len(pairs), Z.shape[1])))]
    gaps = [np.linalg.norm(Z[part[:, 0]] - Z[part[:, 1]], axis=1) for part in parts]
    return np.concatenate([np.empty(0), *gaps])


def _first_distance(pairs: Rows, distance: Floats, n: int) -> Floats:
    """Distance of each row to its nearest one, ``(n,)``; inf where it has none."""
    first = np.full(n, np.inf)
    for column in (0, 1):
        np.minimum.at(first, pairs[:, column], distance)
    return first


def _rows_of(pairs: Rows, n: int) -> NDArray[np.bool_]:
    found = np.zeros(n, dtype=bool)
    found[pairs.ravel()] = True
    return found


def _limit(first: Floats, *, exact: NDArray[np.bool_]) -> float:
    """Return the distance below which a pair is nearer than chance allows; 0 where the data cannot say."""
    usable = first[np.isfinite(first) & ~exact]
    if len(usable) < MIN_ROWS:
        return 0.0
    low, high = np.log(np.maximum(np.quantile(usable, [0.25, 0.75]), np.finfo(float).tiny))
    if high <= low:
        return 0.0
    level = np.log(-np.log1p(-np.array([0.25, 0.75])))
    dimension = (level[1] - level[0]) / (high - low)
    wanted = np.log(-np.log1p(-CHANCE / len(usable)))
    return float(np.exp(low - (level[0] - wanted) / dimension))
