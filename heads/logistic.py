"""Many L2-regularised logistic regressions at once, to their optimum: Newton's method with conjugate gradients.

Each problem minimises ``C * sum_i weight_i * log_loss_i + 0.5 * |V|^2``, intercept unpenalised (scikit-learn's
objective). All strengths of all folds start together, preconditioned along the principal axes. Those that this serves
badly (weak penalties) follow one strength at a time, each from where the last two lead to, preconditioned by the
inverse of every class's own Hessian. Newton stops when a step no longer moves any training logit: at the optimum.

Shape letters: g folds in the batch, k logit columns (1 for two classes, else c), s strengths, n rows, r coordinates.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from heads.curvature import Blocks, Hessian, Inverse, Principal, Problems, Whole
from heads.head import Float

MAX_NEWTON = 100
MAX_CG = 1000
EASY_CG = 15  # conjugate-gradient steps per Newton step up to which the principal axes are enough
REFRESH_CG = 20  # steps per Newton step from which old blocks are inverted anew
TOLERANCE = 1e-4  # on training logits: last Newton step times its relative error (the residual's, or the step's own)
FIRST_FORCING, HARD_FORCING, LAST_FORCING = 0.3, 0.1, 0.01  # relative residuals of a step: first, by blocks, last
CHEAP_WORK = 1e8  # multiplications for one strength's blocks, which are inverted some ten times; milliseconds each
SMALL = 2**15  # coordinates of all rows, for every logit column, up to which complete Hessians are solved
SMALL_COORDINATES = 32  # and as few coordinates as that
BLOCK_CELLS = 2**27  # numbers of the blocks held at once

Solver = Callable[[Float], tuple[Float, Float]]
"""Finds steps ``(g, k, s, r)`` from right sides of that shape; returns the relative residuals ``(g, s)`` too."""


@dataclass(frozen=True)
class Point:
    """Where a batch stands: V ``(g, k, s, r)``, logits F, probabilities P ``(g, k, s, n)``, objective ``(g, s)``."""

    V: Float
    F: Float
    P: Float
    objective: Float


def solve_logistic(
    problems: Problems, worth: Callable[[Float], NDArray[np.bool_]] | None = None
) -> tuple[Float, NDArray[np.bool_]]:
    """Minimise every problem of the batch; strengths ascend.

    Args:
        problems: The batch.
        worth: Where blocks are dear, asked with unfinished parameters ``(g, k, s, r)`` which strengths ``(s,)``
            shall be finished; None for all.

    Returns:
        Parameters ``(g, k, s, r)``, the last coordinate is the intercept; and which strengths ``(s,)`` are finished.
    """
    solution = _prior(problems)
    exact = np.arange(solution.shape[2]) < _solve_easy(problems, solution)
    if not exact.all():
        wanted = ~exact if worth is None or _block_work(problems) <= CHEAP_WORK else ~exact & worth(solution)
        _solve_hard(problems, solution, np.flatnonzero(wanted))
        exact |= wanted
    return solution, exact


def is_small(k: int, n: int, r: int) -> bool:
    """Whether k logit columns of n rows in r coordinates are so little that complete Hessians are the quickest way."""
    return r <= SMALL_COORDINATES and k * n * r <= SMALL


def _block_work(problems: Problems) -> float:
    """Multiplications that the blocks of one strength take."""
    u, n, r = problems.T.shape
    return float(u * problems.shape[1] * (n * r**2 + r**3))


def _prior(problems: Problems) -> Float:
    """No coefficients; intercepts that give the classes' weighted shares."""
    solution = np.zeros(problems.shape)
    weight = problems.weight[:, None, :1]
    share = (weight * problems.Y).sum(axis=3) / weight.sum(axis=3)
    solution[..., -1] = np.log(share / (1 - share)) if share.shape[1] == 1 else np.log(share)
    return solution


def _solve_easy(problems: Problems, solution: Float) -> int:
    """Solve in place, all strengths together, what the principal axes can; returns how many that are.

    Where it takes more than EASY_CG steps, they are not enough for that strength, nor for weaker penalties.
    """
    n_easy = solution.shape[2]
    strengths = np.arange(n_easy)
    point = _evaluate(problems, solution)
    forcing = np.full(point.objective.shape, FIRST_FORCING)
    for _ in range(MAX_NEWTON):
        point, error, left = _newton(problems, point, _easy_solver(problems, point, forcing), forcing)
        solution[:, :, strengths] = point.V
        n_easy = min([n_easy, *strengths[(left & (error > TOLERANCE)).any(axis=0)]])
        keep = np.flatnonzero((error > TOLERANCE).any(axis=0) & (strengths < n_easy))
        if not len(keep):
            break
        forcing = np.clip(error / forcing, LAST_FORCING, FIRST_FORCING)[:, keep]
        strengths, problems, point = strengths[keep], problems.select(keep), _select(point, keep)
    return int(n_easy)


def _easy_solver(problems: Problems, point: Point, forcing: Float) -> Solver:
    """What finds the steps of all strengths together."""
    if is_small(problems.shape[1], *problems.T.shape[1:]):
        return Whole(problems, point.P).solve
    hessian = Hessian(problems, point.P)
    return partial(_conjugate_gradients, hessian, Principal(hessian), forcing=forcing, limit=EASY_CG)


def _solve_hard(problems: Problems, solution: Float, strengths: NDArray[np.intp]) -> None:
    """Solve `strengths` in place, each from the best start known; inverted blocks are kept while good."""
    u, _, r = problems.T.shape
    has_room = u * problems.shape[1] * r**2 <= BLOCK_CELLS
    invert, limit = (Blocks, REFRESH_CG) if has_room else (Principal, MAX_CG)
    inverse: Inverse | None = None
    for s in strengths:
        one = problems.select(np.array([s]))
        before = [solution[:, :, [i]] for i in range(max(0, s - 2), s)]
        extrapolated = [2 * before[1] - before[0]] if len(before) == 2 else []
        point = _best(one, [solution[:, :, [s]], *before[-1:], *extrapolated])
        forcing = np.full(point.objective.shape, HARD_FORCING)
        for _ in range(MAX_NEWTON):
            hessian = Hessian(one, point.P)
            inverse = inverse or invert(hessian)
            solve = partial(_conjugate_gradients, hessian, inverse, forcing=forcing, limit=limit)
            point, error, left = _newton(one, point, solve, forcing)
            if (error <= TOLERANCE).all():
                break
            if left.any() or not has_room:
                inverse = None
            forcing = np.clip(error / forcing, LAST_FORCING, HARD_FORCING)
        solution[:, :, [s]] = point.V


def _newton(problems: Problems, point: Point, solve: Solver, forcing: Float) -> tuple[Point, Float, NDArray[np.bool_]]:
    """One damped Newton step, which `solve` finds to the relative residual `forcing` ``(g, s)`` or as well as it can.

    Returns:
        The new point, an estimate ``(g, s)`` of the error left in training logits, and which steps were cut short.
    """
    gradient = _pull(problems, problems.weight[:, None] * (point.P - problems.Y))
    gradient += np.square(problems.ratio) * point.V
    step, reached = solve(-gradient)
    new = _line_search(problems, point, step, np.einsum("gksr,gksr->gs", gradient, step))
    moved = (np.abs(new.F - point.F) * (problems.weight > 0)[:, None]).max(axis=(1, 3))
    return new, moved * np.maximum(moved, reached), reached > forcing


def _line_search(problems: Problems, point: Point, step: Float, slope: Float) -> Point:
    """Go along `step` until the objective falls enough for its `slope`, ``(g, s)``."""
    length = np.ones(slope.shape)
    while True:
        new = _evaluate(problems, point.V + length[:, None, :, None] * step)
        allowed = point.objective + 1e-4 * length * slope + 1e-12 * np.abs(point.objective)
        too_long = (new.objective > allowed) & (length > 1e-6)
        if not too_long.any():
            return new
        length = np.where(too_long, length / 2, length)


def _best(problems: Problems, starts: Sequence[Float]) -> Point:
    """The start of least objective, fold by fold, for one strength."""
    objectives = [_evaluate(problems, start).objective[:, 0] for start in starts]
    return _evaluate(problems, np.stack([starts[b][g] for g, b in enumerate(np.argmin(objectives, axis=0))]))


def _select(point: Point, strengths: NDArray[np.intp]) -> Point:
    V, F, P = (array[:, :, strengths] for array in (point.V, point.F, point.P))
    return Point(V, F, P, point.objective[:, strengths])


def _evaluate(problems: Problems, V: Float) -> Point:
    """Logits, probabilities and objective at V."""
    F = _push(problems, V)
    P, loss = (_sigmoid if F.shape[1] == 1 else _softmax)(F, problems.Y)
    penalty = 0.5 * np.square(problems.ratio * V).sum(axis=(1, 3))
    return Point(V, F, P, np.einsum("gsn,gsn->gs", problems.weight, loss) + penalty)


def _sigmoid(F: Float, Y: Float) -> tuple[Float, Float]:
    small = np.exp(-np.abs(F))
    P = np.where(F >= 0, 1, small) / (1 + small)
    return P, (np.log1p(small) + np.maximum(F, 0) - Y * F)[:, 0]


def _softmax(F: Float, Y: Float) -> tuple[Float, Float]:
    top = F.max(axis=1, keepdims=True)
    P = np.exp(F - top)
    total = P.sum(axis=1, keepdims=True)
    P /= total
    return P, (np.log(total) + top)[:, 0] - np.einsum("gksn,gkn->gsn", F, Y[:, :, 0])


def _conjugate_gradients(
    hessian: Hessian, inverse: Inverse, right: Float, *, forcing: Float, limit: int
) -> tuple[Float, Float]:
    """Solve hessian @ step = right to the relative residual `forcing` ``(g, s)``, in the preconditioner's norm.

    Returns:
        The step, and the relative residual ``(g, s)`` it has; above `forcing` where `limit` iterations were not enough.
    """
    scale = np.sqrt(np.einsum("gksr,gksr->gs", right, right))[:, None, :, None]
    scale[scale == 0] = 1
    residual = (right / scale).astype(np.float32)
    step = np.zeros_like(residual)
    direction = inverse.apply(residual)
    energy = first = np.einsum("gksr,gksr->gs", residual, direction)
    target = (energy * forcing**2).astype(np.float32)
    active = energy > target
    for _ in range(limit):
        product = hessian.times(direction)
        bend = np.einsum("gksr,gksr->gs", direction, product)
        active &= bend > 0
        length = np.where(active, energy / np.where(active, bend, 1), 0)[:, None, :, None]
        step += length * direction
        residual -= length * product
        scaled = inverse.apply(residual)
        new_energy = np.einsum("gksr,gksr->gs", residual, scaled)
        ratio = np.where(active, new_energy / np.where(active, energy, 1), 0)[:, None, :, None]
        direction *= ratio
        direction += scaled
        energy = np.where(active, new_energy, energy)
        active &= energy > target
        if not active.any():
            break
    reached = np.sqrt(np.maximum(energy, 0) / np.where(first > 0, first, 1))
    return step * scale, np.where(energy > target, reached, forcing)


def _push(problems: Problems, V: Float) -> Float:
    """Logits ``(g, k, s, n)`` of parameters V ``(g, k, s, r)``."""
    F = np.empty((*V.shape[:3], problems.T.shape[1]))
    for part in problems.parts():
        F[..., part] = problems.push(V, part)
    return F


def _pull(problems: Problems, R: Float) -> Float:
    """Sum over rows of R ``(g, k, s, n)`` times the coordinates: ``(g, k, s, r)``."""
    total = np.zeros(problems.shape)
    for part in problems.parts():
        total += problems.pull(R[..., part], part)
    return total
