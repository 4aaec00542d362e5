"""Which networks a run trains on which rows, and which of these are kept out of training to choose the best epoch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from store import Dataset, InputError, Rows, Split, Task, inner_folds

N_PARTS = 8  # one of them is kept out
KEPT = "."  # the folder, in the run's own, of the network that is kept


@dataclass(frozen=True)
class Fit:
    """One network of a run.

    Attributes:
        folder: In the run's own.
        train: Rows to train on.
        stop: Rows that choose the best epoch.
        score: Rows to score.
    """

    folder: str
    train: Rows
    stop: Rows
    score: Rows


def plan_fits(dataset: Dataset, split: Split, *, fold: int | None, final: bool, seed: int) -> list[Fit]:
    """Return the networks that a run trains, the one that is kept last.

    Where there are several folds, or test rows are scored, that is one more, which may learn from every row that is not
    held out.

    Args:
        dataset: With the run's tasks alone.
        split: Its folds, or train and val.
        fold: Score this one alone.
        final: Score the test rows.
        seed: Of what is kept out.

    Raises:
        InputError: `final`, and no row is held out; or as `keep_some_out`.
    """
    pairs = split.outer(dataset.ids, fold=fold)
    folders = [KEPT]
    if final or len(pairs) > 1:
        folders = [*(f"fold-{number}" for number in range(len(pairs))), KEPT]
        pairs = [*pairs, _all_held_out(dataset, split) if final else split.whole(dataset.ids)]
    return [
        Fit(folder, *keep_some_out(dataset, train, seed=seed), score)
        for folder, (train, score) in zip(folders, pairs, strict=True)
    ]


def _all_held_out(dataset: Dataset, split: Split) -> tuple[Rows, Rows]:
    pairs = list(split.held_out_pairs(dataset.ids).values())
    return pairs[0][0], np.sort(np.concatenate([held for _, held in pairs]))


def with_tasks(dataset: Dataset, tasks: Sequence[str]) -> Dataset:
    """Return a dataset with these tasks alone, in its own order; without any named, with all."""
    chosen = {name: task for name, task in dataset.tasks.items() if not tasks or name in tasks}
    return replace(dataset, tasks=chosen)


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
    parts = inner_folds([task.y for task in tasks], dataset.groups, labelled, n_folds=N_PARTS, seed=seed)
    if not parts:
        units = "rows" if dataset.groups is None else "groups"
        raise InputError(f"fine-tuning needs two labelled {units} or more to train on: some choose the best epoch")
    return max(parts, key=lambda part: sum(_n_classes(task, part[0]) for task in tasks))  # the first of the best


def _n_classes(task: Task, rows: Rows) -> int:
    return len(np.unique(task.y[rows[task.labelled[rows]]])) if task.kind == "classification" else 0
