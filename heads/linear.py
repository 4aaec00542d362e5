"""The linear head: logistic or ridge regression, its strength chosen on inner folds; exact, and solved in bulk.

All jobs of one matrix come in one call, so that folds are standardised in one pass, a fold that several tasks share
is rotated once, and all strengths of many folds are solved together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from heads.bulk import Fit, Solved, solve_all
from heads.head import Float, Index, Job, Standardiser, row_chunks
from heads.held_out import HeldOut, refit_inner
from heads.ridge import target_scale

STRENGTHS = np.logspace(-4, 4, 9)
DEFAULT_STRENGTH = 1.0  # where no inner fold can choose
ABSENT = 1e-6  # probability of a class that no training row has: next to nothing, but a finite log loss
MAX_LOSS = -np.log(np.finfo(np.float64).eps)  # of one row; where scikit-learn's log_loss clips
COULD_WIN = 1.15  # times a fold's least loss: strengths beyond it are not driven to their optimum where that is dear
CLOSE = 1.05  # times the least mean loss: strengths within it always are


@dataclass(frozen=True)
class LinearHead:
    """A fitted linear model on standardised columns.

    Attributes:
        kind: ``"classification"`` or ``"regression"``.
        classes_: int64 ``(c,)``, ``0 .. c - 1``; empty for regression.
        fitted: int64 ``(k,)``: the classes that training rows had, in the order of the rows of `coef`.
        coef: ``(k, d)`` per unit of the standardised columns; outputs ``(t, d)`` for regression, in their own unit.
        intercept: ``(k,)`` or ``(t,)``.
        standard: Centre and scale of the training rows' columns.
        strength: Chosen C; ridge uses alpha = d / C.
        inner_scores: ``(9,)``: mean log loss or squared error (outputs standardised) on the inner folds per strength;
            NaN where there were none.
        inner_exact: ``(9,)``: which scores are those of the optimum. In large folds, strengths that had clearly lost
            beforehand are scored as they stood then.
    """

    kind: Literal["classification", "regression"]
    classes_: NDArray[np.int64]
    fitted: NDArray[np.int64]
    coef: Float
    intercept: Float
    standard: Standardiser
    strength: float
    inner_scores: Float
    inner_exact: NDArray[np.bool_]

    def predict(self, X: NDArray[Any]) -> NDArray[Any]:
        """Return class indices ``(n,)``, or outputs ``(n, t)``, of raw rows ``(n, d)``."""
        if self.kind == "regression":
            return self._decision(X)
        return np.asarray(self.fitted[self._decision(X).argmax(axis=1)])

    def predict_proba(self, X: NDArray[Any]) -> Float:
        """Return probabilities ``(n, c)`` of raw rows ``(n, d)``; classes absent in training get 1e-6."""
        return _probabilities(self._decision(X), self.fitted, len(self.classes_))

    def _decision(self, X: NDArray[Any]) -> Float:
        """Logits ``(n, k)`` or outputs ``(n, t)``."""
        return _outputs(X, self.standard, self.coef, self.intercept)

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any] | str]]:
        """Return what a bundle keeps; `from_state` reads it."""
        meta = {"kind": self.kind, "n_classes": len(self.classes_), "strength": self.strength}
        arrays: dict[str, NDArray[Any] | str] = {
            "fitted": self.fitted,
            "coef": self.coef,
            "intercept": self.intercept,
            "mean": self.standard.mean,
            "scale": self.standard.scale,
            "inner_scores": self.inner_scores,
            "inner_exact": self.inner_exact,
        }
        return meta, arrays

    @classmethod
    def from_state(cls, meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any] | str]) -> Self:
        """Rebuild the head from `state`."""
        get = {name: np.asarray(value) for name, value in arrays.items()}
        return cls(
            kind=meta["kind"],
            classes_=np.arange(meta["n_classes"]),
            fitted=get["fitted"],
            coef=get["coef"],
            intercept=get["intercept"],
            standard=Standardiser(get["mean"], get["scale"]),
            strength=meta["strength"],
            inner_scores=get["inner_scores"],
            inner_exact=get["inner_exact"],
        )


def fit_linear(X: NDArray[np.float32], jobs: Sequence[Job], *, seed: int) -> list[LinearHead]:
    """Fit every job: choose its strength on its inner folds, then refit on its training rows.

    Args:
        X: Raw rows ``(n, d)``; NaN becomes the training mean.
        jobs: What to fit.
        seed: Not looked at: there is nothing random here.

    Returns:
        One head per job.
    """
    del seed
    scores = _inner_scores(X, jobs)
    chosen = [_choose(one) for one, _ in scores]
    last = [_make_fit(job, job.train, job.train[:0], np.array([c])) for job, c in zip(jobs, chosen, strict=True)]
    heads = solve_all(X, last, _head)
    return [replace(head, inner_scores=s, inner_exact=e) for head, (s, e) in zip(heads, scores, strict=True)]


def _choose(scores: Float) -> float:
    """The strength of the least score; the strongest penalty among equals, as in scikit-learn."""
    return DEFAULT_STRENGTH if np.isnan(scores).all() else float(STRENGTHS[np.nanargmin(scores)])


def _inner_scores(X: NDArray[np.float32], jobs: Sequence[Job]) -> list[tuple[Float, NDArray[np.bool_]]]:
    """Mean loss of every strength on each job's inner folds, ``(9,)``, and which of them are exact."""
    fits = [[_make_fit(job, *fold, STRENGTHS) for fold in job.inner] for job in jobs]
    found = iter(solve_all(X, [fit for job in fits for fit in job], partial(_scored, X), worth=partial(_could_win, X)))
    tables = [_table([next(found) for _ in job]) for job in fits]
    open_ = [_undecided(*table) for table in tables]
    again = [
        [replace(fit, strengths=STRENGTHS[o]) for fit in job if o.any()] for job, o in zip(fits, open_, strict=True)
    ]
    found = iter(solve_all(X, [fit for job in again for fit in job], partial(_scored, X)))
    for (losses, exact), job, undecided in zip(tables, again, open_, strict=True):
        for i in range(len(job)):
            losses[i, undecided], exact[i, undecided] = next(found)
    return [(_mean(losses), np.asarray(exact.all(axis=0))) for losses, exact in tables]


def _table(scored: Sequence[tuple[Float, NDArray[np.bool_]]]) -> tuple[Float, NDArray[np.bool_]]:
    """Losses and whether they are exact, ``(folds, 9)``."""
    losses, exact = np.empty((len(scored), len(STRENGTHS))), np.empty((len(scored), len(STRENGTHS)), bool)
    for i, one in enumerate(scored):
        losses[i], exact[i] = one
    return losses, exact


def _undecided(losses: Float, exact: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Strengths ``(9,)`` that come close to the best exact one but are not exact in every fold."""
    mean, settled = _mean(losses), exact.all(axis=0)
    return np.asarray(~settled & ~(mean > CLOSE * np.min(mean[settled], initial=np.inf)))


def _make_fit(job: Job, rows: Index, score_rows: Index, strengths: Float) -> Fit:
    weighted = [np.asarray(r, np.intp)[job.weight(r) > 0] for r in (rows, score_rows)]
    return Fit(job, weighted[0], weighted[1], strengths)


def _mean(losses: Float) -> Float:
    """Mean over the folds that had rows to score, ``(9,)``; NaN without any."""
    usable = losses[~np.isnan(losses).any(axis=1)]
    return usable.mean(axis=0) if len(usable) else np.full(losses.shape[1], np.nan)


def _scored(X: NDArray[np.float32], solved: Solved) -> tuple[Float, NDArray[np.bool_]]:
    """Losses on the fold's other part and whether they are exact, both ``(s,)``."""
    return _losses(X, solved), solved.exact


def _could_win(X: NDArray[np.float32], solved: Solved) -> NDArray[np.bool_]:
    """Strengths ``(s,)`` whose loss is not far above the fold's least."""
    losses = _losses(X, solved)
    return np.asarray(~(losses > COULD_WIN * losses.min()))


def _losses(X: NDArray[np.float32], solved: Solved) -> Float:
    """Weighted mean loss of every strength on the fold's other part, ``(s,)``; NaN where that has no rows."""
    fit, V = solved.fit, solved.V
    if not len(fit.score_rows):
        return np.full(len(V), np.nan)
    coef, intercept = solved.design.coefficients(V.reshape(-1, V.shape[2]))
    outputs = _outputs(X[fit.score_rows], solved.design.standard, coef, intercept)
    outputs = outputs.reshape(len(outputs), *V.shape[:2]).swapaxes(0, 1)
    errors = _log_loss(fit, outputs) if fit.job.kind == "classification" else _squared_error(solved, outputs)
    return np.asarray(np.average(errors, axis=1, weights=fit.job.weight(fit.score_rows)))


def _outputs(X: NDArray[Any], standard: Standardiser, coef: Float, intercept: Float) -> Float:
    """Raw rows ``(n, d)`` times coefficients ``(k, d)``, ``(n, k)``."""
    outputs = np.empty((len(X), len(coef)))
    for part in row_chunks(X):
        outputs[part] = standard.apply(X[part]) @ coef.T + intercept
    return outputs


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


def _head(solved: Solved) -> LinearHead:
    """The head of a fit with one strength."""
    fit = solved.fit
    coef, intercept = solved.design.coefficients(solved.V[0])
    is_class = fit.job.kind == "classification"
    return LinearHead(
        kind=fit.job.kind,
        classes_=np.arange(fit.job.n_classes if is_class else 0),
        fitted=np.unique(fit.job.y[fit.rows]) if is_class else np.empty(0, np.int64),
        coef=coef,
        intercept=intercept,
        standard=solved.design.standard,
        strength=float(fit.strengths[0]),
        inner_scores=np.full(len(STRENGTHS), np.nan),
        inner_exact=np.zeros(len(STRENGTHS), bool),
    )


def _probabilities(logits: Float, fitted: NDArray[np.int64], n_classes: int) -> Float:
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


def inner_linear(X: NDArray[np.float32], jobs: Sequence[Job], heads: Sequence[LinearHead]) -> list[HeldOut]:
    """Return what linear heads predict for the inner folds of their jobs."""
    return refit_inner(fit_linear, X, jobs, [head.strength for head in heads])
