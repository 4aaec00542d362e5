"""What a head's own model would have predicted for its training rows, had it not seen them: inner folds, fitted again.

Calibration and conformal prediction are fitted on these predictions, so never on a row that is scored.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.head import Float, Head, Index, Job
from heads.metrics import Kind

HeldOut = list[tuple[Index, Float]]
"""Of one job, per inner fold: its rows to score, and probabilities of all classes ``(m, c)`` or outputs ``(m, t)``."""


def refit_inner(
    fit: Callable[..., Sequence[Head]], X: NDArray[np.float32], jobs: Sequence[Job], strengths: Sequence[float]
) -> list[HeldOut]:
    """Fit every inner fold of every job in one call and predict its other part.

    Args:
        fit: The family's fit, which without inner folds takes strength 1.
        X: Raw rows ``(n, d)``.
        jobs: What was fitted.
        strengths: C of each job's head. C multiplies the loss of every row, so it is given as a weight of all rows.
    """
    inner = [[_fold(job, rows, c) for rows, _ in job.inner] for job, c in zip(jobs, strengths, strict=True)]
    heads = iter(fit(X, [fold for folds in inner for fold in folds], seed=0))
    return [
        [(score, predicted(next(heads), X[score], job.kind, job.n_classes)) for _, score in job.inner] for job in jobs
    ]


def predicted(head: Head, X: NDArray[np.float32], kind: Kind, n_classes: int) -> Float:
    """Return probabilities of all the task's classes ``(n, c)``, 0 for one never seen; or outputs ``(n, t)``."""
    if kind == "regression":
        return np.asarray(head.predict(X), dtype=np.float64)
    return spread(head.predict_proba(X), head.classes_, n_classes) if len(X) else np.zeros((0, n_classes))


def spread(p: Float, classes: NDArray[Any], n_classes: int) -> Float:
    """Return probabilities ``(n, k)`` of some classes as those of all, ``(n, c)``."""
    full = np.zeros((len(p), n_classes))
    full[:, classes] = p
    return full


def _fold(job: Job, rows: Index, strength: float) -> Job:
    weight = job.sample_weight
    if strength != 1:
        weight = job.weight(np.arange(len(job.y))) * strength
    return replace(job, train=rows, inner=(), sample_weight=weight)
