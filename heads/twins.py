"""Rows that show the same thing: exact and near duplicates, found in stored vectors.

How near is too near is read from the data. In a neighbourhood of intrinsic dimension d, the distance to the nearest
neighbour follows a Weibull law, P(r1 < r) = 1 - exp(-(r / scale)^d) (Levina and Bickel 2004, "Maximum likelihood
estimation of intrinsic dimension"; Facco et al. 2017, 10.1038/s41598-017-11873-y). Its quartiles, which a few
duplicates do not move, give d and scale; rows nearer than that law allows once in twenty datasets are near duplicates.
"""

from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from heads.head import Float, Standardiser, row_chunks, standardise
from store import Rows

N_NEAREST = 5  # kept per row; larger families of duplicates hang together through them
CHANCE = 0.05  # of one false near duplicate among all rows
TILE = 1024  # rows and columns of similarities computed at a time
MIN_ROWS = 20  # fewer have no quartiles worth the name: only exact duplicates are found then


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
    similarity: Float
    is_exact: NDArray[np.bool_]
    threshold: float


def find_twins(X: NDArray[np.float32], unit: Rows) -> Twins:
    """Find pairs of rows of different units that are alike.

    Args:
        X: Raw vectors ``(n, d)`` of one space, finite.
        unit: int64 ``(n,)``: rows of one unit belong together anyway (a group), and are no news.
    """
    scale = standardise(X, np.arange(len(X)))
    near = _nearest(np.concatenate([_unit_vectors(scale, X[part]).astype(np.float32) for part in row_chunks(X)]), unit)
    pairs = np.unique(np.sort(np.concatenate([_listed(near), _same(X, unit)]), axis=1), axis=0)
    distance, exact = _distance(X, pairs, scale)
    limit = _limit(_first_distance(pairs, distance, len(X)), exact=_rows_of(pairs[exact], len(X)))
    kept = np.flatnonzero(exact | (distance < limit))
    kept = kept[np.lexsort((pairs[kept, 1], pairs[kept, 0], distance[kept], ~exact[kept]))]
    return Twins(pairs[kept], 1 - distance[kept] ** 2 / 2, exact[kept], 1 - limit**2 / 2)


def _unit_vectors(scale: Standardiser, X: NDArray[np.float32]) -> Float:
    Z = scale.apply(X)
    return np.asarray(Z / np.maximum(np.linalg.norm(Z, axis=1, keepdims=True), np.finfo(float).tiny))


def _same(X: NDArray[np.float32], unit: Rows) -> Rows:
    """Return each row that is the same as an earlier one of another unit, with the first such, ``(p, 2)``."""
    first: dict[bytes, int] = {}
    earlier = np.array([first.setdefault(sha256(row.tobytes()).digest(), i) for i, row in enumerate(X)])
    again = np.flatnonzero(unit[earlier] != unit)
    return np.stack([earlier[again], again], axis=1)


def _nearest(Z: NDArray[np.float32], unit: Rows) -> Rows:
    """Return the nearest rows of other units, ``(n, k)``; -1 where there are fewer.

    Every tile of the matrix of similarities is computed once and serves its rows and its columns.
    """
    k = min(N_NEAREST, len(Z))
    top, found = np.full((len(Z), k), -np.inf, dtype=np.float32), np.full((len(Z), k), -1)
    tiles = [slice(start, start + TILE) for start in range(0, len(Z), TILE)]
    for i, rows in enumerate(tiles):
        for columns in tiles[i:]:
            similarity = Z[rows] @ Z[columns].T
            np.putmask(similarity, unit[rows][:, None] == unit[columns], -np.inf)
            _keep(top[rows], found[rows], similarity, columns.start)
            if columns is not rows:
                _keep(top[columns], found[columns], similarity.T, rows.start)
    return found


def _keep(top: NDArray[np.float32], found: Rows, similarity: NDArray[np.float32], start: int) -> None:
    """Put what is more similar than the best so far in its place.

    Args:
        top: The k best similarities of m rows, ``(m, k)``; changed.
        found: Whose they are, ``(m, k)``; changed.
        similarity: Of the m rows with some others, ``(m, t)``.
        start: Number of the first of the others.
    """
    hit = np.flatnonzero(similarity.max(axis=1) > top.min(axis=1))
    both = np.concatenate([top[hit], similarity[hit]], axis=1)
    k = top.shape[1]
    place = np.argpartition(both, -k, axis=1)[:, -k:]
    top[hit] = np.take_along_axis(both, place, axis=1)
    earlier = np.take_along_axis(found[hit], np.minimum(place, k - 1), axis=1)
    new = np.where(place < k, earlier, start + place - k)
    found[hit] = np.where(np.isfinite(top[hit]), new, -1)


def _listed(neighbour: Rows) -> Rows:
    row, place = np.nonzero(neighbour >= 0)
    return np.stack([row, neighbour[row, place]], axis=1)


def _distance(X: NDArray[np.float32], pairs: Rows, scale: Standardiser) -> tuple[Float, NDArray[np.bool_]]:
    """Return the distance of the unit vectors of each pair, and whether the vectors are the same to the last bit.

    It is that of their difference: the cosine itself has no digits left near 1.
    """
    distance, exact = np.empty(len(pairs)), np.empty(len(pairs), dtype=bool)
    for part in row_chunks(np.broadcast_to(np.float32(0), (len(pairs), X.shape[1]))):
        one, other = X[pairs[part, 0]], X[pairs[part, 1]]
        distance[part] = np.linalg.norm(_unit_vectors(scale, one) - _unit_vectors(scale, other), axis=1)
        exact[part] = (one == other).all(axis=1)
    return distance, exact


def _first_distance(pairs: Rows, distance: Float, n: int) -> Float:
    """Distance of each row to its nearest one, ``(n,)``; inf where it has none."""
    first = np.full(n, np.inf)
    for column in (0, 1):
        np.minimum.at(first, pairs[:, column], distance)
    return first


def _rows_of(pairs: Rows, n: int) -> NDArray[np.bool_]:
    found = np.zeros(n, dtype=bool)
    found[pairs.ravel()] = True
    return found


def _limit(first: Float, *, exact: NDArray[np.bool_]) -> float:
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
