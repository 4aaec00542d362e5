"""Which training rows are kept out of training to choose the best epoch."""

import numpy as np
from numpy.typing import NDArray

from store import Dataset, InputError, Task, inner_folds

N_PARTS = 8  # one of them is kept out
Rows = NDArray[np.int64]


def keep_some_out(dataset: Dataset, rows: Rows, *, seed: int) -> tuple[Rows, Rows]:
    """Return rows to train on, and rows that choose the best epoch; a group is on one side only.

    Of the possible parts it is the first that leaves every class of every task in training, where there is one.

    Args:
        dataset: All rows, with at least one task.
        rows: Training rows; those without any label stay behind.
        seed: Of the division.

    Raises:
        InputError: Fewer than two groups, or rows, have a label.
    """
    tasks = list(dataset.tasks.values())
    labelled = rows[np.any([task.labelled[rows] for task in tasks], axis=0)]
    is_classes = tasks[0].kind == "classification"
    parts = inner_folds(tasks[0].y, dataset.groups, labelled, n_folds=N_PARTS, seed=seed, stratify=is_classes)
    if not parts:
        units = "rows" if dataset.groups is None else "groups"
        raise InputError(f"fine-tuning needs two labelled {units} or more to train on: some choose the best epoch")
    return max(parts, key=lambda part: sum(_n_classes(task, part[0]) for task in tasks))  # the first of the best


def _n_classes(task: Task, rows: Rows) -> int:
    return len(np.unique(task.y[rows[task.labelled[rows]]])) if task.kind == "classification" else 0
