"""A few rows for a quick look, drawn so that every class can still be learnt."""

import numpy as np
from numpy.typing import NDArray

from store.dataset import Dataset
from store.errors import InputError
from store.split import Split

MIN_PER_CLASS = 3
"""Training rows of each class of each task that are drawn before any others."""


def draw_subset(dataset: Dataset, split: Split, n_rows: int, *, held_out: bool, seed: int) -> NDArray[np.int64]:
    """Return row numbers of a subset, ascending; rows keep their roles.

    Args:
        dataset: All rows.
        split: Says which rows are trained on when its first part is scored.
        n_rows: How many of the rows that are not held out.
        held_out: Whether all held-out rows are in it too.
        seed: Another one, other rows.

    Raises:
        InputError: Fewer than two rows.
    """
    if n_rows < 2:
        raise InputError(f"--subset {n_rows}: give 2 or more rows")
    fitting = split.fitting(dataset.ids)
    order = np.random.default_rng(seed).permutation(fitting)
    first = _of_each_class(dataset, order[np.isin(order, split.outer(dataset.ids)[0][0])])
    drawn = np.array(list(dict.fromkeys([*first, *order.tolist()]))[:n_rows], dtype=np.int64)
    held = np.setdiff1d(np.arange(dataset.n_rows), fitting)
    return np.sort(np.concatenate([drawn, held])) if held_out else np.sort(drawn)


def _of_each_class(dataset: Dataset, order: NDArray[np.int64]) -> list[int]:
    """Return the first training rows in an order that have MIN_PER_CLASS of every class between them."""
    chosen: dict[int, None] = {}
    for task in dataset.tasks.values():
        for number in range(len(task.classes)):
            members = order[(task.y[order] == number) & task.applies[order]].tolist()
            n_lacking = MIN_PER_CLASS - sum(row in chosen for row in members)
            chosen |= dict.fromkeys([row for row in members if row not in chosen][: max(0, n_lacking)])
    return list(chosen)
