"""The families of heads."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from heads.fusion import Arrays
from heads.head import Head, Job
from heads.held_out import HeldOut, refit_inner


class Fit(Protocol):
    """Solves many jobs on one matrix in one call."""

    def __call__(self, X: NDArray[np.float32], jobs: Sequence[Job], *, seed: int) -> Sequence[Head]:
        """Return one head per job."""


class FitParts(Protocol):
    """Solves many jobs on one matrix of several blocks in one call."""

    def __call__(
        self, X: NDArray[np.float32], jobs: Sequence[Job], *, seed: int, parts: Sequence[slice]
    ) -> Sequence[Head]:
        """Return one head per job; `parts` are the columns of each block."""


class PredictInner(Protocol):
    """Predicts the other part of every inner fold, by models that have not seen it."""

    def __call__(self, X: NDArray[np.float32], jobs: Sequence[Job], heads: Sequence[Any]) -> list[HeldOut]:
        """Return one list of inner folds per job."""


@dataclass(frozen=True)
class Family:
    """A kind of head.

    Attributes:
        version: Raised when the same command would give other numbers, so that earlier results are not reused.
        fit: Solves jobs.
        restore: Rebuilds a head from its state.
        predict_inner: What calibration is fitted on.
        choice: The key of its state that says what the inner folds chose; None where there is no choice.
        fit_parts: Solves jobs block by block, for a family that fuses two blocks or more; None for all others.
    """

    version: int
    fit: Fit
    restore: Callable[[Mapping[str, Any], Arrays], Head]
    predict_inner: PredictInner
    choice: str | None = None
    fit_parts: FitParts | None = None

    def adds_to(self, blocks: Sequence[str]) -> bool:
        """Say whether this kind of head differs from others on these blocks: there is no fusion of one."""
        return self.fit_parts is None or len(blocks) > 1


def _fit_prior(X: NDArray[np.float32], jobs: Sequence[Job], *, seed: int) -> Sequence[Head]:
    from heads.prior import fit_prior

    return fit_prior(X, jobs, seed=seed)


def _restore_prior(meta: Mapping[str, Any], arrays: Arrays) -> Head:
    from heads.prior import PriorHead

    return PriorHead.from_state(meta, arrays)


def _inner_prior(X: NDArray[np.float32], jobs: Sequence[Job], heads: Sequence[Any]) -> list[HeldOut]:
    from heads.prior import fit_prior

    return refit_inner(fit_prior, X, jobs, [1.0] * len(heads))


def _fit_linear(X: NDArray[np.float32], jobs: Sequence[Job], *, seed: int) -> Sequence[Head]:
    from heads.recent import fit_once

    return fit_once(X, jobs, seed=seed)


def _restore_linear(meta: Mapping[str, Any], arrays: Arrays) -> Head:
    from heads.linear import LinearHead

    return LinearHead.from_state(meta, arrays)


def _inner_linear(X: NDArray[np.float32], jobs: Sequence[Job], heads: Sequence[Any]) -> list[HeldOut]:
    from heads.linear import inner_linear

    return inner_linear(X, jobs, heads)


def _fit_boosted(X: NDArray[np.float32], jobs: Sequence[Job], *, seed: int) -> Sequence[Head]:
    from heads.boosted import fit_boosted

    return fit_boosted(X, jobs, seed=seed)


def _restore_boosted(meta: Mapping[str, Any], arrays: Arrays) -> Head:
    from heads.boosted import BoostedHead

    return BoostedHead.from_state(meta, arrays)


def _inner_boosted(X: NDArray[np.float32], jobs: Sequence[Job], heads: Sequence[Any]) -> list[HeldOut]:
    from heads.boosted import predict_stopped

    return predict_stopped(X, jobs, heads)


def _fit_fusion(
    X: NDArray[np.float32], jobs: Sequence[Job], *, seed: int, parts: Sequence[slice] | None = None
) -> Sequence[Head]:
    from heads.fusion import fit_fusion

    return fit_fusion(X, jobs, seed=seed, parts=parts)


def _restore_fusion(meta: Mapping[str, Any], arrays: Arrays) -> Head:
    from heads.fusion import FusionHead

    return FusionHead.from_state(meta, arrays)


def _inner_fusion(X: NDArray[np.float32], jobs: Sequence[Job], heads: Sequence[Any]) -> list[HeldOut]:
    from heads.fusion import held_out_of

    return held_out_of(X, jobs, heads)


PRIOR = "prior"

HEADS: Mapping[str, Family] = {
    # class frequencies, or the median; sees no features
    PRIOR: Family(1, _fit_prior, _restore_prior, _inner_prior),
    # logistic or ridge regression, strength chosen on inner folds
    "linear": Family(3, _fit_linear, _restore_linear, _inner_linear, "strength"),
    # gradient-boosted trees, stopped early on inner folds
    "lightgbm": Family(5, _fit_boosted, _restore_boosted, _inner_boosted, "rounds"),
    # a linear head per block and one on their predictions (late fusion, two blocks or more)
    "fusion": Family(2, _fit_fusion, _restore_fusion, _inner_fusion, fit_parts=_fit_fusion),
}
"""Heads import their libraries when they are used, so that reading this dict is quick."""
