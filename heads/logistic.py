"""Many L2-regularised logistic regressions at once, to their optimum: Newton's method with conjugate gradients.

Each problem minimises ``C * sum_i weight_i * log_loss_i + 0.5 * |V|^2``, intercept unpenalised (scikit-learn's
objective). All strengths of all folds start together with a diagonal preconditioner. Those that it serves badly (weak
penalties on correlated columns) follow one strength at a time, each from where the last two lead to, with factors of
their Hessians as preconditioners. Newton stops when a step no longer moves any training logit: at the optimum itself.

Shape letters: g folds in the batch, k logit columns (1 for two classes, else c), s strengths, n rows, r coordinates.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from heads.curvature import Diagonal, Factor, Hessian, Inverse, Problems, choose_factor
from heads.head import Float

MAX_NEWTON = 100
MAX_CG = 1000
EASY_CG = 15  # conjugate-gradient steps per Newton step up to which the diagonal preconditioner is kept
REFRESH_CG = 8  # steps per Newton step from which an old factor is replaced
TOLERANCE = 1e-4  # on training logits: last Newton step times its relative error (the residual's, or the step's own)
FIRST_FORCING, HARD_FORCING, LAST_FORCING = 0.3, 0.1, 0.01  # relative residuals of a step: first, by factors, last
CHEAP_WORK = 5e9  # multiplications of a factor that is not worth doing without; a fraction of a second
PRECISE_CELLS = 2**20  # up to this many coordinates, factors are float64


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
        worth: Where factors cost seconds, asked with unfinished parameters ``(g, k, s, r)`` which strengths ``(s,)``
            shall be finished; None for all.

    Returns:
        Parameters ``(g, k, s, r)``, the last coordinate is the intercept; and which strengths ``(s,)`` are finished.
    """
    solution = _prior(problems)
    factor, work = choose_factor(problems)
    exact = np.arange(solution.shape[2]) < _solve_easy(problems, solution)
    if not exact.all():
        wanted = ~exact if worth is None or work <= CHEAP_WORK else ~exact & worth(solution)
        _solve_hard(problems, solution, np.flatnonzero(wanted), factor)
        exact |= wanted
    return solution, exact


def _prior(problems: Problems) -> Float:
    """No coefficients; intercepts that give the classes' weighted shares."""
    solution = np.zeros(problems.shape)
    weight = problems.weight[:, None, :1]
    share = (weight * problems.Y).sum(axis=3) / weight.sum(axis=3)
    solution[..., -1] = np.log(share / (1 - share)) if share.shape[1] == 1 else np.log(share)
    return solution


def _solve_easy(problems: Problems, solution: Float) -> int:
    """Solve in place, all strengths together, what a diagonal preconditioner can; returns how many that are.

    Where it takes more than EASY_CG steps, it is not the right one for that strength, nor for weaker penalties.
    """
    n_easy = solution.shape[2]
    strengths, folds = np.arange(n_easy), np.arange(len(solution))
    point = _evaluate(problems, solution)
    forcing = np.full(point.objective.shape, FIRST_FORCING)
    for _ in range(MAX_NEWTON):
        hessian = Hessian(problems, point.P)
        point, error, left = _newton(point, hessian, Diagonal(hessian), forcing, EASY_CG)
        solution[:, :, strengths] = point.V
        n_easy = min([n_easy, *strengths[left.any(axis=0)]])
        keep = np.flatnonzero((error > TOLERANCE).any(axis=0) & (strengths < n_easy))
        if not len(keep):
            break
        forcing = np.clip(error / forcing, LAST_FORCING, FIRST_FORCING)[:, keep]
        strengths, problems, point = strengths[keep], problems.select(folds, keep), _select(point, folds, keep)
    return int(n_easy)


def _solve_hard(problems: Problems, solution: Float, strengths: NDArray[np.intp], factor: Factor | None) -> None:
    """Solve `strengths` in place, each from the best start known; factors are kept while good."""
    inverse: Inverse | None = None
    limit = MAX_CG if factor is None else REFRESH_CG
    for s in strengths:
        one = problems.select(np.arange(len(solution)), np.array([s]))
        one = replace(one, rough=one.T) if one.T.size <= PRECISE_CELLS else one
        before = [solution[:, :, [i]] for i in range(max(0, s - 2), s)]
        extrapolated = [2 * before[1] - before[0]] if len(before) == 2 else []
        point = _best(one, [solution[:, :, [s]], *before[-1:], *extrapolated])
        forcing = np.full(point.objective.shape, HARD_FORCING)
        for _ in range(MAX_NEWTON):
            hessian = Hessian(one, point.P)
            inverse = inverse or (Diagonal(hessian) if factor is None else factor(one, point.P))
            point, error, left = _newton(point, hessian, inverse, forcing, limit)
            if left.any() or factor is None:
                inverse = None
            if not left.any() and (error <= TOLERANCE).all():
                break
            forcing = np.clip(error / forcing, LAST_FORCING, HARD_FORCING)
        solution[:, :, [s]] = point.V


def _newton(
    point: Point, hessian: Hessian, inverse: Inverse, forcing: Float, limit: int
) -> tuple[Point, Float, NDArray[np.bool_]]:
    """One damped Newton step.

    Returns:
        The new point, an estimate ``(g, s)`` of the error left in training logits, and which steps were cut short.
    """
    problems = hessian.problems
    gradient = _pull(problems, problems.weight[:, None] * (point.P - problems.Y))
    gradient[..., :-1] += point.V[..., :-1]
    step, left = _conjugate_gradients(hessian, inverse, -gradient, forcing, limit)
    new = _line_search(problems, point, step, np.einsum("gksr,gksr->gs", gradient, step))
    moved = (np.abs(new.F - point.F) * (problems.weight > 0)[:, None]).max(axis=(1, 3))
    return new, moved * np.maximum(moved, forcing), left


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


def _select(point: Point, folds: NDArray[np.intp], strengths: NDArray[np.intp]) -> Point:
    pick = (folds[:, None], slice(None), strengths)
    cut = [np.moveaxis(a[pick], 2, 1) for a in (point.V, point.F, point.P)]
    return Point(cut[0], cut[1], cut[2], point.objective[np.ix_(folds, strengths)])


def _evaluate(problems: Problems, V: Float) -> Point:
    """Logits, probabilities and objective at V."""
    F = _push(problems, V)
    P, loss = (_sigmoid if F.shape[1] == 1 else _softmax)(F, problems.Y)
    penalty = 0.5 * np.einsum("gksr,gksr->gs", V[..., :-1], V[..., :-1])
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
    hessian: Hessian, inverse: Inverse, right: Float, forcing: Float, limit: int
) -> tuple[Float, NDArray[np.bool_]]:
    """Solve hessian @ step = right to the relative residual `forcing` ``(g, s)``, in the preconditioner's norm.

    Returns:
        The step, and which problems ``(g, s)`` were left unfinished after `limit` iterations.
    """
    kind = hessian.problems.rough.dtype
    scale = np.sqrt(np.einsum("gksr,gksr->gs", right, right))[:, None, :, None]
    scale[scale == 0] = 1
    residual = (right / scale).astype(kind)
    step = np.zeros_like(residual)
    direction = inverse.apply(residual)
    energy = np.einsum("gksr,gksr->gs", residual, direction)
    target = (energy * forcing**2).astype(kind)
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
    return step * scale, active


def _push(problems: Problems, V: Float) -> Float:
    """Logits ``(g, k, s, n)`` of parameters V ``(g, k, s, r)``."""
    g, k, s, r = V.shape
    F = np.empty((g, k * s, problems.T.shape[1]))
    for part in problems.parts():
        T = problems.T[:, part].astype(np.float64, copy=False)
        F[..., part] = V.reshape(g, k * s, r) @ T.transpose(0, 2, 1)
    return F.reshape(g, k, s, -1)


def _pull(problems: Problems, R: Float) -> Float:
    """Sum over rows of R ``(g, k, s, n)`` times the coordinates: ``(g, k, s, r)``."""
    g, k, s, r = problems.shape
    total = np.zeros((g, k * s, r))
    for part in problems.parts():
        total += R[..., part].reshape(g, k * s, -1) @ problems.T[:, part].astype(np.float64, copy=False)
    return total.reshape(g, k, s, r)
