"""Rows without a label, labelled by the head itself where it is sure, and fitted on with the rest.

Yarowsky 1995, "Unsupervised word sense disambiguation rivaling supervised methods", 10.3115/981658.981684. The strength
of the head is chosen on labelled rows alone, and what is scored has given neither labels nor features.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from heads.head import Head, Job
from heads.metrics import Scored
from heads.plan import Plan
from heads.registry import HEADS
from heads.sweep import Sweep

SURE = 0.9
N_ROUNDS = 3

Rows = NDArray[np.int64]


def self_trained(
    sweep: Sweep, plan: Plan, heads: Sequence[Head], X: NDArray[np.float32], *, head: str
) -> tuple[int, float, Scored] | None:
    """Fit the jobs of a plan again with unlabelled rows of their training parts.

    Args:
        sweep: Whose outer pairs the plan was cut along, in the same order.
        plan: Of a classification; numbers have no sure prediction.
        heads: Fitted on labelled rows.
        X: Raw rows of the plan ``(m, d)``.
        head: Name of the family.

    Returns:
        How many rows have no label, how many of them were used (mean over folds), and what is scored; None where every
        row has a label.
    """
    task = plan.task
    missing = (task.applies & ~task.labelled)[plan.rows]
    if task.kind == "regression" or not missing.any():
        return None
    outer = [train for train, score in sweep.pairs if (task.labelled & sweep.matrix.complete)[score].any()]
    spare = [np.flatnonzero(missing & np.isin(plan.rows, train)) for train in outer]
    jobs: Sequence[Job] = plan.jobs
    for _ in range(N_ROUNDS):
        taught = [_teach(job, one, X, rows) for job, one, rows in zip(plan.jobs, heads, spare, strict=True)]
        jobs = taught
        heads = HEADS[head].fit(X, jobs, seed=sweep.seed)
    n_used = np.mean([len(new.train) - len(old.train) for new, old in zip(jobs, plan.jobs, strict=True)])
    return int(missing.sum()), float(n_used), plan.scored(heads, X)


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
