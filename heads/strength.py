"""The strength of a linear head: what each predicts of the other parts of the inner folds, and which does it best."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from heads.bulk import Fit, Solved, solve_all
from heads.head import Float, Index, Job, Standardiser, row_chunks
from heads.held_out import HeldOut
from heads.ridge import target_scale

STRENGTHS = np.logspace(-4, 4, 9)
DEFAULT_STRENGTH = 1.0  # where no inner fold can choose
ABSENT = 1e-6  # probability of a class that no training row has: next to nothing, but a finite log loss
MAX_LOSS = -np.log(np.finfo(np.float64).eps)  # of one row; where scikit-learn's log_loss clips
COULD_WIN = 1.15  # times a fold's least loss: strengths beyond it are not driven to their optimum where that is dear
CLOSE = 1.05  # times the least mean loss: strengths within it always are


@dataclass(frozen=True)
class Scored:
    """What one inner fold says of s strengths.

    Attributes:
        losses: ``(s,)``, of its other part.
        exact: ``(s,)``: which are those of the optimum.
        predicted: Per strength, probabilities ``(m, c)`` or outputs ``(m, t)`` of its other part; None where the loss
            is so far above the least that another strength will hardly fail to be chosen.
    """

    losses: Float
    exact: NDArray[np.bool_]
    predicted: list[Float | None]


@dataclass(frozen=True)
class Table:
    """What the f inner folds of one job say of every strength: losses and whether exact ``(f, 9)``, predictions."""

    losses: Float
    exact: NDArray[np.bool_]
    predicted: list[list[Float | None]]

    @classmethod
    def of(cls, folds: Sequence[Scored]) -> Self:
        """Put folds below each other."""
        shape = len(folds), len(STRENGTHS)
        losses, exact = (
            np.array([getattr(fold, name) for fold in folds]).reshape(shape) for name in ("losses", "exact")
        )
        return cls(losses, exact, [fold.predicted for fold in folds])

    def settle(self, fold: int, strengths: NDArray[np.intp], scored: Scored) -> None:
        """Put what a second pass found of some strengths into a fold's row."""
        self.losses[fold, strengths], self.exact[fold, strengths] = scored.losses, scored.exact
        for s, predicted in zip(strengths, scored.predicted, strict=True):
            self.predicted[fold][s] = predicted

    @property
    def mean(self) -> Float:
        """Mean loss over the folds that had rows to score, ``(9,)``; NaN without any."""
        usable = self.losses[~np.isnan(self.losses).any(axis=1)]
        return usable.mean(axis=0) if len(usable) else np.full(len(STRENGTHS), np.nan)

    @property
    def is_exact(self) -> NDArray[np.bool_]:
        """Which mean losses are those of optima, ``(9,)``."""
        return np.asarray(self.exact.all(axis=0))

    @property
    def undecided(self) -> NDArray[np.intp]:
        """Strengths that come close to the best exact one but are not exact in every fold."""
        mean, settled = self.mean, self.is_exact
        return np.flatnonzero(~settled & ~(mean > CLOSE * np.min(mean[settled], initial=np.inf)))

    @property
    def chosen(self) -> int | None:
        """The strength of the least loss, the strongest penalty among equals as in scikit-learn; None without any."""
        return None if np.isnan(self.mean).all() else int(np.nanargmin(self.mean))

    @property
    def strength(self) -> float:
        """The chosen C."""
        return DEFAULT_STRENGTH if self.chosen is None else float(STRENGTHS[self.chosen])

    def held_out(self, job: Job) -> HeldOut:
        """What the chosen strength predicts of every inner fold's other part; empty where not all of it was kept."""
        if self.chosen is None:
            return []
        found = [(score, fold[self.chosen]) for (_, score), fold in zip(job.inner, self.predicted, strict=True)]
        kept = [(score, p) for score, p in found if p is not None and len(p) == len(score)]
        return kept if len(kept) == len(found) else []


def inner_tables(X: NDArray[np.float32], jobs: Sequence[Job]) -> list[Table]:
    """Score every strength on the inner folds of every job."""
    fits = [[make_fit(job, *fold, STRENGTHS) for fold in job.inner] for job in jobs]
    found = iter(solve_all(X, [fit for job in fits for fit in job], partial(_scored, X), worth=partial(_could_win, X)))
    tables = [Table.of([next(found) for _ in job]) for job in fits]
    few = [table.undecided for table in tables]
    again = [
        (table, i, own, replace(fit, strengths=STRENGTHS[own]))
        for table, own, job in zip(tables, few, fits, strict=True)
        for i, fit in enumerate(job)
        if len(own)
    ]
    scored = solve_all(X, [fit for *_, fit in again], partial(_scored, X))
    for (table, i, own, _), one in zip(again, scored, strict=True):
        table.settle(i, own, one)
    return tables


def make_fit(job: Job, rows: Index, score_rows: Index, strengths: Float) -> Fit:
    """Fit on `rows` and score on `score_rows`, those of them that weigh something."""
    weighted = [np.asarray(r, np.intp)[job.weight(r) > 0] for r in (rows, score_rows)]
    return Fit(job, weighted[0], weighted[1], strengths)


def _scored(X: NDArray[np.float32], solved: Solved) -> Scored:
    """Losses on the fold's other part, and the predictions of strengths that could win."""
    outputs = _outputs_of_rest(X, solved)
    losses = _losses(solved, outputs)
    predicted = [
        _predictions(solved.fit, one) if close else None for one, close in zip(outputs, _close(losses), strict=True)
    ]
    return Scored(losses, solved.exact, predicted)


def _predictions(fit: Fit, outputs: Float) -> Float:
    """Probabilities ``(m, c)`` from logits, or outputs as they are."""
    if fit.job.kind == "regression":
        return outputs.copy()
    return probabilities(outputs, np.unique(fit.job.y[fit.rows]), fit.job.n_classes)


def _could_win(X: NDArray[np.float32], solved: Solved) -> NDArray[np.bool_]:
    """Strengths ``(s,)`` whose loss is not far above the fold's least."""
    return _close(_losses(solved, _outputs_of_rest(X, solved)))


def _close(losses: Float) -> NDArray[np.bool_]:
    return np.asarray(~(losses > COULD_WIN * losses.min()))


def _outputs_of_rest(X: NDArray[np.float32], solved: Solved) -> Float:
    """Logits or outputs ``(s, m, k)`` of every strength on the fold's other part."""
    V = solved.V
    coef, intercept = solved.design.coefficients(V.reshape(-1, V.shape[2]))
    found = outputs(X[solved.fit.score_rows], solved.design.standard, coef, intercept)
    return found.reshape(len(found), *V.shape[:2]).swapaxes(0, 1)


def _losses(solved: Solved, outputs: Float) -> Float:
    """Weighted mean loss of every strength on the fold's other part, ``(s,)``; NaN where that has no rows."""
    fit = solved.fit
    if not len(fit.score_rows):
        return np.full(len(outputs), np.nan)
    errors = _log_loss(fit, outputs) if fit.job.kind == "classification" else _squared_error(solved, outputs)
    return np.asarray(np.average(errors, axis=1, weights=fit.job.weight(fit.score_rows)))


def _log_loss(fit: Fit, logits: Float) -> Float:
    """Log loss of every scored row, ``(s, n)``, at logits ``(s, n, k)``."""
    fitted = np.unique(fit.job.y[fit.rows])
    y = fit.job.y[fit.score_rows]
    place = np.minimum(np.searchsorted(fitted, y), len(fitted) - 1)
    loss = _log_sum_exp(logits) - logits[:, np.arange(len(y)), place] - _log_present(len(fitted), fit.job.n_classes)
    return np.asarray(np.where(fitted[place] == y, np.minimum(loss, MAX_LOSS), -np.log(ABSENT)))


def _squared_error(solved: Solved, outputs: Float) -> Float:
    """Mean over outputs of the squared error in training standard deviations, ``(s, n)``."""
    job = solved.fit.job
    scale = target_scale(job.y[solved.fit.rows], solved.design.weight)[1]
    error = np.square((outputs - job.y[solved.fit.score_rows]) / scale)
    return np.asarray(np.average(error, axis=2, weights=job.output_weights))


def outputs(X: NDArray[Any], standard: Standardiser, coef: Float, intercept: Float) -> Float:
    """Raw rows ``(n, d)`` times coefficients ``(k, d)``, ``(n, k)``."""
    found = np.empty((len(X), len(coef)))
    for part in row_chunks(X):
        found[part] = standard.apply(X[part]) @ coef.T + intercept
    return found


def probabilities(logits: Float, fitted: NDArray[np.int64], n_classes: int) -> Float:
    """Softmax over the fitted classes ``(n, k)``, spread over all ``(n, c)``."""
    P = np.full((len(logits), n_classes), ABSENT)
    P[:, fitted] = np.exp(logits - _log_sum_exp(logits)[:, None] + _log_present(len(fitted), n_classes))
    return P


def _log_present(n_fitted: int, n_classes: int) -> float:
    """Log of the probability that is left for the classes seen in training."""
    return float(np.log1p(-ABSENT * (n_classes - n_fitted)))


def _log_sum_exp(logits: Float) -> Float:
    top = logits.max(axis=-1)
    return np.asarray(top + np.log(np.exp(logits - top[..., None]).sum(axis=-1)))
