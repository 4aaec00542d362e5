"""Late fusion: a linear head for every block, and one linear head on what they predict (stacking).

Wolpert 1992, "Stacked generalization", 10.1016/S0893-6080(05)80023-1. The top head is fitted on predictions for rows
that the block heads have not seen: those of the inner folds, fitted again. Rows that are scored take no part in either.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from heads.head import Float, Job
from heads.held_out import HeldOut
from heads.linear import LinearHead, fit_linear, inner_linear
from heads.recent import fit_once

STACKED_ROWS = 50_000  # of several jobs that are solved in one call
P_LEAST = 1e-6  # probability below which a block head's doubt counts no more

Arrays = Mapping[str, NDArray[Any] | str]


@dataclass(frozen=True, eq=False)
class FusionHead:
    """Block heads and the head on top of them.

    Attributes:
        kind: ``"classification"`` or ``"regression"``.
        classes_: int64 ``(c,)``, ``0 .. c - 1``; empty for regression.
        parts: Columns of X that each block head reads.
        members: The block heads, fitted on all training rows.
        top: Reads the log probabilities or outputs of all members; None where no inner fold could fit it, and the
            members' mean is taken.
        held_out: Inner-fold predictions of the top head, for calibration; empty in a restored head.
    """

    kind: Literal["classification", "regression"]
    classes_: NDArray[np.int64]
    parts: tuple[slice, ...]
    members: tuple[LinearHead, ...]
    top: LinearHead | None
    held_out: HeldOut = field(default_factory=list, repr=False)

    def predict(self, X: NDArray[Any]) -> NDArray[Any]:
        """Return class indices ``(n,)``, or outputs ``(n, t)``, of raw rows ``(n, d)``."""
        if self.kind == "classification":
            return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])
        outputs = [member.predict(X[:, part]) for member, part in zip(self.members, self.parts, strict=True)]
        return np.mean(outputs, axis=0) if self.top is None else self.top.predict(np.concatenate(outputs, axis=1))

    def predict_proba(self, X: NDArray[Any]) -> Float:
        """Return probabilities ``(n, c)`` of raw rows ``(n, d)``."""
        p = [member.predict_proba(X[:, part]) for member, part in zip(self.members, self.parts, strict=True)]
        if self.top is None:
            return np.asarray(np.mean(p, axis=0))
        return self.top.predict_proba(np.concatenate([_signal(one, self.kind) for one in p], axis=1))

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any] | str]]:
        """Return what a bundle keeps; `from_state` reads it."""
        heads = {str(i): member for i, member in enumerate(self.members)}
        heads |= {} if self.top is None else {"top": self.top}
        states = {name: head.state() for name, head in heads.items()}
        meta = {
            "kind": self.kind,
            "n_classes": len(self.classes_),
            "parts": [[part.start, part.stop] for part in self.parts],
            "heads": {name: meta for name, (meta, _) in states.items()},
        }
        arrays = {f"{name}.{key}": value for name, (_, held) in states.items() for key, value in held.items()}
        return meta, arrays

    @classmethod
    def from_state(cls, meta: Mapping[str, Any], arrays: Arrays) -> Self:
        """Rebuild the head from `state`."""
        heads = {name: LinearHead.from_state(own, _named(arrays, name)) for name, own in meta["heads"].items()}
        return cls(
            kind=meta["kind"],
            classes_=np.arange(meta["n_classes"]),
            parts=tuple(slice(start, stop) for start, stop in meta["parts"]),
            members=tuple(heads[str(i)] for i in range(len(meta["parts"]))),
            top=heads.get("top"),
        )


def fit_fusion(
    X: NDArray[np.float32], jobs: Sequence[Job], *, seed: int, parts: Sequence[slice] | None = None
) -> list[FusionHead]:
    """Fit every job: all block heads in one call per block, then the heads on top.

    Args:
        X: Raw rows ``(n, d)``.
        jobs: What to fit.
        seed: Not looked at: there is nothing random here.
        parts: Columns of each block; all columns are one block by default.

    Returns:
        One head per job.
    """
    parts = tuple(parts or [slice(0, X.shape[1])])
    fitted = [fit_once(X[:, part], jobs, seed=seed) for part in parts]
    inner = [inner_linear(X[:, part], jobs, heads) for part, heads in zip(parts, fitted, strict=True)]
    tops = _fit_tops(jobs, [[found[i] for found in inner] for i in range(len(jobs))])
    return [
        FusionHead(
            job.kind, np.arange(job.n_classes), parts, tuple(heads[i] for heads in fitted), *tops.get(i, (None,))
        )
        for i, job in enumerate(jobs)
    ]


def _fit_tops(jobs: Sequence[Job], inner: Sequence[Sequence[HeldOut]]) -> dict[int, tuple[LinearHead, HeldOut]]:
    """Return the head on top of every job that has inner folds, and what it says of them.

    Args:
        jobs: What to fit.
        inner: What the members predicted, per job and member.
    """
    signals = {i: _signals(jobs[i], inner[i]) for i in range(len(jobs)) if jobs[i].inner}
    tops: dict[int, tuple[LinearHead, HeldOut]] = {}
    alike: dict[tuple[str, int, int], list[int]] = {}
    for i, Z in signals.items():
        alike.setdefault((jobs[i].kind, jobs[i].n_classes, Z.shape[1]), []).append(i)
    for numbers in chain.from_iterable(_few_rows(own, len(jobs[0].y)) for own in alike.values()):
        stacked, starts = _below_each_other([jobs[i] for i in numbers])
        Z = np.concatenate([signals[i] for i in numbers])
        heads = fit_linear(Z, stacked, seed=0)
        held_out = inner_linear(Z, stacked, heads)
        for i, start, head, folds in zip(numbers, starts, heads, held_out, strict=True):
            tops[i] = head, [(rows - start, p) for rows, p in folds]
    return tops


def _few_rows(numbers: Sequence[int], n_rows: int) -> list[Sequence[int]]:
    """Cut jobs of as many rows each into parts that are not too many rows together."""
    step = max(1, STACKED_ROWS // max(1, n_rows))
    return [numbers[start : start + step] for start in range(0, len(numbers), step)]


def _signals(job: Job, inner: Sequence[HeldOut]) -> NDArray[np.float32]:
    """Return what the members say of the rows of all inner folds, side by side; rows in none are 0."""
    stacked = [np.concatenate([_signal(p, job.kind) for _, p in folds]) for folds in inner]
    Z = np.zeros((len(job.y), sum(one.shape[1] for one in stacked)), dtype=np.float32)
    Z[np.concatenate([rows for rows, _ in inner[0]])] = np.concatenate(stacked, axis=1)
    return Z


def _below_each_other(jobs: Sequence[Job]) -> tuple[list[Job], list[int]]:
    """Return jobs of different matrices as jobs of one with all their rows, and where each begins."""
    starts = np.cumsum([0, *(len(job.y) for job in jobs[:-1])]).tolist()
    y = np.concatenate([job.y for job in jobs])
    is_weighted = any(job.sample_weight is not None for job in jobs)
    weight = np.concatenate([job.weight(np.arange(len(job.y))) for job in jobs]) if is_weighted else None
    moved = [
        replace(
            job,
            y=y,
            train=job.train + start,
            inner=[(fit + start, score + start) for fit, score in job.inner],
            sample_weight=weight,
        )
        for job, start in zip(jobs, starts, strict=True)
    ]
    return moved, starts


def _signal(p: Float, kind: str) -> Float:
    """Return what the top head reads of a member: log probabilities, or outputs as they are."""
    return np.log(np.maximum(p, P_LEAST)) if kind == "classification" else p


def held_out_of(X: NDArray[np.float32], jobs: Sequence[Job], heads: Sequence[FusionHead]) -> list[HeldOut]:
    """Return the inner-fold predictions that were made while fitting; without any, a job has none."""
    del X
    return [head.held_out if job.inner else [] for head, job in zip(heads, jobs, strict=True)]


def _named(arrays: Arrays, name: str) -> dict[str, NDArray[Any] | str]:
    start = f"{name}."
    return {key.removeprefix(start): value for key, value in arrays.items() if key.startswith(start)}
