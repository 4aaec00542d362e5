"""How well scores put a class's rows before the others: areas under two curves, of weighted rows.

Only rows of one fold are compared: across folds the models differ, and a pooled area of a model that sees nothing
falls below one half (Forman and Scholz 2010, 10.1145/1882471.1882479).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heads.head import Float
from heads.ratio import ratio


@dataclass(frozen=True)
class Ranking:
    """What has each of k distinct scores, the highest first, fold by fold, in r resamples.

    Attributes:
        positive: ``(k, r)`` how many rows of the class.
        rows: ``(k, r)`` how many rows of any class.
        starts: ``(f,)`` where each fold begins.
    """

    positive: Float
    rows: Float
    starts: NDArray[np.int64]

    def down_to(self, counts: Float) -> Float:
        """Return how many there are at this and higher scores of the same fold, ``(k, r)``."""
        down = np.cumsum(counts, axis=0)
        ends = np.r_[self.starts[1:], len(down)]
        for start, end in zip(self.starts[:0:-1], ends[:0:-1], strict=True):  # the last first: the others still add up
            down[start:end] -= down[start - 1]
        return down

    def of_folds(self, counts: Float) -> Float:
        """Return how many each fold has, ``(f, r)``."""
        return np.add.reduceat(counts, self.starts, axis=0)


def rank(score: Float, positive: NDArray[np.bool_], fold: NDArray[np.int64], counts: Float) -> Ranking:
    """Sort m rows by what a class scores, ``(m,)``; counts are ``(r, m)``: how often each row is drawn."""
    order = np.lexsort((-score, fold))
    score, fold, weights = score[order], fold[order], counts.T[order]
    new_fold = np.r_[True, fold[1:] != fold[:-1]]
    places = np.flatnonzero(new_fold | np.r_[True, score[1:] != score[:-1]])
    of_class, of_any = (np.add.reduceat(each, places, axis=0) for each in (weights * positive[order, None], weights))
    return Ranking(of_class, of_any, np.flatnonzero(new_fold[places]))


def area(ranking: Ranking) -> Float:
    """Return the share of (positive, negative) pairs in the right order, ``(r,)``; ties count half."""
    positive, negative = ranking.positive, ranking.rows - ranking.positive
    right = negative * (ranking.down_to(positive) - positive / 2)
    pairs = ranking.of_folds(positive) * ranking.of_folds(negative)
    return ratio(right.sum(axis=0), pairs.sum(axis=0))


def average_precision(ranking: Ranking) -> Float:
    """Return the mean over the class's rows of the precision down to their score, ``(r,)``.

    Nothing is interpolated (Davis and Goadrich 2006, 10.1145/1143844.1143874), as in scikit-learn.
    """
    rows = np.maximum(ranking.down_to(ranking.rows), 1)  # where there are none, none are found either
    found = ranking.positive * ranking.down_to(ranking.positive) / rows
    return ratio(found.sum(axis=0), ranking.positive.sum(axis=0))
