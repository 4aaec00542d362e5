"""The head that sees no features: what can be had for nothing, and what every other head has to beat."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from heads.head import Job


@dataclass(eq=False)
class PriorHead:
    """Class frequencies of the training rows, or their median per output.

    The median is the constant with the least absolute error, so it is the harder baseline for the headline metric.

    Attributes:
        classes_: int64 ``(c,)``, class indices; empty for regression.
        values: float64 ``(c,)`` frequencies, or ``(t,)`` medians.
    """

    classes_: NDArray[np.int64]
    values: NDArray[np.float64]

    def predict(self, X: NDArray[np.float32]) -> NDArray[Any]:
        """Return the most frequent class ``(n,)``, or the medians ``(n, t)``."""
        if len(self.classes_):
            return np.full(len(X), self.classes_[self.values.argmax()])
        return np.tile(self.values, (len(X), 1))

    def predict_proba(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the frequencies, ``(n, c)``."""
        return np.tile(self.values, (len(X), 1))

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any] | str]]:
        """Return what a bundle keeps."""
        return {}, {"classes": self.classes_, "values": self.values}

    @classmethod
    def from_state(cls, meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any] | str]) -> Self:
        """Rebuild the head from `state`."""
        del meta
        return cls(np.asarray(arrays["classes"], np.int64), np.asarray(arrays["values"], np.float64))


def fit_prior(X: NDArray[np.float32], jobs: Sequence[Job], *, seed: int) -> list[PriorHead]:
    """Fit every job; neither `X` nor `seed` is looked at."""
    del X, seed
    return [_fit_one(job) for job in jobs]


def _fit_one(job: Job) -> PriorHead:
    y = job.y[job.train]
    if job.kind == "regression":
        return PriorHead(np.empty(0, np.int64), np.median(y, axis=0))
    return PriorHead(np.arange(job.n_classes), np.bincount(y, minlength=job.n_classes) / len(y))
