"""Folds of many jobs, solved in bulk.

A fold that several tasks share is standardised and rotated once; folds of one kind are solved together, batches of
them on all cores; and what is large is made, used and dropped before the next.
"""

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
from heads.design import Design, make_design, rank, share_designs
from heads.head import Float, Index, Job, Standardiser, row_chunks, standardise, standardise_folds
from heads.logistic import is_small, solve_logistic
from heads.ridge import solve_ridge, target_scale
from store import usable_cores

WINDOW_CELLS = 2**26  # numbers of the designs held at once
BATCH_FITS = 16  # fits solved together at most, so that there is work for several cores
BATCH_CELLS = 2**22  # numbers of the coordinates solved together
LOGIT_CELLS = 2**24  # numbers of the logits solved together on shared coordinates
MAX_UNION = 1.5  # rows of folds that share a matrix, times those of the smallest of them

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

    @property
    def fold(self) -> tuple[Index, Float]:
        """Training rows and the weight of each."""
        return self.rows, self.job.weight(self.rows)

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
        worth: Where weakly penalised strengths are dear: which of them ``(s,)`` to finish, from a first answer.

    Returns:
        What `finish` made, in the order of `fits`.
    """
    places: dict[tuple[bytes, bytes, bool], list[int]] = {}
    for i, (fit, large) in enumerate(zip(fits, _are_large(X, fits), strict=True)):
        places.setdefault((*fit.key, large), []).append(i)
    same, is_large = list(places.values()), [large for *_, large in places]
    firsts = [fits[own[0]] for own in same]
    standards = standardise_folds(X, [fit.fold for fit in firsts]) if firsts else []
    done: dict[int, A] = {}

    def designs(group: Sequence[int]) -> list[Design]:
        own, scales = [firsts[i] for i in group], [standards[i] for i in group]
        if is_large[group[0]]:
            return _shared_designs(X, own, scales)
        return [make_design(X, *own[0].fold, scales[0])]

    for window in _windows(X, firsts, is_large):
        made = _parallel(designs, window)
        design = {
            place: one
            for group, found in zip(window, made, strict=True)
            for i, one in zip(group, found, strict=True)
            for place in same[i]
        }
        batches = _batches(fits, design)
        for solved in _parallel(partial(_solve_batch, fits, design, finish, worth), batches):
            done.update(solved)
    return [done[i] for i in range(len(fits))]


def _are_large(X: NDArray[np.float32], fits: Sequence[Fit]) -> list[bool]:
    """Which fits are logistic regressions of many parameters and more rows than columns, which a rotation would not
    make smaller.

    Rows that lie in few dimensions, such as vectors of texts that repeat, do not make a fold large.
    """
    d = X.shape[1]
    large = [
        fit.n_logits > 0 and len(fit.rows) > d and not is_small(fit.n_logits, len(fit.rows), d + 1) for fit in fits
    ]
    if not any(large):
        return large
    is_wide = rank(X, np.unique(np.concatenate([fit.rows for fit in fits]))) > d / 2
    return [one and is_wide for one in large]


def _shared_designs(X: NDArray[np.float32], fits: Sequence[Fit], standards: Sequence[Standardiser]) -> list[Design]:
    """Designs of large folds that share a matrix."""
    shared = standards[0] if len(fits) == 1 else standardise(X, np.unique(np.concatenate([f.rows for f in fits])))
    return share_designs(X, [fit.fold for fit in fits], standards, shared)


def _windows(X: NDArray[np.float32], fits: Sequence[Fit], is_large: Sequence[bool]) -> list[list[list[int]]]:
    """Groups of folds that are held together; each group shares a matrix."""
    windows: list[list[list[int]]] = []
    room = 0
    for group, n_rows in _groups(X, fits, is_large):
        cells = n_rows * min(n_rows, X.shape[1])
        if not windows or cells > room:
            windows.append([])
            room = WINDOW_CELLS
        windows[-1].append(group)
        room -= cells
    return windows


def _groups(X: NDArray[np.float32], fits: Sequence[Fit], is_large: Sequence[bool]) -> list[tuple[list[int], int]]:
    """Folds that share a matrix, and how many rows that has: large ones that have most of their rows in common.

    Rows with gaps are not shared: a gap becomes the mean of the fold, which is another one in each.
    """
    has_gap = np.concatenate([np.isnan(X[part]).any(axis=1) for part in row_chunks(X)])
    groups: list[tuple[list[int], NDArray[np.bool_], int]] = []
    for i, fit in enumerate(fits):
        own = np.zeros(len(X), bool)
        own[fit.rows] = True
        can_share = is_large[i] and not (own & has_gap).any()
        for g, (members, union, smallest) in enumerate(groups if can_share else []):
            both, least = own | union, min(own.sum(), smallest)
            if both.sum() <= MAX_UNION * least:
                groups[g] = ([*members, i], both, least)
                break
        else:
            groups.append(([i], own, int(own.sum()) if can_share else 0))
    return [(members, int(union.sum())) for members, union, _ in groups]


def _batches(fits: Sequence[Fit], designs: Mapping[int, Design]) -> list[list[int]]:
    """Fits that are solved together: on one matrix or on small ones, as many logits and strengths, about as many rows.

    How many does not hang on the cores: a batch takes its steps together, so other batches give other last digits.
    """

    def kind(i: int) -> tuple[int, int, int]:
        return id(designs[i].coordinates) if designs[i].is_shared else 0, fits[i].n_logits, len(fits[i].strengths)

    batches: list[list[int]] = []
    for _, group in groupby(sorted(designs, key=lambda i: (kind(i), len(fits[i].rows))), key=kind):
        members = list(group)
        n_batches = -(-len(members) // max(1, min(BATCH_FITS, _room(fits[members[-1]], designs[members[-1]]))))
        size = -(-len(members) // n_batches)
        batches += [members[start : start + size] for start in range(0, len(members), size)]
    return batches


def _room(fit: Fit, design: Design) -> int:
    """How many such fits can be held together."""
    n_rows, r = design.coordinates.shape
    if design.is_shared:
        return int(LOGIT_CELLS // (n_rows * fit.n_logits * len(fit.strengths)))
    whole = max(len(fit.strengths) * (fit.n_logits * r) ** 2, n_rows * r**2)
    return int(BATCH_CELLS // max(1, whole if is_small(fit.n_logits, n_rows, r) else n_rows * r))


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
    """Solve folds as one batch and cut the answers apart again."""
    problems = _problems(batch)
    s = problems.shape[2]

    def worth_of_batch(V: Float) -> NDArray[np.bool_]:
        asked = worth or (lambda _: np.ones(s, bool))
        return np.asarray(np.any([asked(solved) for solved in _unstack(batch, V, np.zeros(s, bool))], axis=0))

    V, exact = solve_logistic(problems, worth_of_batch if worth else None)
    return _unstack(batch, V, exact)


def _problems(batch: Sequence[tuple[Fit, Design]]) -> Problems:
    """Stack folds into one batch; smaller ones are padded."""
    k, s = batch[0][0].n_logits, len(batch[0][0].strengths)
    first = batch[0][1]
    T = first.coordinates[None] if first.is_shared else _stack([design.coordinates for _, design in batch])
    _, n, r = T.shape
    Y, weight = np.zeros((len(batch), k, 1, n)), np.zeros((len(batch), s, n))
    ratio, power = np.ones((len(batch), 1, 1, r)), np.ones((len(T), r))
    ratio[..., -1] = 0
    for g, (fit, design) in enumerate(batch):
        label = np.unique(fit.job.y[fit.rows], return_inverse=True)[1]
        Y[g, :, 0, design.place] = label[:, None] if k == 1 else label[:, None] == np.arange(k)
        np.add.at(weight[g].T, design.place, design.weight[:, None] * fit.strengths)
        ratio[g, 0, 0, : len(design.ratio)] = design.ratio
        power[g % len(T), : len(design.power)] = design.power
    return Problems(T, T.astype(np.float32, copy=False), Y, weight, ratio, first.basis, power)


def _unstack(batch: Sequence[tuple[Fit, Design]], V: Float, exact: NDArray[np.bool_]) -> list[Solved]:
    """The answers ``(g, k, s, r)`` fold by fold, as softmax parameters, without padding."""
    full = np.concatenate([-V / 2, V / 2], axis=1) if V.shape[1] == 1 else V
    solved = []
    for (fit, design), parameters in zip(batch, full.transpose(0, 2, 1, 3), strict=True):
        used = np.r_[: len(design.ratio), -1]
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


def _constant(fit: Fit, design: Design) -> Solved:
    """One class only: nothing to tell apart."""
    n_strengths = len(fit.strengths)
    return Solved(fit, design, np.zeros((n_strengths, 1, design.coordinates.shape[1])), np.ones(n_strengths, bool))


@lru_cache(maxsize=1)
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


def _n_cores() -> int:
    """Cores that this process may use: as many as BLAS was allowed."""
    return min([len(usable_cores()), *(int(library["num_threads"]) for library in _blas().info())])


def _parallel(function: Callable[[A], B], items: Sequence[A]) -> list[B]:
    """Map over items on all cores: threads times BLAS threads is never more than there are."""
    n_cores = _n_cores()
    n_workers = max(1, min(n_cores, len(items)))
    with _blas().limit(limits=n_cores // n_workers):
        if n_workers == 1:
            return [function(item) for item in items]
        with ThreadPoolExecutor(n_workers) as pool:
            return list(pool.map(function, items))
