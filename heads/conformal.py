"""Conformal prediction: sets of classes, or intervals, that hold the truth with a stated probability.

How wrong predictions of held-out rows were says how wide a set has to be. The scores are 1 - p(truth) for
classification (least ambiguous sets: Sadinle, Lei, Wasserman 2019, 10.1080/01621459.2017.1395341; never empty here) and
the absolute residual of each output for regression, taken from inner folds as in cross-conformal prediction
(Vovk 2015, 10.1007/s10472-013-9368-4). Rows of a group are alike, so what is exchangeable is the group: every group
weighs the same, and the statement is about a row of a new group (Lee, Barber, Willett 2023, arXiv 2306.06342).

The held-out models have seen fewer rows than the one that predicts, which keeps sets a little too wide rather than too
narrow; a guarantee for every distribution has only jackknife+/CV+, at 1 - 2 alpha and the price of keeping
all inner models (Barber et al. 2021, 10.1214/20-AOS1965). So every entry measures its coverage on rows that none of
these models has seen.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from heads.head import Float
from heads.metrics import COVERAGE_PERCENT, Interval, Scored, resamples

COVERAGE = 0.9
METHODS: Mapping[str, str] = {
    "classification": "least ambiguous sets on inner folds",
    "regression": "absolute residuals on inner folds",
}

Limits = tuple[float | None, ...]
"""The largest score inside: one for classification, one per output for regression; None: everything is inside."""


def fit_limits(kind: Literal["classification", "regression"], predicted: Float, y: Any, unit: NDArray[Any]) -> Limits:
    """Return the limits that held-out rows ask for.

    Args:
        kind: Of the task.
        predicted: Probabilities ``(m, c)`` or outputs ``(m, t)`` of m held-out rows.
        y: Their truth, ``(m,)`` or ``(m, t)``.
        unit: The group of each, or its own number, ``(m,)``.
    """
    is_classes = kind == "classification"
    scores = 1 - predicted[np.arange(len(y)), y][:, None] if is_classes else np.abs(predicted - y)
    _, place, counts = np.unique(unit, return_inverse=True, return_counts=True)
    weight = 1 / ((len(counts) + 1) * counts[place])  # a new group weighs as much as any other, and may be anywhere
    return tuple(_limit(column, weight) for column in scores.T)


def in_set(p: Float, limits: Sequence[Limits]) -> NDArray[np.bool_]:
    """Return which classes are in the set of each row, bool ``(n, c)``; the likeliest always is.

    Args:
        p: Probabilities ``(n, c)``.
        limits: Of each row's model, n of them.
    """
    edge = np.array([np.inf if limit is None else limit for [limit] in limits]).reshape(-1, 1)
    return np.asarray((1 - p <= edge) | (p == p.max(axis=1, keepdims=True)))


def half_widths(limits: Limits) -> Float:
    """Return how far the interval of each output reaches to either side, ``(t,)``; inf where there is no limit."""
    return np.array([np.inf if limit is None else limit for limit in limits])


def coverage_entry(scored: Scored, limits: Sequence[Limits], names: Sequence[str], *, seed: int) -> dict[str, Any]:
    """Return what the sets or intervals of scored rows were worth, JSON values only.

    Args:
        scored: m calibrated predictions, and the truth.
        limits: Of each fold's model, fitted on that fold's training rows alone.
        names: Of the outputs.
        seed: Of the resampling.

    Returns:
        stated: The share that shall hold the truth. coverage: The share that did, groups counted alike, with its 95 %
        interval. mean_set_size, or mean_width in the output's unit; None where nothing is excluded in some fold.
        outputs: the same per output, where there are several.
    """
    entry: dict[str, Any] = {"stated": COVERAGE, "method": METHODS[scored.kind]}
    entry["unbounded_folds"] = sum(any(limit is None for limit in one) for one in limits)
    if scored.kind == "classification":
        inside = in_set(scored.predicted, [limits[fold] for fold in scored.fold])
        covered = inside[np.arange(len(scored.y)), scored.y][:, None]
        size = float(inside.sum(axis=1).mean())
        return entry | {"coverage": _shares(covered, scored.unit, seed=seed)[0], "mean_set_size": size}
    reach = np.stack([half_widths(one) for one in limits])[scored.fold]
    covered = np.abs(scored.predicted - scored.y) <= reach
    found = _shares(covered, scored.unit, seed=seed)
    widths = [float(w) if np.isfinite(w) else None for w in 2 * reach.mean(axis=0)]
    outputs = {
        name: {"coverage": coverage, "mean_width": width}
        for name, coverage, width in zip(names, found, widths, strict=True)
    }
    return entry | (outputs[names[0]] if len(names) == 1 else {"outputs": outputs})


def _limit(scores: Float, weight: Float) -> float | None:
    """Return the least score up to which there is enough weight; None where all of it is too little."""
    order = np.argsort(scores)
    enough = np.flatnonzero(np.cumsum(weight[order]) >= COVERAGE - 1e-9)
    return float(scores[order][enough[0]]) if len(enough) else None


def _shares(covered: NDArray[np.bool_], unit: NDArray[np.int64], *, seed: int) -> list[Interval]:
    """Return the mean over units of the share of covered rows, per column, with its bootstrap interval."""
    counts = np.bincount(unit)
    share = np.stack([np.bincount(unit, column) for column in covered.T], axis=1) / counts[:, None]
    means = np.concatenate([counts @ share for counts in resamples(np.arange(len(share)), seed=seed)]) / len(share)
    low, high = np.percentile(means, COVERAGE_PERCENT, axis=0)
    several = len(share) > 1
    return [
        {"value": float(v), "low": float(a) if several else None, "high": float(b) if several else None}
        for v, a, b in zip(share.mean(axis=0), low, high, strict=True)
    ]
