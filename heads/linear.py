"""The linear head: logistic or ridge regression, its strength chosen on inner folds; exact, and solved in bulk.

All jobs of one matrix come in one call, so that folds are standardised in one pass, a fold that several tasks share
is rotated once, and all strengths of many folds are solved together.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from itertools import groupby
from typing import Any, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from heads.curvature import Problems
from heads.design import Design, make_design
from heads.head import Float, Index, Job, Standardiser, row_chunks, standardise_folds
from heads.logistic import solve_logistic
from heads.ridge import solve_ridge

STRENGTHS = np.logspace(-4, 4, 9)
DEFAULT_STRENGTH = 1.0  # where no inner fold can choose
ABSENT = 1e-6  # probability of a class that no training row has: next to nothing, but a finite log loss
MAX_LOSS = -np.log(np.finfo(np.float64).eps)  # of one row; where scikit-learn's log_loss clips
WINDOW_CELLS = 2**26  # numbers of the designs held at once
BATCH_CELLS = 2**22  # numbers of the coordinates solved together

A = TypeVar("A")
B = TypeVar("B")


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
    """

    kind: Literal["classification", "regression"]
    classes_: NDArray[np.int64]
    fitted: NDArray[np.int64]
    coef: Float
    intercept: Float
    standard: Standardiser
    strength: float
    inner_scores: Float

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
        )


@dataclass(frozen=True)
class Fit:
    """One fold of one job: solved for all of `strengths` at once.

    Attributes:
        job: Whose labels.
        rows: Training rows with a weight above 0.
        score_rows: Rows that the strengths are compared on; empty in the last fit.
        strengths: C, ``(s,)``.
    """

    job: Job
    rows: Index
    score_rows: Index
    strengths: Float

    @cached_property
    def key(self) -> tuple[bytes, bytes]:
        """What two fits must share to be the same design."""
        weight = b"" if self.job.sample_weight is None else self.job.weight(self.rows).tobytes()
        return self.rows.tobytes(), weight

    @cached_property
    def n_logits(self) -> int:
        """Logit columns to solve for: 0 for regression, and where only one class is there."""
        if self.job.kind == "regression":
            return 0
        n_present = len(np.unique(self.job.y[self.rows]))
        return {1: 0, 2: 1}.get(n_present, n_present)


Solved = tuple[Fit, Design, Float]
"""A fit, its design, and its parameters per strength, ``(s, k, r + 1)``; the last coordinate is the intercept."""


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
    inner = [_make_fit(job, *fold, STRENGTHS) for job in jobs for fold in job.inner]
    losses = iter(_solve_all(X, inner, partial(_losses, X)))
    scores = [_mean_scores([next(losses) for _ in job.inner]) for job in jobs]
    chosen = [DEFAULT_STRENGTH if np.isnan(score).all() else float(STRENGTHS[np.nanargmin(score)]) for score in scores]
    last = [_make_fit(job, job.train, job.train[:0], np.array([c])) for job, c in zip(jobs, chosen, strict=True)]
    return [_head(*solved, score) for solved, score in zip(_solve_all(X, last, _coefficients), scores, strict=True)]


def _make_fit(job: Job, rows: Index, score_rows: Index, strengths: Float) -> Fit:
    weighted = [np.asarray(r, np.intp)[job.weight(r) > 0] for r in (rows, score_rows)]
    return Fit(job, weighted[0], weighted[1], strengths)


def _mean_scores(scores: Sequence[Float]) -> Float:
    """Mean over the inner folds that had rows to score, ``(9,)``; NaN without any."""
    usable = [score for score in scores if not np.isnan(score).any()]
    return np.mean(usable, axis=0) if usable else np.full(len(STRENGTHS), np.nan)


def _solve_all(X: NDArray[np.float32], fits: Sequence[Fit], finish: Callable[[Solved], A]) -> list[A]:
    """Solve every fit and give back what `finish` makes of it, in order; designs live no longer than needed."""
    places: dict[tuple[bytes, bytes], list[int]] = {}
    for i, fit in enumerate(fits):
        places.setdefault(fit.key, []).append(i)
    shared = list(places.values())
    folds = [(fits[group[0]].rows, fits[group[0]].job.weight(fits[group[0]].rows)) for group in shared]
    standards = standardise_folds(X, folds) if folds else []
    done: dict[int, A] = {}
    for window in _windows([len(rows) * min(len(rows), X.shape[1]) for rows, _ in folds]):
        made = _parallel(lambda i: make_design(X, *folds[i], standards[i]), window)
        design = {place: made_one for i, made_one in zip(window, made, strict=True) for place in shared[i]}
        for solved in _parallel(partial(_solve_batch, fits, design, finish), _batches(fits, list(design))):
            done.update(solved)
    return [done[i] for i in range(len(fits))]


def _windows(cells: Sequence[int]) -> list[list[int]]:
    """Indices of designs that are held together."""
    windows: list[list[int]] = []
    room = 0
    for i, size in enumerate(cells):
        if not windows or size > room:
            windows.append([])
            room = WINDOW_CELLS
        windows[-1].append(i)
        room -= size
    return windows


def _batches(fits: Sequence[Fit], places: Sequence[int]) -> list[list[int]]:
    """Fits that are solved together: as many logits and strengths, about as many rows, and work for every core."""
    order = sorted(places, key=lambda i: (fits[i].n_logits, len(fits[i].strengths), len(fits[i].rows)))
    limit = max(1, -(-len(places) // (2 * _n_cores())))
    batches: list[list[int]] = []
    for _, group in groupby(order, key=lambda i: (fits[i].n_logits, len(fits[i].strengths))):
        members = list(group)
        size = max(1, min(limit, BATCH_CELLS // len(fits[members[-1]].rows) ** 2))
        batches += [members[start : start + size] for start in range(0, len(members), size)]
    return batches


def _solve_batch(
    fits: Sequence[Fit], design: Mapping[int, Design], finish: Callable[[Solved], A], batch: Sequence[int]
) -> list[tuple[int, A]]:
    """Solve the fits of one batch and finish each."""
    first = fits[batch[0]]
    if first.n_logits:
        solutions = _solve_logistic([(fits[i], design[i]) for i in batch])
    else:
        solutions = [(_ridge if fits[i].job.kind == "regression" else _constant)(fits[i], design[i]) for i in batch]
    return [(i, finish((fits[i], design[i], V))) for i, V in zip(batch, solutions, strict=True)]


def _solve_logistic(batch: Sequence[tuple[Fit, Design]]) -> list[Float]:
    """Stack folds into one batch, smaller ones padded, and cut the answers apart again."""
    k, s = batch[0][0].n_logits, len(batch[0][0].strengths)
    T = _stack([design.coordinates for _, design in batch])
    n_rows = T.shape[1]
    Y, weight = np.zeros((len(batch), k, 1, n_rows)), np.zeros((len(batch), s, n_rows))
    for g, (fit, design) in enumerate(batch):
        m = len(fit.rows)
        label = np.unique(fit.job.y[fit.rows], return_inverse=True)[1]
        Y[g, :, 0, :m] = label if k == 1 else label == np.arange(k)[:, None]
        weight[g, :, :m] = fit.strengths[:, None] * design.weight
    V = solve_logistic(Problems(T, T.astype(np.float32, copy=False), Y, weight)).transpose(0, 2, 1, 3)
    used = [np.r_[: design.coordinates.shape[1] - 1, -1] for _, design in batch]
    full = np.concatenate([-V / 2, V / 2], axis=2) if k == 1 else V
    return [full[g][..., used[g]] for g in range(len(batch))]


def _stack(coordinates: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Coordinates of folds as one array ``(g, n, r)``: zeros where a fold has fewer; the ones stay last."""
    if len(coordinates) == 1:
        return coordinates[0][None]
    shape = np.max([one.shape for one in coordinates], axis=0)
    T = np.zeros((len(coordinates), *shape), coordinates[0].dtype)
    for g, one in enumerate(coordinates):
        T[g, : len(one), : one.shape[1] - 1], T[g, : len(one), -1] = one[:, :-1], 1
    return T


def _ridge(fit: Fit, design: Design) -> Float:
    """Coefficients in the outputs' own units for every strength."""
    centre, scale = _target_scale(fit.job.y[fit.rows], design.weight)
    Y = (fit.job.y[fit.rows] - centre) / scale
    alphas = len(design.standard.mean) / fit.strengths
    V = solve_ridge(design, Y, alphas) * scale[:, None]
    return np.concatenate([V, np.broadcast_to(centre[:, None], (*V.shape[:2], 1))], axis=2)


def _target_scale(y: Float, weight: Float) -> tuple[Float, Float]:
    """Mean and standard deviation of each output, ``(t,)``; 1 where it does not vary."""
    centre = np.average(y, axis=0, weights=weight)
    scale = np.sqrt(np.average((y - centre) ** 2, axis=0, weights=weight))
    return centre, np.where(scale > 1e-12 * np.abs(centre), scale, 1.0)


def _constant(fit: Fit, design: Design) -> Float:
    """One class only: nothing to tell apart."""
    return np.zeros((len(fit.strengths), 1, design.coordinates.shape[1]))


def _losses(X: NDArray[np.float32], solved: Solved) -> Float:
    """Weighted mean loss of every strength on the fold's other part, ``(s,)``; NaN where that has no rows."""
    fit, design, V = solved
    if not len(fit.score_rows):
        return np.full(len(V), np.nan)
    coef, intercept = design.coefficients(V.reshape(-1, V.shape[2]))
    outputs = _outputs(X[fit.score_rows], design.standard, coef, intercept)
    outputs = outputs.reshape(len(outputs), *V.shape[:2]).swapaxes(0, 1)
    measure = _log_loss if fit.job.kind == "classification" else _squared_error
    return np.asarray(np.average(measure(fit, design, outputs), axis=1, weights=fit.job.weight(fit.score_rows)))


def _outputs(X: NDArray[Any], standard: Standardiser, coef: Float, intercept: Float) -> Float:
    """Raw rows ``(n, d)`` times coefficients ``(k, d)``, ``(n, k)``."""
    outputs = np.empty((len(X), len(coef)))
    for part in row_chunks(X):
        outputs[part] = standard.apply(X[part]) @ coef.T + intercept
    return outputs


def _log_loss(fit: Fit, design: Design, logits: Float) -> Float:
    """Log loss of every scored row, ``(s, n)``, at logits ``(s, n, k)``."""
    del design
    fitted = np.unique(fit.job.y[fit.rows])
    y = fit.job.y[fit.score_rows]
    place = np.minimum(np.searchsorted(fitted, y), len(fitted) - 1)
    loss = _log_sum_exp(logits) - logits[:, np.arange(len(y)), place] - _log_present(len(fitted), fit.job.n_classes)
    return np.asarray(np.where(fitted[place] == y, np.minimum(loss, MAX_LOSS), -np.log(ABSENT)))


def _squared_error(fit: Fit, design: Design, outputs: Float) -> Float:
    """Mean over outputs of the squared error in training standard deviations, ``(s, n)``."""
    scale = _target_scale(fit.job.y[fit.rows], design.weight)[1]
    error = np.square((outputs - fit.job.y[fit.score_rows]) / scale)
    return np.average(error, axis=2, weights=fit.job.output_weights)


def _coefficients(solved: Solved) -> tuple[Fit, Standardiser, Float, Float]:
    """Coefficients ``(k, d)`` of standardised columns and intercepts ``(k,)`` of a fit with one strength."""
    fit, design, V = solved
    return fit, design.standard, *design.coefficients(V[0])


def _head(fit: Fit, standard: Standardiser, coef: Float, intercept: Float, scores: Float) -> LinearHead:
    is_class = fit.job.kind == "classification"
    return LinearHead(
        kind=fit.job.kind,
        classes_=np.arange(fit.job.n_classes if is_class else 0),
        fitted=np.unique(fit.job.y[fit.rows]) if is_class else np.empty(0, np.int64),
        coef=coef,
        intercept=intercept,
        standard=standard,
        strength=float(fit.strengths[0]),
        inner_scores=scores,
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


@lru_cache(maxsize=1)
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


def _n_cores() -> int:
    """Cores that this process may use: as many as BLAS was allowed."""
    n_available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([n_available, *(int(library["num_threads"]) for library in _blas().info())])


def _parallel(function: Callable[[A], B], items: Sequence[A]) -> list[B]:
    """Map over items on all cores: threads times BLAS threads is never more than there are."""
    n_cores = _n_cores()
    n_workers = max(1, min(n_cores, len(items)))
    with _blas().limit(limits=n_cores // n_workers):
        if n_workers == 1:
            return [function(item) for item in items]
        with ThreadPoolExecutor(n_workers) as pool:
            return list(pool.map(function, items))
