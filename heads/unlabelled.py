"""Rows without a label, put to use: labelled by the head itself where it is sure, or by the rows that lie around them.

Self-training: Yarowsky 1995, "Unsupervised word sense disambiguation rivaling supervised methods",
10.3115/981658.981684. The strength of the head is chosen on labelled rows alone, and what is scored has given neither
labels nor features.
Label spreading: Zhou et al. 2004, "Learning with local and global consistency", NIPS 16, over nearest neighbours.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from heads.head import Head, Job, standardise
from heads.held_out import spread
from heads.metrics import Scored
from heads.plan import Plan
from heads.registry import HEADS
from heads.sweep import Sweep
from store import Rows

SURE = 0.9
N_ROUNDS = 3
N_NEIGHBOURS = 7  # scikit-learn's default
MAX_STEPS = 200


def unlabelled(sweep: Sweep, plan: Plan) -> list[Rows]:
    """Return the rows without a label in each job's training part; none where every row has one, or of a regression.

    Args:
        sweep: Whose outer pairs the plan was cut along, in the same order.
        plan: Of one task.
    """
    task = plan.task
    missing = (task.applies & ~task.labelled)[plan.rows]
    if task.kind == "regression" or not missing.any():
        return []
    outer = [train for train, score in sweep.pairs if (task.labelled & sweep.matrix.complete)[score].any()]
    return [np.flatnonzero(missing & np.isin(plan.rows, train)) for train in outer]


def with_more(
    plan: Plan, X: NDArray[np.float32], more: NDArray[np.float32], *, spare: Sequence[Rows]
) -> tuple[Plan, NDArray[np.float32], list[Rows]]:
    """Put e rows that no split knows behind those of a plan; every job may learn from all of them.

    Args:
        plan: Of a classification.
        X: Raw rows of the plan ``(m, d)``.
        more: Raw rows without a label ``(e, d)``.
        spare: As `unlabelled` gives them.

    Returns:
        The plan, X ``(m + e, d)`` and the rows without a label, for `self_trained` and `label_spread`.
    """
    own = np.arange(len(X), len(X) + len(more))
    before = spare or [np.empty(0, np.int64)] * len(plan.jobs)
    longer = replace(plan, jobs=tuple(_longer(job, len(more)) for job in plan.jobs))
    return longer, np.concatenate([X, more]), [np.concatenate([rows, own]) for rows in before]


def self_trained(
    sweep: Sweep, plan: Plan, heads: Sequence[Head], X: NDArray[np.float32], *, spare: Sequence[Rows], head: str
) -> tuple[float, Scored]:
    """Fit the jobs of a plan again with unlabelled rows of their training parts.

    Args:
        sweep: Says the seed.
        plan: Of a classification; numbers have no sure prediction.
        heads: Fitted on labelled rows.
        X: Raw rows of the plan ``(m, d)``.
        spare: As `unlabelled` gives them.
        head: Name of the family.

    Returns:
        How many unlabelled rows were used (mean over folds), and what is scored.
    """
    jobs: Sequence[Job] = plan.jobs
    for _ in range(N_ROUNDS):
        taught = [_teach(job, one, X, rows) for job, one, rows in zip(plan.jobs, heads, spare, strict=True)]
        jobs = taught
        heads = HEADS[head].fit(X, jobs, seed=sweep.seed)
    n_used = np.mean([len(new.train) - len(old.train) for new, old in zip(jobs, plan.jobs, strict=True)])
    return float(n_used), plan.scored(heads, X)


def label_spread(plan: Plan, X: NDArray[np.float32], *, spare: Sequence[Rows]) -> tuple[float, Scored]:
    """Spread the labels of each job's training part over its unlabelled rows, and from both to the rows to score.

    Args:
        plan: Of a classification.
        X: Raw rows of the plan ``(m, d)``.
        spare: As `unlabelled` gives them.

    Returns:
        How many unlabelled rows were used (mean over folds), and what is scored.
    """
    parts = zip(plan.jobs, spare, plan.score, strict=True)
    found = [_spread_labels(job, X, rows, score) for job, rows, score in parts]
    return float(np.mean([len(rows) for rows in spare])), plan.pooled(found)


def _spread_labels(job: Job, X: NDArray[np.float32], rows: Rows, score: Rows) -> NDArray[np.float64]:
    from sklearn.semi_supervised import LabelSpreading

    train = np.concatenate([job.train, rows])
    y = np.concatenate([job.y[job.train], np.full(len(rows), -1)])
    scale = standardise(X, train)
    n_neighbours = min(N_NEIGHBOURS, len(train))
    model = LabelSpreading(kernel="knn", n_neighbors=n_neighbours, max_iter=MAX_STEPS).fit(scale.apply(X[train]), y)
    return spread(model.predict_proba(scale.apply(X[score])), model.classes_, job.n_classes)


def _longer(job: Job, n_rows: int) -> Job:
    """Return the job with rows behind its own, which nothing is known of."""
    weight = job.sample_weight
    y = np.concatenate([job.y, np.full(n_rows, -1)])
    return replace(job, y=y, sample_weight=None if weight is None else np.concatenate([weight, np.ones(n_rows)]))


def _teach(job: Job, head: Head, X: NDArray[np.float32], rows: Rows) -> Job:
    """Return the job with those of `rows` that the head is sure about; inner folds stay as they are."""
    if not len(rows):
        return job
    p = head.predict_proba(X[rows])
    sure = p.max(axis=1) >= SURE
    y = job.y.copy()
    y[rows[sure]] = head.classes_[p[sure].argmax(axis=1)]
    weight = job.sample_weight
    if weight is not None:
        weight = weight.copy()
        weight[rows[sure]] = weight[job.train].mean()
    return replace(job, y=y, train=np.concatenate([job.train, rows[sure]]), sample_weight=weight)
