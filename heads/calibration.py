"""Probabilities that mean what they say: temperature scaling, fitted on held-out predictions of the inner folds.

One number divides all logits (Guo, Pleiss, Sun, Weinberger 2017, "On calibration of modern neural networks", eq. 9,
arXiv 1706.04599): above 1 the model was too sure of itself. The likeliest class stays the likeliest.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.conformal import Limits, fit_limits
from heads.head import Float, Head, Job
from heads.held_out import HeldOut
from heads.metrics import METRICS, N_BINS, P_MIN, Scored, bins

RANGE = (0.05, 20.0)  # of temperatures
TOLERANCE = 1e-7  # of Newton's last step, relative
MEASURES = ("log_loss", "ece", "brier")


@dataclass(frozen=True)
class Calibration:
    """What held-out predictions say of a head.

    Attributes:
        temperature: Divides the logits; 1 where that was no better on inner folds.
        limits: Of conformal sets or intervals.
    """

    temperature: float
    limits: Limits


@dataclass(frozen=True, eq=False)
class CalibratedHead:
    """A head of any family with its calibration; see `Head` for the methods."""

    head: Head
    calibration: Calibration

    @property
    def classes_(self) -> NDArray[np.int64]:
        """int64 ``(c,)``: class indices in the order of the columns of `predict_proba`; empty for regression."""
        return self.head.classes_

    def predict(self, X: NDArray[Any]) -> NDArray[Any]:
        """Return class indices ``(n,)`` or outputs ``(n, t)`` of raw rows; calibration does not change them."""
        return self.head.predict(X)

    def predict_proba(self, X: NDArray[Any]) -> Float:
        """Return calibrated probabilities ``(n, c)`` of raw rows ``(n, d)``."""
        return temper(self.head.predict_proba(X), self.calibration.temperature)

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any] | str]]:
        """Return the head's own state; a bundle keeps the calibration beside it."""
        return self.head.state()


def calibrate(head: Head, job: Job, held_out: HeldOut, groups: NDArray[np.int64] | None) -> CalibratedHead:
    """Return a head with what its held-out predictions say (`fit_calibration`)."""
    return CalibratedHead(head, fit_calibration(job, held_out, groups))


def fit_calibration(job: Job, held_out: HeldOut, groups: NDArray[np.int64] | None) -> Calibration:
    """Return what held-out predictions say; without any, what changes nothing and has no limits.

    Args:
        job: What was fitted.
        held_out: Predictions of rows that the predicting model has not seen, in several parts.
        groups: Group number per row of X, or None.
    """
    n_limits = 1 if job.kind == "classification" else job.y.shape[1]
    if not held_out:
        return Calibration(1.0, (None,) * n_limits)
    rows = np.concatenate([part for part, _ in held_out])
    p = np.concatenate([one for _, one in held_out])
    unit = rows if groups is None else groups[rows]
    temperature = 1.0
    if job.kind == "classification":
        fold = np.repeat(np.arange(len(held_out)), [len(part) for part, _ in held_out])
        temperature = fit_temperature(p, job.y[rows], fold, unit)
    return Calibration(temperature, fit_limits(job.kind, temper(p, temperature), job.y[rows], unit))


def temper(p: Float, temperature: float | Float) -> Float:
    """Return probabilities ``(n, c)`` with their logits divided; 0 stays 0.

    Args:
        p: Rows sum to one.
        temperature: One, or one per row ``(n, 1)``.
    """
    if np.all(np.asarray(temperature) == 1):
        return p
    scaled = (p / p.max(axis=1, keepdims=True)) ** (1 / np.asarray(temperature))
    return np.asarray(scaled / scaled.sum(axis=1, keepdims=True))


def fit_temperature(
    p: Float, y: NDArray[np.int64], fold: NDArray[np.int64], unit: NDArray[np.int64] | None = None
) -> float:
    """Return the temperature of least log loss; 1 where that is not clearly better. It is never below 1 where all rows
    are right: sharper would be better without end.

    It has to lower the log loss of each inner fold when it is fitted on the others, by more than one standard error of
    the gain: with a few hundred rows, a temperature near 1 is mostly noise.

    Args:
        p: Held-out probabilities ``(m, c)``.
        y: Class indices ``(m,)``.
        fold: Inner fold of each row, ``(m,)``.
        unit: Group number of each row, ``(m,)``: rows of a group are right or wrong together. None: its own.
    """
    gain = np.zeros(len(y))
    for number in np.unique(fold):
        here = fold == number
        if not here.all():
            other = _best_temperature(p[~here], y[~here])
            gain[here] = _losses(p[here], y[here]) - _losses(temper(p[here], other), y[here])
    units = np.arange(len(y)) if unit is None else np.unique(unit, return_inverse=True)[1]
    per_unit = np.bincount(units, gain)
    is_better = per_unit.sum() > np.sqrt(len(per_unit)) * per_unit.std()
    return _best_temperature(p, y) if is_better else 1.0


def calibrated(raw: Scored, calibrations: Sequence[Calibration]) -> Scored:
    """Return scored rows with the probabilities that each fold's calibration gives.

    Args:
        raw: Before calibration.
        calibrations: One per fold.
    """
    if raw.kind == "regression":
        return raw
    temperature = np.array([one.temperature for one in calibrations])[raw.fold]
    return replace(raw, predicted=temper(raw.predicted, temperature[:, None]))


def calibration_entry(raw: Scored, scored: Scored, calibrations: Sequence[Calibration]) -> dict[str, Any]:
    """Return the temperatures, the measures before and after, and the reliability table after, JSON values only."""
    return {
        "temperature": [one.temperature for one in calibrations],
        "before": _measures(raw),
        "after": _measures(scored),
        "reliability": reliability(scored),
    }


def reliability(scored: Scored) -> list[dict[str, Any]]:
    """Return how often predictions of some confidence are right: N_BINS rows of low, high, n, confidence, accuracy."""
    confidence = scored.predicted.max(axis=1)
    right = scored.predicted.argmax(axis=1) == scored.y
    place = bins(confidence)
    rows = []
    for number in range(N_BINS):
        here = place == number
        row = {"low": number / N_BINS, "high": (number + 1) / N_BINS, "n": int(here.sum())}
        means = {"confidence": confidence[here], "accuracy": right[here]}
        rows.append({**row, **{name: float(v.mean()) if here.any() else None for name, v in means.items()}})
    return rows


def _best_temperature(p: Float, y: NDArray[np.int64]) -> float:
    """Find where the log loss by 1 / temperature is level, by Newton's steps, or by halving what is left.

    It is convex where no row's loss is cut off at P_MIN: the search begins there, and no step goes up by more than
    double, so that the first level place is found, not one where confident errors cost no more.
    """
    low, high = RANGE
    high = 1.0 if (p.argmax(axis=1) == y).all() else high
    logits = np.log(np.maximum(p / p.max(axis=1, keepdims=True), np.finfo(np.float64).tiny))
    of_truth = p[np.arange(len(y)), y]
    inverse, at = 0.0, 1.0 if of_truth.min() > P_MIN else low
    while abs(at - inverse) > TOLERANCE * at:
        inverse = at
        slope, bend = _derivatives(logits, y, inverse)
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        at = inverse - slope / bend if bend > 0 else low
        at = min(at, 2 * inverse) if low < at < high else float(np.sqrt(low * high))
    return 1 / at


def _derivatives(logits: Float, y: NDArray[np.int64], inverse: float) -> tuple[float, float]:
    """Return how the loss changes with the inverse temperature, once and twice; a loss cut off at P_MIN does not."""
    powers = np.exp(inverse * logits)
    total = powers.sum(axis=1)
    weighted = powers * logits
    mean, of_truth = weighted.sum(axis=1) / total, logits[np.arange(len(y)), y]
    varies = np.log(total) - inverse * of_truth < -np.log(P_MIN)
    variance = np.einsum("nc,nc->n", weighted, logits) / total - mean**2
    return float((mean - of_truth) @ varies), float(variance @ varies)


def _losses(p: Float, y: NDArray[np.int64]) -> Float:
    """Return the log loss of each row, ``(m,)``."""
    return np.asarray(-np.log(np.clip(p[np.arange(len(y)), y], P_MIN, 1.0)))


def _measures(scored: Scored) -> dict[str, float]:
    ones, scored = np.ones((1, len(scored.y))), replace(scored)  # a copy: see `estimate`
    return {name: float(METRICS[name].score(scored, ones)[0]) for name in MEASURES}
