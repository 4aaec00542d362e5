"""The linear head: logistic or ridge regression, its strength chosen on inner folds; exact, and solved in bulk.

All jobs of one matrix come in one call, so that folds are standardised in one pass, a fold that several tasks share
is rotated once, and all strengths of many folds are solved together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from heads.bulk import Solved, solve_all
from heads.head import Float, Job, Standardiser
from heads.held_out import HeldOut, refit_inner
from heads.strength import inner_tables, make_fit, outputs, probabilities


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
        inner_exact: ``(9,)``: which scores are those of the optimum; the chosen one's is. Weak penalties that had
            clearly lost beforehand, and are dear to finish, are scored as they stood then.
        held_out: What the chosen strength predicts of the other part of every inner fold; empty where that is not
            known without another fit.
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
    held_out: HeldOut = field(default_factory=list, repr=False)

    def predict(self, X: NDArray[Any]) -> NDArray[Any]:
        """Return class indices ``(n,)``, or outputs ``(n, t)``, of raw rows ``(n, d)``."""
        if self.kind == "regression":
            return self._decision(X)
        return np.asarray(self.fitted[self._decision(X).argmax(axis=1)])

    def predict_proba(self, X: NDArray[Any]) -> Float:
        """Return probabilities ``(n, c)`` of raw rows ``(n, d)``; classes absent in training get 1e-6."""
        return probabilities(self._decision(X), self.fitted, len(self.classes_))

    def _decision(self, X: NDArray[Any]) -> Float:
        """Logits ``(n, k)`` or outputs ``(n, t)``."""
        return outputs(X, self.standard, self.coef, self.intercept)

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
    tables = inner_tables(X, jobs)
    last = [
        make_fit(job, job.train, job.train[:0], np.array([table.strength]))
        for job, table in zip(jobs, tables, strict=True)
    ]
    heads = solve_all(X, last, _head)
    return [
        replace(head, inner_scores=table.mean, inner_exact=table.is_exact, held_out=table.held_out(job))
        for head, job, table in zip(heads, jobs, tables, strict=True)
    ]


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
        inner_scores=np.empty(0),
        inner_exact=np.empty(0, bool),
    )


def inner_linear(X: NDArray[np.float32], jobs: Sequence[Job], heads: Sequence[LinearHead]) -> list[HeldOut]:
    """Return what linear heads predict for the inner folds of their jobs: kept while fitting, or fitted again."""
    unknown = [i for i, head in enumerate(heads) if jobs[i].inner and not head.held_out]
    strengths = [heads[i].strength for i in unknown]
    again = dict(zip(unknown, refit_inner(fit_linear, X, [jobs[i] for i in unknown], strengths), strict=True))
    return [again.get(i, head.held_out) for i, head in enumerate(heads)]
