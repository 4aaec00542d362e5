"""LightGBM on 5 tasks x 5 folds at 185 rows x 1,312 columns: ours beside LightGBM as people run it.

    python tests/benchmarks/bench_boosted.py [--repeats 3]

One JSON line: seconds of LightGBM's defaults on all cores, of the same on one thread (its best setting here), and of
ours (medians, alternated), the ratios, and the mean log loss, which is what makes the times comparable: the models are
not the same. Columns are drawn like pooled activations: 40 factors of falling
strength, mixed, cut at zero; classes follow some of the factors, from two to five of them.
"""

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path

import lightgbm
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from heads.boosted import fit_boosted
from heads.head import Job
from store import inner_folds

N_ROWS, N_COLUMNS, N_FACTORS = 185, 1312, 40
N_CLASSES = (2, 3, 3, 4, 5)


def draw():
    """Return X, and the labels of every task."""
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(N_ROWS, N_FACTORS)) * np.linspace(2, 0.3, N_FACTORS)
    mixed = factors @ rng.normal(size=(N_FACTORS, N_COLUMNS)) / np.sqrt(N_FACTORS)
    X = np.maximum(mixed + 0.5 * rng.normal(size=mixed.shape), 0).astype(np.float32)
    scores = [factors[:, rng.permutation(15)[:c]] + 0.7 * rng.gumbel(size=(N_ROWS, c)) for c in N_CLASSES]
    return X, [(score + np.linspace(0.8, -0.3, score.shape[1])).argmax(axis=1) for score in scores]


def outer_folds(y):
    return inner_folds(y, None, np.arange(len(y)), n_folds=5, seed=0, stratify=True)


def usual(X, labels, n_jobs=None):
    """LightGBM with its defaults, one model per fold."""
    losses = []
    for y in labels:
        for train, score in outer_folds(y):
            model = lightgbm.LGBMClassifier(verbose=-1, n_jobs=n_jobs).fit(X[train], y[train])
            losses.append(log_loss(model.predict_proba(X[score]), model.classes_, y[score]))
    return np.mean(losses)


def one_thread(X, labels):
    """The same without threads that wait for each other."""
    return usual(X, labels, n_jobs=1)


def ours(X, labels):
    """One call for all tasks and folds."""
    folds = [(y, *fold) for y in labels for fold in outer_folds(y)]
    inner = [inner_folds(y, None, train, n_folds=4, seed=0, stratify=True) for y, train, _ in folds]
    jobs = [
        Job("classification", y, int(y.max()) + 1, train, own) for (y, train, _), own in zip(folds, inner, strict=True)
    ]
    heads = fit_boosted(X, jobs, seed=0)
    scored = [(head.predict_proba(X[s]), head.classes_, y[s]) for head, (y, _, s) in zip(heads, folds, strict=True)]
    return np.mean([log_loss(*one) for one in scored])


def log_loss(p, classes, y):
    own = np.where(classes == y[:, None], p, 0).sum(axis=1)
    return -np.log(np.clip(own, 1e-7, 1)).mean()


def main():
    """Time both and print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    X, labels = draw()
    prior = np.mean([-np.log(np.bincount(y)[y] / len(y)).mean() for y in labels])
    runs = (usual, one_thread, ours)
    seconds, losses = {run: [] for run in runs}, {}
    for _ in range(repeats):
        for run in runs:
            start = time.perf_counter()
            losses[run] = float(run(X, labels))
            seconds[run].append(time.perf_counter() - start)
    median = {run: float(np.median(seconds[run])) for run in runs}
    ratios = {run: np.array(seconds[run]) / np.array(seconds[ours]) for run in (usual, one_thread)}
    line = {
        "benchmark": "boosted",
        "rows": N_ROWS,
        "columns": N_COLUMNS,
        "tasks": len(N_CLASSES),
        "folds": 5,
        "seconds": {run.__name__: round(median[run], 2) for run in runs},
        "ratio": {run.__name__: round(float(np.median(found)), 2) for run, found in ratios.items()},
        "ratio_spread": {
            run.__name__: np.round([found.min(), found.max()], 2).tolist() for run, found in ratios.items()
        },
        "log_loss_usual": round(losses[usual], 4),
        "log_loss_ours": round(losses[ours], 4),
        "log_loss_prior": round(float(prior), 4),
        "cores": os.cpu_count(),
        "lightgbm": lightgbm.__version__,
        "python": platform.python_version(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
