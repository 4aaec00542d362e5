"""A task cut into models to fit: which rows train, which choose, which score."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from heads.head import Head, Job, balanced_weights
from heads.held_out import predicted
from heads.matrix import FeatureMatrix
from heads.metrics import Scored
from store import Dataset, InputError, Rows, Task, inner_folds

N_INNER = 4


@dataclass(frozen=True)
class Plan:
    """One task on the complete rows of a matrix.

    Attributes:
        task: The task, in dataset order.
        rows: Dataset rows that take part, ``(m,)``, the same for every task of a split; all indices below count in
            them. Rows that are held out are not even there.
        jobs: One model each.
        score: Rows that each job's model is scored on, as `jobs`.
        groups: Group number of each of the m rows, or None.
        n_left_out: Labelled rows without a vector.
    """

    task: Task
    rows: Rows
    jobs: tuple[Job, ...]
    score: tuple[Rows, ...]
    groups: Rows | None
    n_left_out: int

    def part(self, numbers: Sequence[int]) -> "Plan":
        """Return the plan of some of the jobs, on the same rows."""
        jobs, score = tuple(self.jobs[i] for i in numbers), tuple(self.score[i] for i in numbers)
        return replace(self, jobs=jobs, score=score)

    def scored(self, heads: Iterable[Head], X: NDArray[np.float32]) -> Scored:
        """Return the predictions of each head for its rows, pooled.

        Args:
            heads: As `jobs`.
            X: float32 ``(m, d)``, raw.
        """
        kind, n_classes = self.task.kind, len(self.task.classes)
        return self.pooled(
            [predicted(head, X[rows], kind, n_classes) for head, rows in zip(heads, self.score, strict=True)]
        )

    def pooled(self, parts: Sequence[NDArray[np.float64]]) -> Scored:
        """Return the predictions of the rows to score, a part per job, beside the truth."""
        rows = np.concatenate(self.score)
        unit = rows if self.groups is None else self.groups[rows]
        return Scored(
            kind=self.task.kind,
            y=self.task.y[self.rows][rows],
            predicted=np.concatenate(parts),
            fold=np.repeat(np.arange(len(self.score)), [len(rows) for rows in self.score]),
            unit=np.unique(unit, return_inverse=True)[1],
            weights=self.task.weights if self.task.kind == "regression" else np.ones(1),
            row=self.rows[rows],
        )


def make_plan(
    dataset: Dataset, matrix: FeatureMatrix, task: Task, *, pairs: Iterable[tuple[Rows, Rows]], seed: int
) -> Plan:
    """Cut a task along the pairs of a split.

    Tasks that train on the very same rows share their inner folds, which are alike in all of them, whichever of them
    are run: what is fitted for several tasks is then fitted on few sets of rows.

    Args:
        dataset: n rows.
        matrix: Their features; rows without a vector stand aside.
        task: What is predicted; rows without a label, or where it does not apply, stand aside. It need not be one of
            the dataset's.
        pairs: (training rows, rows to score) in dataset order; a pair without any row to score still trains.
        seed: Of the inner folds.

    Raises:
        InputError: A training part has no labelled row.
    """
    pairs = list(pairs)
    member = np.zeros(dataset.n_rows, dtype=bool)
    member[np.concatenate([part for pair in pairs for part in pair])] = True
    rows = np.flatnonzero(matrix.complete & member)
    position = np.full(dataset.n_rows, -1)
    position[rows] = np.arange(len(rows))
    usable = task.labelled & matrix.complete
    jobs, score = [], []
    for train, held in pairs:
        inner = _inner_folds(dataset, task, train[matrix.complete[train]], seed=seed)
        jobs.append(_job(task, train[usable[train]], inner, position=position, rows=rows))
        score.append(position[held[usable[held]]])
    groups = None if dataset.groups is None else np.unique(dataset.groups[rows], return_inverse=True)[1]
    n_left_out = int((task.labelled & ~matrix.complete & member).sum())
    return Plan(task, rows, tuple(jobs), tuple(score), groups, n_left_out)


def _inner_folds(dataset: Dataset, task: Task, rows: Rows, *, seed: int) -> list[tuple[Rows, Rows]]:
    """Divide the labelled ones of some rows, alike in every task that is labelled on the same ones."""
    labelled = task.labelled[rows]
    tasks = sorted({**dataset.tasks, task.name: task}.items())
    shared = [other.y for _, other in tasks if np.array_equal(other.labelled[rows], labelled)]
    return inner_folds(shared, dataset.groups, rows[labelled], n_folds=N_INNER, seed=seed)


def _job(task: Task, train: Rows, inner: Sequence[tuple[Rows, Rows]], *, position: Rows, rows: Rows) -> Job:
    if not len(train):
        raise InputError(
            f"task {task.name!r}: a training part has no labelled row with features. "
            "Label more rows, or leave the task out with --task."
        )
    return Job(
        kind=task.kind,
        y=task.y[rows],
        n_classes=len(task.classes),
        train=position[train],
        inner=tuple((position[fit], position[stop]) for fit, stop in inner),
        sample_weight=_weights(task, train, position=position, rows=rows),
        output_weights=None if task.kind == "classification" else task.weights,
    )


def _weights(task: Task, train: Rows, *, position: Rows, rows: Rows) -> NDArray[np.float64] | None:
    """Return how much each of `rows` counts in fitting on `train`; class weights multiply those of the rows.

    Rows weigh 1 on average, so that weights counted in thousands do not make penalties a thousand times weaker.
    """
    if task.class_weight is None and task.sample_weight is None:
        return None
    weight = np.ones(len(rows)) if task.sample_weight is None else np.nan_to_num(task.sample_weight[rows])
    weight /= weight[position[train]].mean()
    if task.class_weight == "balanced":
        weight = weight * balanced_weights(task.y[rows], position[train])
    return weight
