"""Folds of many jobs, solved in bulk.

A fold that several tasks share is standardised and rotated once; folds of one kind are solved together, batches of
them on all cores; and what is large is made, used and dropped before the next.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from itertools import groupby
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from heads.curvature import Problems
from heads.design import Design, make_design
from heads.head import Float, Index, Job, standardise_folds
from heads.logistic import solve_logistic
from heads.ridge import solve_ridge

WINDOW_CELLS = 2**26  # numbers of the designs held at once
BATCH_CELLS = 2**22  # numbers of the coordinates solved together

A = TypeVar("A")
B = TypeVar("B")


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


@dataclass(frozen=True)
class Solved:
    """A fit with its answer.

    Attributes:
        fit: What was asked.
        design: Its coordinates.
        V: Parameters per strength, ``(s, k, r + 1)``; the last coordinate is the intercept.
        exact: ``(s,)``: which strengths are at their optimum; the others were not `worth` it.
    """

    fit: Fit
    design: Design
    V: Float
    exact: NDArray[np.bool_]


Worth = Callable[[Solved], NDArray[np.bool_]]


def solve_all(
    X: NDArray[np.float32], fits: Sequence[Fit], finish: Callable[[Solved], A], *, worth: Worth | None = None
) -> list[A]:
    """Solve every fit.

    Args:
        X: Raw rows ``(n, d)``.
        fits: What to solve.
        finish: What to make of each answer; the design is dropped afterwards.
        worth: Where weakly penalised strengths cost seconds: which of them ``(s,)`` to finish, from a first answer.

    Returns:
        What `finish` made, in the order of `fits`.
    """
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
        for solved in _parallel(partial(_solve_batch, fits, design, finish, worth), _batches(fits, list(design))):
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
    fits: Sequence[Fit],
    design: Mapping[int, Design],
    finish: Callable[[Solved], A],
    worth: Worth | None,
    batch: Sequence[int],
) -> list[tuple[int, A]]:
    """Solve the fits of one batch and finish each."""
    members = [(fits[i], design[i]) for i in batch]
    if fits[batch[0]].n_logits:
        solutions = _solve_logistic(members, worth)
    else:
        solutions = [(_ridge if fit.job.kind == "regression" else _constant)(fit, design) for fit, design in members]
    return [(i, finish(solved)) for i, solved in zip(batch, solutions, strict=True)]


def _solve_logistic(batch: Sequence[tuple[Fit, Design]], worth: Worth | None) -> list[Solved]:
    """Stack folds into one batch, smaller ones padded, and cut the answers apart again."""
    k, s = batch[0][0].n_logits, len(batch[0][0].strengths)
    T = _stack([design.coordinates for _, design in batch])
    Y, weight = np.zeros((len(batch), k, 1, T.shape[1])), np.zeros((len(batch), s, T.shape[1]))
    for g, (fit, design) in enumerate(batch):
        m = len(fit.rows)
        label = np.unique(fit.job.y[fit.rows], return_inverse=True)[1]
        Y[g, :, 0, :m] = label if k == 1 else label == np.arange(k)[:, None]
        weight[g, :, :m] = fit.strengths[:, None] * design.weight
    problems = Problems(T, T.astype(np.float32, copy=False), Y, weight)

    def worth_of_batch(V: Float) -> NDArray[np.bool_]:
        asked = worth or (lambda _: np.ones(s, bool))
        return np.asarray(np.any([asked(solved) for solved in _unstack(batch, V, np.zeros(s, bool))], axis=0))

    V, exact = solve_logistic(problems, worth_of_batch if worth else None)
    return _unstack(batch, V, exact)


def _unstack(batch: Sequence[tuple[Fit, Design]], V: Float, exact: NDArray[np.bool_]) -> list[Solved]:
    """The answers ``(g, k, s, r)`` fold by fold, as softmax parameters, without padding."""
    full = np.concatenate([-V / 2, V / 2], axis=1) if V.shape[1] == 1 else V
    solved = []
    for (fit, design), parameters in zip(batch, full.transpose(0, 2, 1, 3), strict=True):
        used = np.r_[: design.coordinates.shape[1] - 1, -1]
        solved.append(Solved(fit, design, parameters[..., used], exact))
    return solved


def _stack(coordinates: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Coordinates of folds as one array ``(g, n, r)``: zeros where a fold has fewer; the ones stay last."""
    if len(coordinates) == 1:
        return coordinates[0][None]
    shape = np.max([one.shape for one in coordinates], axis=0)
    T = np.zeros((len(coordinates), *shape), coordinates[0].dtype)
    for g, one in enumerate(coordinates):
        T[g, : len(one), : one.shape[1] - 1], T[g, : len(one), -1] = one[:, :-1], 1
    return T


def _ridge(fit: Fit, design: Design) -> Solved:
    """Coefficients in the outputs' own units for every strength."""
    centre, scale = target_scale(fit.job.y[fit.rows], design.weight)
    Y = (fit.job.y[fit.rows] - centre) / scale
    alphas = len(design.standard.mean) / fit.strengths
    V = solve_ridge(design, Y, alphas) * scale[:, None]
    V = np.concatenate([V, np.broadcast_to(centre[:, None], (*V.shape[:2], 1))], axis=2)
    return Solved(fit, design, V, np.ones(len(V), bool))


def target_scale(y: Float, weight: Float) -> tuple[Float, Float]:
    """Mean and standard deviation of each output, ``(t,)``; 1 where it does not vary."""
    centre = np.average(y, axis=0, weights=weight)
    scale = np.sqrt(np.average((y - centre) ** 2, axis=0, weights=weight))
    return centre, np.where(scale > 1e-12 * np.abs(centre), scale, 1.0)


def _constant(fit: Fit, design: Design) -> Solved:
    """One class only: nothing to tell apart."""
    n_strengths = len(fit.strengths)
    return Solved(fit, design, np.zeros((n_strengths, 1, design.coordinates.shape[1])), np.ones(n_strengths, bool))


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
