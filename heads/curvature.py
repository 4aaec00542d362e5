"""Hessians of batches of logistic regressions, and approximate inverses of them for conjugate gradients.

Shape letters: g folds in the batch, k logit columns (1 for two classes, else c), s strengths, n rows, r coordinates.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas, lapack

from heads.head import Float

CHUNK = 1024
MAX_CELLS = 2**28  # numbers of the factors held at once
INTERCEPT_VARIANCE = 1e3  # stands for "unpenalised" in `RowSpace`, relative to the mean row; PCG mends the difference


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
    rough: NDArray[Any]
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

    def parts(self) -> Iterator[slice]:
        """Row slices that fit a processor's cache."""
        return (slice(start, start + CHUNK) for start in range(0, self.T.shape[1], CHUNK))


class Hessian:
    """The Hessian at probabilities P ``(g, k, s, n)``, in the precision of `Problems.rough`."""

    def __init__(self, problems: Problems, P: Float) -> None:
        self.problems = problems
        kind = problems.rough.dtype
        weighted = problems.weight[:, None] * P
        self._own = (weighted * (1 - P)).astype(kind)
        self._is_binary = P.shape[1] == 1
        if not self._is_binary:
            self._P, self._weighted = P.astype(kind), weighted.astype(kind)
            self._largest = np.equal(P, P.max(axis=1, keepdims=True)).astype(kind)
            self._largest /= self._largest.sum(axis=1, keepdims=True)

    def diagonal(self) -> NDArray[Any]:
        """Its diagonal, ``(g, k, s, r)``."""
        g, k, s, r = self.problems.shape
        total = np.zeros((g, k * s, r), self._own.dtype)
        for part in self.problems.parts():
            total += self._own[..., part].reshape(g, k * s, -1) @ np.square(self.problems.rough[:, part])
        total = total.reshape(g, k, s, r)
        total[..., :-1] += 1
        total[..., -1] += np.finfo(np.float32).tiny
        return total

    def times(self, V: NDArray[Any]) -> NDArray[Any]:
        """Hessian times V ``(g, k, s, r)``, row part by row part so that each is read from memory once."""
        g, k, s, r = self.problems.shape
        total = np.zeros((g, k * s, r), self._own.dtype)
        for part in self.problems.parts():
            T = self.problems.rough[:, part]
            Q = (V.reshape(g, k * s, r) @ T.transpose(0, 2, 1)).reshape(g, k, s, -1)
            total += self._bend(Q, part).reshape(g, k * s, -1) @ T
        total = total.reshape(g, k, s, r)
        total[..., :-1] += V[..., :-1]
        return total

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


class Diagonal:
    """Exact for a Hessian that is diagonal in the principal coordinates: good while the penalty dominates."""

    def __init__(self, hessian: Hessian) -> None:
        self._inverse = 1 / hessian.diagonal()

    def apply(self, residual: NDArray[Any]) -> NDArray[Any]:
        """Inverse times residual, ``(g, k, s, r)``."""
        return np.asarray(self._inverse * residual)


class Dense:
    """Exact (to rounding): Cholesky factors of the whole Hessian of each fold, for one strength."""

    def __init__(self, problems: Problems, P: Float) -> None:
        k = P.shape[1]
        self._contrast = np.ones((1, 1)) if k == 1 else _contrasts(k)
        self._factors = [_dense_factor(problems, g, P[g, :, 0], self._contrast) for g in range(len(P))]

    def apply(self, residual: NDArray[Any]) -> NDArray[Any]:
        """Inverse times residual, ``(g, k, 1, r)``."""
        flat = np.einsum("ka,gksr->gar", self._contrast, residual)
        for g, (scale, factor) in enumerate(self._factors):
            right = scale * flat[g].ravel()
            flat[g] = (scale * _solve(factor, right)).reshape(flat[g].shape)
        return np.asarray(np.einsum("ka,gar->gkr", self._contrast, flat)[:, :, None], residual.dtype)


class RowSpace:
    """Exact but for the intercept's penalty, for one strength and three or more classes, with k + 1 factors of n rows.

    Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), algorithm 3.3: the Hessian of a softmax is
    block-diagonal less one rank per row, so classes are inverted one by one and then tied together by their sum.
    """

    def __init__(self, problems: Problems, P: Float) -> None:
        T = problems.T.astype(np.float64, copy=False)
        power = np.einsum("gnr,gnr->g", T[..., :-1], T[..., :-1]) / T.shape[1]
        self._variance = np.ones((len(T), 1, 1, T.shape[2]))
        self._variance[..., -1] = INTERCEPT_VARIANCE * np.maximum(power, 1)[:, None, None]
        self._T = T
        kernel = (T * self._variance[:, 0]) @ T.transpose(0, 2, 1)
        root = np.sqrt(problems.weight * P[:, :, 0])
        self._single = _inverse_spd(np.eye(T.shape[1]) + root[..., None] * kernel[:, None] * root[..., None, :])
        self._single *= root[..., None] * root[..., None, :]
        together = self._single.sum(axis=1)
        together[:, range(T.shape[1]), range(T.shape[1])] += (problems.weight[:, 0] == 0) * 1.0
        self._together = _inverse_spd(together)

    def apply(self, residual: NDArray[Any]) -> NDArray[Any]:
        """Inverse times residual, ``(g, k, 1, r)``."""
        first = self._variance * (residual - residual.mean(axis=1, keepdims=True))
        change = first[:, :, 0] @ self._T.transpose(0, 2, 1)
        change = (self._single @ change[..., None])[..., 0]
        shared = self._together @ change.sum(axis=1)[..., None]
        change -= (self._single @ shared[:, None])[..., 0]
        first -= self._variance * (change @ self._T)[:, :, None]
        return np.asarray(first - first.mean(axis=1, keepdims=True))


Factor = Callable[[Problems, Float], Inverse]


def choose_factor(problems: Problems) -> tuple[Factor | None, float]:
    """The cheaper exact inverse for a batch of this size, and its multiplications; None where none fits into memory."""
    n_folds, k, _, r = problems.shape
    n, m = problems.T.shape[1], max(1, k - 1) * r
    work: dict[Factor, float] = {}
    if m**2 * n_folds <= MAX_CELLS:
        work[Dense] = max(1, k * (k - 1) / 2) * 2 * n * r**2 + m**3 / 3
    if k > 1 and k * n**2 * n_folds <= MAX_CELLS:
        work[RowSpace] = 2 * (k + 1) * n**3  # twice: always float64
    best = min(work, key=lambda factor: work[factor], default=None)
    return best, np.inf if best is None else work[best] * n_folds


def _contrasts(k: int) -> Float:
    """Orthonormal columns ``(k, k - 1)`` that sum to zero: what a softmax can see."""
    return np.asarray(np.linalg.qr(np.eye(k)[:, 1:] - 1 / k)[0])


def _dense_factor(problems: Problems, g: int, P: Float, contrast: Float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Scale and Cholesky factor of one fold's scaled Hessian, ``(k' r,)`` and ``(k' r, k' r)``."""
    T, weight = problems.rough[g], problems.weight[g, 0]
    mean = contrast.T @ P
    spread = np.einsum("ka,kb,kn->abn", contrast, contrast, P) - mean[:, None] * mean if len(P) > 1 else P * (1 - P)
    spread = (weight * spread).reshape(mean.shape[0], -1, len(weight)).astype(T.dtype)
    n_blocks, r = len(mean), T.shape[1]
    H = np.zeros((n_blocks, n_blocks, r, r), T.dtype)
    for part in problems.parts():
        _add_products(H, T[part], spread[..., part])
    for a, b in zip(*np.tril_indices(n_blocks, -1), strict=True):
        H[b, a] = H[a, b].T
    H = H.transpose(0, 2, 1, 3)
    H = H.reshape(n_blocks * r, n_blocks * r)
    H[np.diag_indices(len(H))] += np.tile(np.r_[np.ones(r - 1), 0], n_blocks).astype(T.dtype)
    return _scaled_cholesky(H)


def _add_products(H: NDArray[Any], T: NDArray[Any], spread: NDArray[Any]) -> None:
    """Add ``T' diag(spread[a, b]) T`` to every block ``H[a, b]`` on and below the diagonal."""
    for a in range(len(H)):
        half = np.sqrt(np.maximum(spread[a, a], 0))[:, None] * T
        H[a, a] += half.T @ half
        for b in range(a):
            H[a, b] += T.T @ (spread[a, b][:, None] * T)


def _scaled_cholesky(H: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Cholesky factor of H with unit diagonal; what rounding leaves indefinite is nudged until it is not."""
    scale = 1 / np.sqrt(np.maximum(np.diag(H), np.finfo(H.dtype).tiny))
    H *= scale
    H *= scale[:, None]
    nudge = np.finfo(H.dtype).eps
    while True:
        potrf = lapack.spotrf if H.dtype == np.float32 else lapack.dpotrf
        factor, info = potrf(H.T, lower=0, clean=0, overwrite_a=0)
        if info == 0:
            return scale, factor
        nudge *= 10
        H[np.diag_indices(len(H))] += nudge


def _solve(factor: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
    """Solve with an upper Cholesky factor; ten times faster than LAPACK's potrs for one right-hand side."""
    trsv = blas.strsv if factor.dtype == np.float32 else blas.dtrsv
    return np.asarray(trsv(factor, trsv(factor, right, trans=1), trans=0))


def _inverse_spd(matrices: Float) -> Float:
    """Inverses of symmetric positive definite matrices ``(..., n, n)``."""
    flat = matrices.reshape(-1, *matrices.shape[-2:])
    for matrix in flat:
        lower = lapack.dpotri(lapack.dpotrf(matrix.T, lower=1, clean=0)[0], lower=1, overwrite_c=1)[0]
        matrix[:] = np.tril(lower)
        matrix += np.tril(lower, -1).T
    return matrices
