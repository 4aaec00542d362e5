"""How well scores put a class's rows before the others: areas under two curves, of weighted rows.

Only rows of one fold are compared: across folds the models differ, and a pooled area of a model that sees nothing
falls below one half (Forman and Scholz 2010, 10.1145/1882471.1882479).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.head import Float
from heads.ratio import ratio


@dataclass(frozen=True)
class Ranking:
    """Where m rows stand by what a class scores: k places, the scores of its rows, the highest first, fold by fold.

    Attributes:
        of_class: ``(k, m)`` sparse: 1 for the rows of the class at a place.
        others: ``(k, m)`` sparse: 1 for the other rows at a place, or between it and the place before.
        ties: ``(k, m)`` sparse: 1 for the other rows at a place.
        folds: ``(f, m)`` sparse: 1 for the other rows of each fold that has places.
        starts: ``(f,)`` the first place of each fold.
    """

    of_class: Any
    others: Any
    ties: Any
    folds: Any
    starts: NDArray[np.int64]

    def down_to(self, counts: Float) -> Float:
        """Return how many there are at this and higher places of the same fold, ``(k, r)``."""
        down = np.cumsum(counts, axis=0)
        ends = np.r_[self.starts[1:], len(down)]
        for start, end in zip(self.starts[:0:-1], ends[:0:-1], strict=True):  # the last first: the others still add up
            down[start:end] -= down[start - 1]
        return down


def rank(score: Float, is_class: NDArray[np.bool_], fold: NDArray[np.int64]) -> Ranking:
    """Sort m rows by what a class scores, ``(m,)``."""
    order = np.lexsort((-score, fold))
    score, fold, is_class = score[order], fold[order], is_class[order]
    level = np.cumsum(np.r_[True, (fold[1:] != fold[:-1]) | (score[1:] != score[:-1])]) - 1
    is_place = np.bincount(level, is_class) > 0
    place: NDArray[np.int64] = (np.cumsum(is_place) - is_place)[
        level
    ]  # this or the next one down, maybe of a later fold
    fold_of_place = fold[is_class][np.r_[True, np.diff(place[is_class]) > 0]] if is_class.any() else fold[:0]
    names, starts = np.unique(fold_of_place, return_index=True)
    is_above = np.r_[fold_of_place, fold[-1] + 1][place] == fold

    def ones(here: NDArray[np.bool_], line: NDArray[np.int64], n_lines: int) -> Any:
        from scipy.sparse import csr_array

        return csr_array((np.ones(here.sum()), (line[here], order[here])), shape=(n_lines, len(order)))

    k, other = len(fold_of_place), ~is_class
    number = np.searchsorted(names, fold)
    return Ranking(
        ones(is_class, place, k),
        ones(other & is_above, place, k),
        ones(other & is_place[level], place, k),
        ones(other & np.isin(fold, names), number, len(names)),
        starts,
    )


def area(ranking: Ranking, counts: Float) -> Float:
    """Return the share of (row of the class, other row) pairs in the right order, ``(r,)``; ties count half.

    Args:
        ranking: Of m rows.
        counts: ``(m, r)``, how often each row is drawn.
    """
    found = ranking.of_class @ counts
    wrong = found * (ranking.down_to(ranking.others @ counts) - ranking.ties @ counts / 2)
    pairs = (np.add.reduceat(found, ranking.starts, axis=0) * (ranking.folds @ counts)).sum(axis=0)
    return ratio(pairs - wrong.sum(axis=0), pairs)


def average_precision(ranking: Ranking, counts: Float) -> Float:
    """Return the mean over the class's rows of the precision down to their score, ``(r,)``.

    Nothing is interpolated (Davis and Goadrich 2006, 10.1145/1143844.1143874), as in scikit-learn.

    Args:
        ranking: Of m rows.
        counts: ``(m, r)``, how often each row is drawn.
    """
    found = ranking.of_class @ counts
    right = ranking.down_to(found)
    rows = np.maximum(right + ranking.down_to(ranking.others @ counts), 1)  # where there are none, none are found
    return ratio((found * right / rows).sum(axis=0), found.sum(axis=0))
