"""Precision, recall and F1 of each class, and their means, with bootstrap intervals."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.head import Float
from heads.metrics import Estimate, Scored, resamples
from heads.ratio import mean_of_defined, ratio

RATES = ("precision", "recall", "f1")


def class_rates(scored: Scored, *, seed: int) -> dict[str, Estimate]:
    """Return precision, recall and F1: c outputs for the classes, then their macro mean, then the weighted mean.

    A class that is there and never predicted has precision 0; one without any row has no recall. What is not defined
    stands aside in the macro mean; the weighted mean counts each class by its rows.

    Args:
        scored: m rows of a classification.
        seed: Of the resampling.
    """
    value = _rates(scored, np.ones((1, len(scored.y))))
    samples = np.concatenate([_rates(scored, counts) for counts in resamples(scored.unit, seed=seed)], axis=1)
    ones = np.ones(value.shape[-1])
    return {name: Estimate(value[i, 0], samples[i], ones) for i, name in enumerate(RATES)}


def confusion(scored: Scored) -> NDArray[np.int64]:
    """Return how many rows of each class (rows) were taken for which (columns), ``(c, c)``."""
    n_classes = scored.predicted.shape[1]
    pairs: NDArray[Any] = scored.y * n_classes + scored.predicted.argmax(axis=1)
    return np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes)


def _rates(scored: Scored, counts: Float) -> Float:
    """Return the rates of r resamples, ``(3, r, c + 2)``."""
    true, predicted = scored.true_and_predicted
    hits, n_true, n_predicted = counts @ (true * predicted), counts @ true, counts @ predicted
    precision = np.where((n_true > 0) & (n_predicted == 0), 0.0, ratio(hits, n_predicted))
    rates = np.stack([precision, ratio(hits, n_true), ratio(2 * hits, n_true + n_predicted)])
    weighted = ratio((n_true * np.nan_to_num(rates)).sum(axis=-1), n_true.sum(axis=-1))
    return np.concatenate([rates, mean_of_defined(rates)[..., None], weighted[..., None]], axis=-1)
