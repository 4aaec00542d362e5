"""Gradient-boosted trees (LightGBM), with defaults that hold at a hundred rows.

One model per inner fold, stopped early on that fold's other part; the head is their mean. Nothing is refitted, so
no row is wasted and no number of rounds has to be guessed. Columns are few per tree, as in a random forest.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from heads.head import Job
from heads.held_out import HeldOut, predicted
from store import usable_cores

MAX_ROUNDS = 400
PATIENCE = 10
ROUNDS_WITHOUT_INNER = 30  # where no inner fold can say when to stop
SMALL_ROWS = 1000
SAMPLE_ROWS = 50_000  # enough to place 255 cuts; each takes 12 bytes per column while they are placed
LARGE_CELLS = 20_000_000  # above this many numbers one model uses all cores; below, cores work on different models


@dataclass(frozen=True)
class Fold:
    """One model to train: a target, its rows, the rows that stop it (none: a fixed number of rounds), and columns
    with which its output may only rise or fall."""

    y: NDArray[Any]
    n_classes: int
    fit: NDArray[np.int64]
    stop: NDArray[np.int64]
    weight: NDArray[np.float64] | None
    monotone: NDArray[np.int8] | None


@dataclass(eq=False)
class BoostedHead:
    """The mean of boosters, in LightGBM's text format.

    Attributes:
        classes_: int64 ``(c,)``, class indices seen in training; empty for regression.
        n_columns: d.
        texts: For each output, one text per inner fold.
        rounds: Rounds each was stopped at, as `texts`.
    """

    classes_: NDArray[np.int64]
    n_columns: int
    texts: tuple[tuple[str, ...], ...]
    rounds: tuple[tuple[int, ...], ...] = field(default=())

    @cached_property
    def _boosters(self) -> list[list[Any]]:
        import lightgbm

        return [[lightgbm.Booster(model_str=text) for text in output] for output in self.texts]

    @property
    def gain(self) -> NDArray[np.float64]:
        """By how much the splits on each column lowered the loss, ``(d,)``, summed over all trees."""
        boosters = [booster for output in self._boosters for booster in output]
        return np.sum([booster.feature_importance("gain") for booster in boosters], axis=0)  # type: ignore[no-any-return]

    def predict(self, X: NDArray[np.float32]) -> NDArray[Any]:
        """Return class indices ``(n,)``, or values ``(n, t)``."""
        if len(self.classes_):
            return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])
        return np.stack([_mean_prediction(output, X) for output in self._boosters], axis=1)

    def predict_proba(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return probabilities, ``(n, c)`` in the order of `classes_`."""
        if len(self.classes_) == 1:
            return np.ones((len(X), 1))
        p = _mean_prediction(self._boosters[0], X)
        return np.stack([1 - p, p], axis=1) if p.ndim == 1 else p

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any] | str]]:
        """Return what a bundle keeps: LightGBM's own text, one file per booster."""
        texts = {f"{i}.{j}": text for i, output in enumerate(self.texts) for j, text in enumerate(output)}
        meta = {
            "classes": self.classes_.tolist(),
            "n_columns": self.n_columns,
            "rounds": [list(output) for output in self.rounds],
        }
        return meta, dict(texts)

    @classmethod
    def from_state(cls, meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any] | str]) -> Self:
        """Rebuild the head from `state`."""
        rounds = tuple(tuple(output) for output in meta["rounds"])
        texts = tuple(tuple(str(arrays[f"{i}.{j}"]) for j in range(len(output))) for i, output in enumerate(rounds))
        return cls(np.asarray(meta["classes"], np.int64), meta["n_columns"], texts, rounds)


def fit_boosted(X: NDArray[np.float32], jobs: Sequence[Job], *, seed: int) -> list[BoostedHead]:
    """Fit every job; the same seed gives the same heads, on any number of cores.

    Args:
        X: float32 ``(n, d)``, not standardised; NaN is a value of its own to a tree.
        jobs: What to fit.
        seed: Of the columns drawn per tree.
    """
    n_cores = len(usable_cores())
    if X.size > LARGE_CELLS:  # the bins of one job in memory at a time
        return [head for job in jobs for head in _fit_jobs(X, [job], seed, n_models=1, n_threads=n_cores)]
    return _fit_jobs(X, jobs, seed, n_models=n_cores, n_threads=1)


def _fit_jobs(
    X: NDArray[np.float32], jobs: Sequence[Job], seed: int, *, n_models: int, n_threads: int
) -> list[BoostedHead]:
    """Fit jobs, `n_models` at a time; jobs of the same training rows share their bins."""
    keys = [job.train.tobytes() for job in jobs]
    outputs = [_outputs(job) for job in jobs]
    rows = {key: np.unique(job.train) for key, job, own in zip(keys, jobs, outputs, strict=True) if own}
    todo = [(key, fold) for key, own in zip(keys, outputs, strict=True) for output in own for fold in output]
    with ThreadPoolExecutor(n_models) as pool:
        binned = dict(zip(rows, pool.map(lambda own: _bin(X, own, n_threads), rows.values()), strict=True))
        models = iter(list(pool.map(lambda one: _train(binned[one[0]], rows[one[0]], one[1], seed), todo)))
    return [
        _head(job, X.shape[1], [[next(models) for _ in output] for output in own])
        for job, own in zip(jobs, outputs, strict=True)
    ]


def _head(job: Job, n_columns: int, models: Sequence[Sequence[tuple[str, int]]]) -> BoostedHead:
    return BoostedHead(
        classes_=_classes(job),
        n_columns=n_columns,
        texts=tuple(tuple(text for text, _ in output) for output in models),
        rounds=tuple(tuple(rounds for _, rounds in output) for output in models),
    )


def predict_stopped(X: NDArray[np.float32], jobs: Sequence[Job], heads: Sequence[BoostedHead]) -> list[HeldOut]:
    """Return what each booster says of the rows that stopped it, which no tree was fitted on."""
    return [_stopped(X, job, head) for job, head in zip(jobs, heads, strict=True)]


def _stopped(X: NDArray[np.float32], job: Job, head: BoostedHead) -> HeldOut:
    folds = next(iter(_outputs(job)), [])
    found = []
    for j, fold in enumerate(fold for fold in folds if len(fold.stop)):
        part = replace(head, texts=tuple(output[j : j + 1] for output in head.texts))
        found.append((fold.stop, predicted(part, X[fold.stop], job.kind, job.n_classes)))
    return found


def _outputs(job: Job) -> list[list[Fold]]:
    """Return the models of a job, by output and inner fold."""
    if job.kind == "regression":
        return [_inner(job, job.y[:, j], 0) for j in range(job.y.shape[1])]
    classes = _classes(job)
    return [_inner(job, np.searchsorted(classes, job.y), len(classes))] if len(classes) > 1 else []


def _inner(job: Job, y: NDArray[Any], n_classes: int) -> list[Fold]:
    """Return one fold per usable inner fold: each class that is to be told apart must be there to learn from."""
    monotone = None if n_classes > 2 or job.monotone is None or not job.monotone.any() else job.monotone
    folds = [
        Fold(y, n_classes, fit, stop, job.sample_weight, monotone)
        for fit, stop in job.inner
        if len(stop) and (not n_classes or len(np.unique(y[fit])) == n_classes)
    ]
    return folds or [Fold(y, n_classes, job.train, job.train[:0], job.sample_weight, monotone)]


def _bin(X: NDArray[np.float32], rows: NDArray[np.int64], n_threads: int) -> Any:
    """Cut the columns of a job's training rows into bins, once for all its models.

    So the rows that stop a model have a say in where its columns may be cut; those that score the job have none.
    """
    import lightgbm

    settings = {
        "max_bin": int(np.clip(len(rows) // 13, 15, 255)),
        "min_data_in_bin": 1,
        "feature_pre_filter": False,  # each model has a number of rows, and so a smallest leaf, of its own
        "bin_construct_sample_cnt": SAMPLE_ROWS,
        "enable_bundle": False,  # embeddings are dense: the search for columns to bundle is the longest part of binning
        "num_threads": n_threads,
        "verbosity": -1,
    }
    return lightgbm.Dataset(X[rows], params=settings).construct()


def _train(binned: Any, rows: NDArray[np.int64], fold: Fold, seed: int) -> tuple[str, int]:
    """Return a model's text, up to its best round, and that round; `rows` are those of `binned`."""
    import lightgbm

    parameters = _parameters(fold, len(fold.fit), binned.num_feature()) | {"seed": seed} | binned.params
    booster = lightgbm.Booster(parameters, _part(binned, rows, fold, fold.fit))
    rounds = ROUNDS_WITHOUT_INNER
    if len(fold.stop):
        rounds = _boost(booster.add_valid(_part(binned, rows, fold, fold.stop), "stop"))
    else:
        for _ in range(rounds):
            booster.update()
    return booster.model_to_string(num_iteration=rounds), rounds


def _part(binned: Any, rows: NDArray[np.int64], fold: Fold, own: NDArray[np.int64]) -> Any:
    """Return the bins of a fold's own rows, with their labels and weights."""
    own = np.sort(own)  # LightGBM sorts them too
    part = binned.subset(np.searchsorted(rows, own))
    part.get_feature_name = list  # LightGBM would fetch them all, which takes as long as ten rounds; nobody reads them
    part.construct().set_label(fold.y[own])
    return part if fold.weight is None else part.set_weight(fold.weight[own])


def _boost(booster: Any) -> int:
    """Add rounds until the loss on the stopping rows has not fallen for PATIENCE of them; return the best round.

    The loop of ``lightgbm.train`` with its callbacks took as long as the trees at a hundred rows.
    """
    best, best_round = np.inf, 1
    for number in range(1, MAX_ROUNDS + 1):
        is_finished = booster.update()
        [(_, _, loss, _)] = booster.eval_valid()
        if loss < best:
            best, best_round = loss, number
        if is_finished or number - best_round >= PATIENCE:
            break
    return best_round


def _parameters(fold: Fold, n_rows: int, n_columns: int) -> dict[str, Any]:
    """Return settings for the size at hand; measured in tests/benchmarks.

    Trees on the principal axes of the training rows, or on a part of the columns per model, are two to four times
    faster still, but their log loss at 185 rows x 1,312 columns was 0.90 and 0.82 beside 0.77.
    """
    objective: dict[str, Any] = {"objective": "regression"}
    if fold.n_classes:
        many = {"objective": "multiclass", "num_class": fold.n_classes}
        objective = many if fold.n_classes > 2 else {"objective": "binary"}
    if fold.monotone is not None:
        objective["monotone_constraints"] = fold.monotone.tolist()
    return objective | {
        # on few rows: 0.1 takes 1.4 times the time for a log loss that is half a percent lower
        "learning_rate": 0.2 if n_rows < SMALL_ROWS else 0.1,
        "num_leaves": int(np.clip(n_rows // 40, 3, 31)),
        "min_data_in_leaf": int(np.clip(n_rows // 20, 2, 20)),
        "min_sum_hessian_in_leaf": 1e-3,
        "lambda_l2": 1.0,
        # a random forest's square root of the columns (Breiman 2001), but never fewer than 8
        "feature_fraction": min(1.0, max(np.sqrt(n_columns), 8) / n_columns),
        "deterministic": True,
        "force_col_wise": True,  # reads the few columns drawn, not all
    }


def _mean_prediction(boosters: Sequence[Any], X: NDArray[np.float32]) -> NDArray[np.float64]:
    predictions = [
        booster.predict(X, num_threads=1 if X.size < LARGE_CELLS else len(usable_cores())) for booster in boosters
    ]
    return np.asarray(np.mean(predictions, axis=0), dtype=np.float64)


def _classes(job: Job) -> NDArray[np.int64]:
    return np.unique(job.y[job.train]) if job.kind == "classification" else np.empty(0, np.int64)
