"""Stratified, group-safe division of rows into folds; plain arrays in and out."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_BINS = 10
"""A regression target is stratified by its deciles at most."""

MAX_EXCHANGED = 1000
"""Of more groups, dealing them out alone makes folds that are alike; exchanging takes the square of their number."""

Rows = NDArray[np.int64]
"""Places in a dataset, ``(n,)``."""


def label_codes(y: NDArray[Any], labelled: NDArray[np.bool_], n_folds: int) -> Rows:
    """Return what one task is stratified by: its classes, or the quantile bin of each of its outputs.

    Args:
        y: int ``(n,)`` class indices, or float ``(n, t)`` values.
        labelled: bool ``(n,)``: the rows that count.
        n_folds: Bins are wide enough for one row per fold.

    Returns:
        int64 ``(n, 1)`` or ``(n, t)``, counted from 0; -1 where a row is not labelled.
    """
    columns = y.reshape(len(y), -1)
    codes = np.full(columns.shape, -1, dtype=np.int64)
    if np.issubdtype(y.dtype, np.integer):
        codes[labelled] = columns[labelled]
    elif labelled.any():
        n_bins = int(np.clip(labelled.sum() // n_folds, 1, MAX_BINS))
        inner_edges = np.linspace(0, 1, n_bins + 1)[1:-1]
        for column in range(columns.shape[1]):
            values = columns[labelled, column]
            codes[labelled, column] = np.searchsorted(np.quantile(values, inner_edges), values, side="right")
    return codes


def assign_folds(codes: Rows, groups: NDArray[Any] | None, n_folds: int, *, seed: int) -> Rows:
    """Divide rows into folds of like size and like label counts, for all labels at once.

    Iterative stratification (Sechidis, Tsoumakas, Vlahavas 2011, 10.1007/978-3-642-23808-6_10): rows with rare labels
    are dealt out first, each to the fold that still wants most of its labels. Extended here: what is dealt is a group,
    and both the order and a fold's wish are sums over all labels of the group, each as a share of the rows with that
    label (the original looks at the rarest only, and the frequent ones drift). This is the greedy descent on the sum
    over labels and folds of (count - expected)^2 / expected. Groups with the same labels are shared out first. A
    fold's size is one more label, with the weight of all tasks together.

    Args:
        codes: int64 ``(n, t)``: t labels per row, counted from 0; -1 for none.
        groups: ``(n,)``; rows of one group go together. None: each row by itself.
        n_folds: At most the number of groups; no fold is left empty then.
        seed: Settles the order and the ties.

    Returns:
        int64 ``(n,)``, the fold of each row, 0 to `n_folds` - 1.
    """
    unit = np.arange(len(codes)) if groups is None else np.unique(groups, return_inverse=True)[1]
    owner, label, count = _count_labels(codes, unit)
    totals = np.bincount(label, weights=count)
    shares = count / totals[label]
    shares[label == len(totals) - 1] *= max(codes.shape[1], 1)
    return _deal(owner, label, count, shares, n_folds=n_folds, seed=seed)[unit]


def inner_folds(
    labels: Iterable[NDArray[Any]], groups: NDArray[Any] | None, rows: Rows, *, n_folds: int = 4, seed: int
) -> list[tuple[Rows, Rows]]:
    """Divide one outer training set again, to choose among settings without seeing the rows they are scored on.

    The folds are dealt out as those of the split (`assign_folds`), for all labels at once; then groups change places
    as long as that makes the folds more alike, since few groups with many labels are not dealt out evenly.

    Args:
        labels: What the folds are to be alike in, beside their size: each task's labels over the whole dataset, int
            ``(n,)``, -1 where missing, or float ``(n, t)``, NaN.
        groups: ``(n,)`` over the whole dataset; rows of one group stay together. None: each row by itself.
        rows: int ``(m,)``: the outer training set.
        n_folds: Fewer where `rows` has fewer groups.
        seed: Another one, other folds.

    Returns:
        (fit, val) pairs of dataset indices in the order of `rows`; empty where `rows` has fewer than two groups.
    """
    own_groups = None if groups is None else groups[rows]
    n_folds = min(n_folds, len(rows) if own_groups is None else len(np.unique(own_groups)))
    if n_folds < 2:
        return []
    parts = [label_codes(y[rows], _is_labelled(y[rows]), n_folds) for y in labels]
    codes = np.concatenate([np.empty((len(rows), 0), dtype=np.int64), *parts], axis=1)
    folds = _exchange(assign_folds(codes, own_groups, n_folds, seed=seed), codes, own_groups)
    return [(rows[folds != fold], rows[folds == fold]) for fold in range(n_folds)]


def _is_labelled(y: NDArray[Any]) -> NDArray[np.bool_]:
    return y >= 0 if np.issubdtype(y.dtype, np.integer) else ~np.isnan(y.reshape(len(y), -1)).any(axis=1)


def _exchange(folds: Rows, codes: Rows, groups: NDArray[Any] | None) -> Rows:
    """Exchange two groups, or move one, as long as that lowers what `assign_folds` descends on, the best step first.

    Whole numbers throughout, so that every machine takes the same steps.
    """
    names = np.arange(len(codes)) if groups is None else groups
    _, first, unit = np.unique(names, return_index=True, return_inverse=True)
    if len(first) > MAX_EXCHANGED:
        return folds
    every = np.arange(folds.max() + 1)
    owner, label, count = _count_labels(codes, unit)
    weight = 2**30 // np.maximum(np.bincount(label, weights=count).astype(np.int64), 1)
    weight[-1] *= max(codes.shape[1], 1)
    counts = np.zeros((len(first) + len(every), len(weight)), dtype=np.int64)  # an empty unit per fold, for the moves
    counts[owner, label] = count
    weighted = counts * weight
    square = (weighted * counts).sum(axis=1)
    apart = square[:, None] + square - 2 * weighted @ counts.T
    place = np.concatenate([folds[first], every])
    while True:
        likeness = weighted @ (counts.T @ (place[:, None] == every).astype(np.int64))
        gain = likeness[:, place] - np.take_along_axis(likeness, place[:, None], axis=1)
        change = gain + gain.T + apart
        one, other = np.unravel_index(change.argmin(), change.shape)
        if change[one, other] >= 0:
            return place[unit]
        place[[one, other]] = place[[other, one]]
        place[len(first) :] = every


def _count_labels(codes: Rows, unit: Rows) -> tuple[Rows, Rows, Rows]:
    """Return (unit, label, count) triples sorted by unit; the last label is the one that every row has."""
    codes = np.column_stack([codes, np.zeros(len(codes), dtype=np.int64)])
    widths = codes.max(axis=0) + 1
    n_labels = int(widths.sum())
    flat = unit[:, None] * n_labels + codes + (np.cumsum(widths) - widths)
    entries, count = np.unique(flat[codes >= 0], return_counts=True)
    owner, label = np.divmod(entries, n_labels)
    return owner, label, count


def _deal(owner: Rows, label: Rows, count: Rows, shares: NDArray[np.float64], *, n_folds: int, seed: int) -> Rows:
    """Return the fold of each unit. Plain lists: a unit has few labels, and sums come out alike on every machine."""
    rng = np.random.default_rng(seed)
    first = np.flatnonzero(np.diff(owner, prepend=-1))
    folds = _deal_alike(first, label, count, n_folds=n_folds, rng=rng)
    weight = np.add.reduceat(shares, first) * rng.uniform(0.7, 1, len(first))  # else groups have but one order
    order = np.argsort(-weight, kind="stable")
    order = order[folds[order] < 0]
    ties = (rng.random((len(order), n_folds)) * 1e-9).tolist()
    wanted = [
        [0.0] * n_folds for _ in range(int(label.max()) + 1)
    ]  # alike for all at first, so only what is got counts
    starts, ends = first.tolist(), [*first[1:].tolist(), len(owner)]
    labels, counts, gains = label.tolist(), count.tolist(), shares.tolist()
    for unit, wishes in zip(order.tolist(), ties, strict=True):
        entries = range(starts[unit], ends[unit])
        for entry in entries:
            for fold, wish in enumerate(wanted[labels[entry]]):
                wishes[fold] += counts[entry] * wish
        folds[unit] = best = wishes.index(max(wishes))
        for entry in entries:
            wanted[labels[entry]][best] -= gains[entry]
    return folds


def _deal_alike(first: Rows, label: Rows, count: Rows, *, n_folds: int, rng: np.random.Generator) -> Rows:
    """Give every fold the same number of units with the same labels; -1 for the units that are left over."""
    marks = rng.integers(2**63, size=int(label.max()) + 1, dtype=np.uint64)
    signature = np.add.reduceat(marks[label] * count.astype(np.uint64), first)  # wraps; a clash costs only evenness
    order = np.lexsort((rng.random(len(first)), signature))
    _, start, n_alike = np.unique(signature[order], return_index=True, return_counts=True)
    place = np.arange(len(first)) - np.repeat(start, n_alike)
    folds = np.empty(len(first), dtype=np.int64)
    folds[order] = np.where(place < np.repeat(n_alike // n_folds * n_folds, n_alike), place % n_folds, -1)
    return folds
