"""Late fusion: a linear head for every block, and one linear head on what they predict (stacking).

Wolpert 1992, "Stacked generalization", 10.1016/S0893-6080(05)80023-1. The top head is fitted on predictions for rows
that the block heads have not seen: those of the inner folds, fitted again. Rows that are scored take no part in either.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from heads.head import Float, Job
from heads.held_out import HeldOut
from heads.linear import LinearHead, fit_linear, inner_linear

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
    fitted = [fit_linear(X[:, part], jobs, seed=seed) for part in parts]
    inner = [inner_linear(X[:, part], jobs, heads) for part, heads in zip(parts, fitted, strict=True)]
    return [
        _fuse(job, parts, tuple(heads[i] for heads in fitted), [found[i] for found in inner])
        for i, job in enumerate(jobs)
    ]


def _fuse(job: Job, parts: tuple[slice, ...], members: tuple[LinearHead, ...], inner: Sequence[HeldOut]) -> FusionHead:
    head = FusionHead(job.kind, np.arange(job.n_classes), parts, members, None)
    if not job.inner:
        return head
    stacked = [np.concatenate([_signal(p, job.kind) for _, p in folds]) for folds in inner]
    Z = np.zeros((len(job.y), sum(one.shape[1] for one in stacked)), dtype=np.float32)
    Z[np.concatenate([rows for rows, _ in inner[0]])] = np.concatenate(stacked, axis=1)
    [top] = fit_linear(Z, [job], seed=0)
    [held_out] = inner_linear(Z, [job], [top])
    return FusionHead(job.kind, head.classes_, parts, members, top, held_out)


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
