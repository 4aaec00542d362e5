"""Many L2-regularised logistic regressions at once: batched Newton steps by preconditioned conjugate gradients.

Each problem minimises ``C * sum_i weight_i * log_loss_i + 0.5 * |V|^2``, intercept unpenalised (scikit-learn's
objective). Gradients are float64; the conjugate gradients that find a Newton step may run in float32, where an error
only costs a further step. Newton stops when a step no longer moves any training logit: at the optimum itself.

Shape letters: g folds in the batch, k logit columns (1 for two classes, else c), s strengths, n rows, r coordinates.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.head import Float

Rough = NDArray[Any]
MAX_NEWTON = 100
MAX_CG = 400
STEP_TOLERANCE = 1e-3  # largest change of a training logit in the last Newton step
LAST_FORCING = 0.01  # relative residual of a Newton step near the optimum; the error left is about the product of both
FIRST_FORCING = 0.3
CHUNK = 1024


@dataclass(frozen=True)
class Problems:
    """A batch of folds of one number of classes, each with the same number of strengths.

    Attributes:
        T: Coordinates with a last column of ones, ``(g, n, r)``; rows and columns that pad a smaller fold are 0.
        rough: The same for conjugate gradients, where a large batch can make do with float32.
        Y: One-hot labels ``(g, k, 1, n)``; for k = 1 whether the second class.
        weight: C times sample weight, ``(g, s, n)``; 0 for padding.
    """

    T: NDArray[Any]
    rough: Rough
    Y: Float
    weight: Float

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the solution, ``(g, k, s, r)``."""
        return len(self.T), self.Y.shape[1], self.weight.shape[1], self.T.shape[2]

    def select(self, folds: NDArray[np.intp], strengths: NDArray[np.intp]) -> "Problems":
        """The sub-batch of those folds and strengths."""
        if len(folds) == len(self.T):
            return replace(self, weight=self.weight[:, strengths])
        return Problems(self.T[folds], self.rough[folds], self.Y[folds], self.weight[np.ix_(folds, strengths)])


@dataclass(frozen=True)
class Point:
    """Where a batch stands: V ``(g, k, s, r)``, logits F, probabilities P ``(g, k, s, n)``, objective ``(g, s)``."""

    V: Float
    F: Float
    P: Float
    objective: Float


def solve_logistic(problems: Problems, start: Float | None = None) -> Float:
    """Minimise every problem of the batch.

    Args:
        problems: The batch.
        start: First guess, ``(g, k, s, r)``; None for the classes' shares.

    Returns:
        Parameters ``(g, k, s, r)``; the last coordinate is the intercept.
    """
    solution = _prior(problems) if start is None else start.copy()
    folds, strengths = np.arange(solution.shape[0]), np.arange(solution.shape[2])
    active, point = problems, _evaluate(problems, solution)
    last_step = np.full(point.objective.shape, np.inf)
    for _ in range(MAX_NEWTON):
        forcing = np.clip(last_step, LAST_FORCING, FIRST_FORCING)
        point, last_step = _newton(active, point, forcing)
        solution[np.ix_(folds, np.arange(solution.shape[1]), strengths)] = point.V
        moving = last_step > STEP_TOLERANCE
        if not moving.any():
            break
        keep = moving.any(axis=1), moving.any(axis=0)
        if not (keep[0].all() and keep[1].all()):
            rows, columns = np.flatnonzero(keep[0]), np.flatnonzero(keep[1])
            folds, strengths, last_step = folds[rows], strengths[columns], last_step[np.ix_(rows, columns)]
            active, point = active.select(rows, columns), _select(point, rows, columns)
    return solution


def _prior(problems: Problems) -> Float:
    """No coefficients; intercepts that give the classes' weighted shares."""
    solution = np.zeros(problems.shape)
    weight = problems.weight[:, None, :1]
    share = (weight * problems.Y).sum(axis=3) / weight.sum(axis=3)
    solution[..., -1] = np.log(share / (1 - share)) if share.shape[1] == 1 else np.log(share)
    return solution


def _select(point: Point, folds: NDArray[np.intp], strengths: NDArray[np.intp]) -> Point:
    pick = (folds[:, None], slice(None), strengths)
    cut = [np.moveaxis(a[pick], 2, 1) for a in (point.V, point.F, point.P)]
    return Point(cut[0], cut[1], cut[2], point.objective[np.ix_(folds, strengths)])


def _newton(problems: Problems, point: Point, forcing: Float) -> tuple[Point, Float]:
    """One damped Newton step; returns the new point and the largest change of a logit, ``(g, s)``."""
    gradient = _pull(problems, problems.weight[:, None] * (point.P - problems.Y))
    gradient[..., :-1] += point.V[..., :-1]
    step = _conjugate_gradients(problems, point.P, -gradient, forcing).astype(np.float64)
    slope = np.einsum("gksr,gksr->gs", gradient, step)
    length = np.ones(slope.shape)
    while True:
        new = _evaluate(problems, point.V + length[:, None, :, None] * step)
        allowed = point.objective + 1e-4 * length * slope + 1e-12 * np.abs(point.objective)
        too_long = (new.objective > allowed) & (length > 1e-6)
        if not too_long.any():
            break
        length = np.where(too_long, length / 2, length)
    change = np.abs(new.F - point.F) * (problems.weight > 0)[:, None]
    return new, change.max(axis=(1, 3))


def _evaluate(problems: Problems, V: Float) -> Point:
    """Logits, probabilities and objective at V."""
    F = _push(problems, V)
    if F.shape[1] == 1:
        P, loss = _sigmoid(F, problems.Y)
    else:
        P, loss = _softmax(F, problems.Y)
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


def _conjugate_gradients(problems: Problems, P: Float, right: Float, forcing: Float) -> Rough:
    """Solve Hessian @ step = right to the relative residual `forcing` ``(g, s)``, in the preconditioner's norm."""
    curvature = _Curvature(problems, P)
    inverse = 1 / curvature.diagonal()
    scale = np.sqrt(np.einsum("gksr,gksr->gs", right, right))[:, None, :, None]
    scale[scale == 0] = 1
    residual = (right / scale).astype(problems.rough.dtype)
    step = np.zeros_like(residual)
    direction = inverse * residual
    energy = np.einsum("gksr,gksr->gs", residual, direction)
    target = (energy * forcing**2).astype(problems.rough.dtype)
    for _ in range(MAX_CG):
        product = curvature.times(direction)
        bend = np.einsum("gksr,gksr->gs", direction, product)
        active = (energy > target) & (bend > 0)
        if not active.any():
            break
        length = np.where(active, energy / np.where(active, bend, 1), 0)[:, None, :, None]
        step += length * direction
        residual -= length * product
        scaled = inverse * residual
        new_energy = np.einsum("gksr,gksr->gs", residual, scaled)
        ratio = np.where(active, new_energy / np.where(active, energy, 1), 0)[:, None, :, None]
        direction *= ratio
        direction += scaled
        energy = np.where(active, new_energy, energy)
    return np.asarray(step * scale)


class _Curvature:
    """The Hessian at probabilities P ``(g, k, s, n)``, in the precision of `Problems.rough`."""

    def __init__(self, problems: Problems, P: Float) -> None:
        self._problems = problems
        self._P = P.astype(problems.rough.dtype)
        self._is_binary = P.shape[1] == 1
        weight = problems.weight[:, None].astype(problems.rough.dtype)
        self._weighted = weight * self._P * (1 - self._P) if self._is_binary else weight * self._P

    def diagonal(self) -> Rough:
        """Its diagonal, ``(g, k, s, r)``."""
        own = self._weighted if self._is_binary else self._weighted * (1 - self._P)
        g, k, s, r = self._problems.shape
        total = np.zeros((g, k * s, r), self._P.dtype)
        for part in _row_parts(self._problems):
            total += own[..., part].reshape(g, k * s, -1) @ np.square(self._problems.rough[:, part])
        total = total.reshape(g, k, s, r)
        total[..., :-1] += 1
        total[..., -1] += np.finfo(np.float32).tiny
        return total

    def times(self, V: Rough) -> Rough:
        """Hessian times V ``(g, k, s, r)``, row part by row part so that each is read from memory once."""
        g, k, s, r = self._problems.shape
        total = np.zeros((g, k * s, r), self._P.dtype)
        for part in _row_parts(self._problems):
            T = self._problems.rough[:, part]
            Q = (V.reshape(g, k * s, r) @ T.transpose(0, 2, 1)).reshape(g, k, s, -1)
            if not self._is_binary:
                Q -= np.einsum("gksn,gksn->gsn", self._P[..., part], Q)[:, None]
            Q *= self._weighted[..., part]
            total += Q.reshape(g, k * s, -1) @ T
        total = total.reshape(g, k, s, r)
        total[..., :-1] += V[..., :-1]
        return total


def _push(problems: Problems, V: Float) -> Float:
    """Logits ``(g, k, s, n)`` of parameters V ``(g, k, s, r)``."""
    g, k, s, r = V.shape
    flat = V.reshape(g, k * s, r)
    parts = [flat @ problems.T[:, part].transpose(0, 2, 1).astype(np.float64) for part in _row_parts(problems)]
    return np.concatenate(parts, axis=2).reshape(g, k, s, -1) if len(parts) > 1 else parts[0].reshape(g, k, s, -1)


def _pull(problems: Problems, R: Float) -> Float:
    """Sum over rows of R ``(g, k, s, n)`` times the coordinates: ``(g, k, s, r)``."""
    g, k, s, r = problems.shape
    total = np.zeros((g, k * s, r))
    for part in _row_parts(problems):
        total += R[..., part].reshape(g, k * s, -1) @ problems.T[:, part].astype(np.float64, copy=False)
    return total.reshape(g, k, s, r)


def _row_parts(problems: Problems) -> Iterator[slice]:
    n_rows = problems.T.shape[1]
    return (slice(start, start + CHUNK) for start in range(0, n_rows, CHUNK))
