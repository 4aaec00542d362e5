"""Which share of a number's variance goes with labels, with groups, or with labels inside of groups.

Shares are adjusted for what as many labels would explain by chance (adjusted R squared; for classes it is Kelley's
epsilon squared, 1935, 10.1073/pnas.21.9.554), and never below 0.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_NOTHING = 1e-9  # of the labels' own scale: what rounding leaves of labels that are constant in every group


def share_between(values: NDArray[np.float64], labels: NDArray[np.float64], groups: Any = None) -> float | None:
    """Return the share of the variance that a linear function of the labels explains.

    Args:
        values: float64 ``(n,)``.
        labels: ``(n, p)``: a column of 0 and 1 per class, or numbers.
        groups: ``(n,)``: what remains after the mean of each group is taken off values and labels; None for one group.

    Returns:
        0 to 1; None where it cannot be told: constant values or labels, or too few rows.
    """
    codes = np.unique(np.zeros(len(values)) if groups is None else groups, return_inverse=True)[1]
    centred = _off_means(values[:, None], codes)[:, 0]
    directions, sizes, _ = np.linalg.svd(_off_means(labels.astype(np.float64), codes), full_matrices=False)
    directions = directions[:, sizes > _NOTHING * max(1e-300, float(np.abs(labels).max(initial=0)))]
    rest = centred - directions @ (directions.T @ centred)
    n_free = len(values) - len(np.unique(codes))
    return _adjusted(rest, n_free - directions.shape[1], centred, n_free) if directions.shape[1] else None


def share_between_groups(values: NDArray[np.float64], groups: Any) -> float | None:
    """Return the share of the variance that lies between groups; None where it cannot be told."""
    codes = np.unique(groups, return_inverse=True)[1]
    within, overall = (_off_means(values[:, None], c)[:, 0] for c in (codes, np.zeros_like(codes)))
    return _adjusted(within, len(values) - len(np.unique(codes)), overall, len(values) - 1)


def _off_means(columns: NDArray[np.float64], codes: NDArray[np.int64]) -> NDArray[np.float64]:
    sums = np.stack([np.bincount(codes, column) for column in columns.T], axis=1)
    return columns - (sums / np.bincount(codes)[:, None])[codes]


def _adjusted(rest: NDArray[np.float64], n_free_rest: int, total: NDArray[np.float64], n_free: int) -> float | None:
    if n_free_rest < 1 or not (variance := float(total @ total) / n_free):
        return None
    return max(0.0, 1 - float(rest @ rest) / n_free_rest / variance)
