"""Hessians of batches of logistic regressions, and approximate inverses of them for conjugate gradients.

Shape letters: g folds in the batch, k logit columns (1 for two classes, else c), s strengths, n rows, r coordinates;
u is g, or 1 where all folds share their coordinates.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from heads.head import Float

CHUNK = 1024


@dataclass(frozen=True)
class Problems:
    """A batch of folds of one number of classes, each with the same number of strengths.

    Attributes:
        T: Coordinates with a last column of ones, ``(u, n, r)``; rows and columns that pad a smaller fold are 0.
        rough: The same in float32, which conjugate gradients can make do with.
        Y: One-hot labels ``(g, k, 1, n)``; for k = 1 whether the second class.
        weight: C times sample weight, ``(g, s, n)``; 0 for padding and for rows of other folds.
        ratio: Roots of the penalties, ``(g, 1, 1, r)``; 0 for the intercept.
        basis: Principal axes of the coordinates without the last, ``(r - 1, r - 1)``; None where they are the axes.
        power: Mean square of the coordinates along the principal axes, ``(u, r)``; 1 for the intercept.
    """

    T: NDArray[Any]
    rough: NDArray[Any]
    Y: Float
    weight: Float
    ratio: Float
    basis: NDArray[Any] | None
    power: Float

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the solution, ``(g, k, s, r)``."""
        return len(self.Y), self.Y.shape[1], self.weight.shape[1], self.T.shape[2]

    def select(self, strengths: NDArray[np.intp]) -> "Problems":
        """The same folds with those strengths."""
        return replace(self, weight=self.weight[:, strengths])

    def push(self, V: NDArray[Any], part: slice) -> NDArray[Any]:
        """Logits ``(g, k, s, m)`` that V ``(g, k, s, r)`` gives to m rows, in V's precision."""
        T = self._rows(part, V.dtype)
        return np.asarray((V.reshape(len(T), -1, V.shape[3]) @ T.transpose(0, 2, 1)).reshape(*V.shape[:3], -1))

    def pull(self, R: NDArray[Any], part: slice) -> NDArray[Any]:
        """Sum over m rows of R ``(g, k, s, m)`` times their coordinates ``(g, k, s, r)``, in R's precision."""
        T = self._rows(part, R.dtype)
        return np.asarray((R.reshape(len(T), -1, R.shape[3]) @ T).reshape(*R.shape[:3], -1))

    def parts(self) -> Iterator[slice]:
        """Row slices that fit a processor's cache."""
        return (slice(start, start + CHUNK) for start in range(0, self.T.shape[1], CHUNK))

    def _rows(self, part: slice, kind: Any) -> NDArray[Any]:
        return (self.rough if kind == np.float32 else self.T)[:, part].astype(kind, copy=False)


class Hessian:
    """The Hessian at probabilities P ``(g, k, s, n)``, in float32."""

    def __init__(self, problems: Problems, P: Float) -> None:
        self.problems = problems
        weighted = problems.weight[:, None] * P
        own = weighted * (1 - P)
        self.total = own.sum(axis=3)
        """Sum over rows of each class's own second derivative, ``(g, k, s)``."""
        self._own = own.astype(np.float32)
        self._penalty = np.square(problems.ratio).astype(np.float32)
        self._is_binary = P.shape[1] == 1
        if not self._is_binary:
            self._P, self._weighted = P.astype(np.float32), weighted.astype(np.float32)
            self._largest = np.equal(P, P.max(axis=1, keepdims=True)).astype(np.float32)
            self._largest /= self._largest.sum(axis=1, keepdims=True)

    def times(self, V: NDArray[Any]) -> NDArray[Any]:
        """Hessian times V ``(g, k, s, r)``, row part by row part so that each is read from memory once."""
        total = np.asarray(self._penalty * V)
        for part in self.problems.parts():
            bent = self._bend(self.problems.push(V, part), part)
            total += self.problems.pull(bent, part)
        return total

    def own(self, u: int, k: int) -> NDArray[Any]:
        """The block of one class ``(r, r)``, for the first strength; the mean of folds that share their coordinates."""
        T = self.problems.rough[u]
        folds = slice(u, u + 1) if len(self.problems.rough) > 1 else slice(None)
        bend = self._own[folds, k, 0].mean(axis=0)
        used = np.flatnonzero(bend)
        half = np.sqrt(bend[used])[:, None] * T[used]
        block = half.T @ half
        block[np.diag_indices(len(block))] += self._penalty[folds, 0, 0].mean(axis=0)
        return np.asarray(block)

    def _bend(self, Q: NDArray[Any], part: slice) -> NDArray[Any]:
        """Second derivative of the loss along the change Q of the logits, both ``(g, k, s, n)``; Q is overwritten."""
        if self._is_binary:
            Q *= self._own[..., part]
            return Q
        # Measured from the likeliest class, so that digits do not cancel where its probability is nearly 1.
        Q -= np.einsum("gksn,gksn->gsn", self._largest[..., part], Q)[:, None]
        Q -= np.einsum("gksn,gksn->gsn", self._P[..., part], Q)[:, None]
        Q *= self._weighted[..., part]
        return Q


class Inverse(Protocol):
    """An approximate inverse of a Hessian."""

    def apply(self, residual: NDArray[Any]) -> NDArray[Any]:
        """Inverse times residual, ``(g, k, s, r)``."""


class Principal:
    """As if all rows had the same curvature, which is diagonal along the principal axes: good for strong penalties."""

    def __init__(self, hessian: Hessian) -> None:
        problems = hessian.problems
        bend = hessian.total[..., None] * problems.power[:, None, None]
        bend[..., :-1] += 1
        self._inverse = (1 / np.maximum(bend, np.finfo(np.float32).tiny)).astype(np.float32)
        self._scale = np.where(problems.ratio > 0, problems.ratio, 1).astype(np.float32)
        self._basis = None if problems.basis is None else problems.basis.astype(np.float32)

    def apply(self, residual: NDArray[Any]) -> NDArray[Any]:
        """Inverse times residual, ``(g, k, s, r)``."""
        return _without_common(self._multiply, residual)

    def _multiply(self, residual: NDArray[Any]) -> NDArray[Any]:
        if self._basis is None:
            return np.asarray(self._inverse * residual)
        turned = residual / self._scale
        turned[..., :-1] = _times(turned[..., :-1], self._basis)
        turned *= self._inverse
        turned[..., :-1] = _times(turned[..., :-1], self._basis.T)
        return np.asarray(turned / self._scale)


class Whole:
    """The complete Hessian at probabilities P ``(g, k, s, n)``, in float64, solved directly: for small problems."""

    def __init__(self, problems: Problems, P: Float) -> None:
        g, k, s, r = problems.shape
        first, second = np.triu_indices(k)
        H = np.zeros((g, s, k * r, k * r))
        blocks = H.reshape(g, s, k, r, k, r)
        blocks[:, :, first, :, second] = blocks[:, :, second, :, first] = _second_derivatives(
            problems, P, first, second
        )
        diagonal = np.arange(k * r)
        H[..., diagonal, diagonal] += np.tile(np.square(problems.ratio[:, 0]), k)
        largest = H[..., diagonal, diagonal].max(axis=2)[..., None]
        H[..., diagonal, diagonal] += np.finfo(np.float64).eps * largest
        if k > 1:  # what the intercepts of all classes have in common: neither loss nor penalty holds it
            H[..., r - 1 :: r, r - 1 :: r] += largest[..., None]
        self._hessian = H

    def solve(self, right: Float) -> tuple[Float, Float]:
        """Return the step ``(g, k, s, r)`` with Hessian @ step = `right`, and what is left of that, ``(g, s)``: 0."""
        return _without_common(self._solve, right), np.zeros(right.shape[::2])

    def _solve(self, right: Float) -> Float:
        g, k, s, r = right.shape
        columns = right.swapaxes(1, 2).reshape(g, s, k * r, 1)
        return np.asarray(np.linalg.solve(self._hessian, columns), np.float64).reshape(g, s, k, r).swapaxes(1, 2)


def _second_derivatives(problems: Problems, P: Float, first: NDArray[np.intp], second: NDArray[np.intp]) -> Float:
    """Second derivatives of the loss between p pairs of classes, ``(p, g, s, r, r)``."""
    g, _, s, r = problems.shape
    T = problems.T.astype(np.float64, copy=False)
    squares = (T[..., None] * T[:, :, None]).reshape(*T.shape[:2], r * r)
    weighted = problems.weight[:, None] * P
    pairs = -P[:, first] * weighted[:, second]
    pairs[:, first == second] += weighted
    return np.asarray((pairs.reshape(len(T), -1, T.shape[1]) @ squares).reshape(g, len(first), s, r, r).swapaxes(0, 1))


class Blocks:
    """Each class's own block inverted, as if the classes were independent; for one strength."""

    def __init__(self, hessian: Hessian) -> None:
        u, k, r = len(hessian.problems.T), *hessian.problems.shape[1::2]
        self._inverse = np.empty((u, k, r, r), np.float32)
        for i, j in np.ndindex(u, k):
            self._inverse[i, j] = _inverse_spd(hessian.own(i, j))

    def apply(self, residual: NDArray[Any]) -> NDArray[Any]:
        """Inverse times residual, ``(g, k, 1, r)``."""
        return _without_common(self._multiply, residual)

    def _multiply(self, residual: NDArray[Any]) -> NDArray[Any]:
        if len(self._inverse) == len(residual):
            return np.asarray(self._inverse @ residual.swapaxes(2, 3)).swapaxes(2, 3)
        return np.asarray(residual[:, :, 0].swapaxes(0, 1) @ self._inverse[0]).swapaxes(0, 1)[:, :, None]


def _without_common(multiply: Callable[[NDArray[Any]], NDArray[Any]], residual: NDArray[Any]) -> NDArray[Any]:
    """Multiply ``(g, k, s, r)``, but for what all classes have in common: a softmax does not see it.

    Its intercept is not penalised either, so that rounding would grow without bound in that direction.
    """
    if residual.shape[1] == 1:
        return multiply(residual)
    first = multiply(residual - residual.mean(axis=1, keepdims=True))
    return np.asarray(first - first.mean(axis=1, keepdims=True))


def _times(V: NDArray[Any], matrix: NDArray[Any]) -> NDArray[Any]:
    """V ``(g, k, s, r)`` times ``(r, r)`` as one product."""
    return np.asarray((V.reshape(-1, V.shape[3]) @ matrix).reshape(V.shape))


def _inverse_spd(matrix: NDArray[Any]) -> NDArray[Any]:
    """Inverse of a positive definite float32 matrix; what rounding leaves indefinite is nudged until it is not."""
    scale = 1 / np.sqrt(np.maximum(np.diag(matrix), np.sqrt(np.finfo(np.float32).tiny)))
    matrix *= scale
    matrix *= scale[:, None]
    nudge = np.finfo(np.float32).eps
    while True:
        factor, failed = lapack.spotrf(matrix.T, lower=1, clean=0)
        if not failed:
            break
        nudge *= 10
        matrix[np.diag_indices(len(matrix))] += nudge
    lower = np.tril(lapack.spotri(factor, lower=1, overwrite_c=1)[0])
    inverse = lower + np.tril(lower, -1).T
    inverse *= scale
    inverse *= scale[:, None]
    return np.asarray(inverse)
