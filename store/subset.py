"""A few rows for a quick look, drawn so that every class can still be learnt."""

import numpy as np
from numpy.typing import NDArray

from store.dataset import Dataset
from store.errors import InputError
from store.split import Split
from store.task import Task

MIN_PER_CLASS = 3
"""Training rows of each class of each task that are drawn before any others."""
MIN_SCORED = 2
"""Labelled rows of each task to score that are drawn next."""


def draw_subset(dataset: Dataset, split: Split, n_rows: int, *, held_out: bool, seed: int) -> NDArray[np.int64]:
    """Return row numbers of a subset, ascending; rows keep their roles.

    Args:
        dataset: All rows.
        split: Says which rows are trained on when its first part is scored.
        n_rows: How many of the rows that are not held out.
        held_out: Whether all held-out rows are in it too.
        seed: Another one, other rows.

    Raises:
        InputError: Fewer rows than hold every class and something to score.
    """
    fitting = split.fitting(dataset.ids)
    order = np.random.default_rng(seed).permutation(fitting)
    train, score = split.outer(dataset.ids)[0]
    first = _of_each_class(dataset, order[np.isin(order, train)])
    first = list(dict.fromkeys([*first, *_to_score(dataset, order[np.isin(order, score)])]))
    if n_rows < (n_least := max(2, len(first))):
        raise InputError(
            f"--subset {n_rows}: give {n_least} or more rows, with {MIN_PER_CLASS} of every class to learn from, "
            "where there are so many, and some to score"
        )
    drawn = np.array(list(dict.fromkeys([*first, *order.tolist()]))[:n_rows], dtype=np.int64)
    held = np.setdiff1d(np.arange(dataset.n_rows), fitting)
    return np.sort(np.concatenate([drawn, held])) if held_out else np.sort(drawn)


def _of_each_class(dataset: Dataset, order: NDArray[np.int64]) -> list[int]:
    """Return the first training rows in an order that have MIN_PER_CLASS of every class, or number, between them."""
    chosen: dict[int, None] = {}
    for task in dataset.tasks.values():
        for is_meant in _classes(task):
            members = order[is_meant[order]].tolist()
            n_lacking = MIN_PER_CLASS - sum(row in chosen for row in members)
            chosen |= dict.fromkeys([row for row in members if row not in chosen][: max(0, n_lacking)])
    return list(chosen)


def _classes(task: Task) -> list[NDArray[np.bool_]]:
    """Return the rows of each class, or those with a number, bool ``(n,)``."""
    if task.kind == "regression":
        return [task.labelled]
    return [(task.y == number) & task.applies for number in range(len(task.classes))]


def _to_score(dataset: Dataset, order: NDArray[np.int64]) -> list[int]:
    """Return the first scored rows in an order that have MIN_SCORED labels of every task."""
    tasks = dataset.tasks.values()
    return [row for task in tasks for row in order[task.labelled[order]][:MIN_SCORED].tolist()]
