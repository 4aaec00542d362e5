"""LightGBM on 5 tasks x 5 folds at 185 rows x 1,312 columns: ours beside LightGBM as people run it.

    python tests/benchmarks/bench_boosted.py [--repeats 3]

One JSON line: seconds of LightGBM's defaults on all cores (on the first fold of every task, times 5), of the same on
one thread (its best setting here), and of ours (medians, alternated), the ratios, the same in processor time with one
thread on both sides, and the mean log loss, which is what makes the times comparable: the models are not the same.
Columns are drawn like pooled activations: 40 factors of falling strength, mixed, cut at zero; classes follow some of
the factors, from two to five of them.
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


def folds_of(labels, rows, n_folds):
    """One division for all tasks, as a dataset has it."""
    return inner_folds(labels, None, rows, n_folds=n_folds, seed=0)


def usual(X, labels, n_jobs=None, n_folds=5):
    """LightGBM with its defaults, one model per fold."""
    losses = []
    for y in labels:
        for train, score in folds_of(labels, np.arange(N_ROWS), 5)[:n_folds]:
            model = lightgbm.LGBMClassifier(verbose=-1, n_jobs=n_jobs).fit(X[train], y[train])
            losses.append(log_loss(model.predict_proba(X[score]), model.classes_, y[score]))
    return np.mean(losses)


def one_thread(X, labels):
    """The same without threads that wait for each other."""
    return usual(X, labels, n_jobs=1)


def seconds_of(run, *arguments, **options):
    """Seconds on the clock, seconds of the processor, and the result."""
    clock, processor = time.perf_counter(), time.process_time()
    result = run(*arguments, **options)
    return time.perf_counter() - clock, time.process_time() - processor, float(result)


def ours(X, labels):
    """One call for all tasks and folds."""
    outer = folds_of(labels, np.arange(N_ROWS), 5)
    folds = [(y, *fold) for y in labels for fold in outer]
    inner = [folds_of(labels, train, 4) for train, _ in outer] * len(labels)
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
    """Time all and print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    X, labels = draw()
    prior = np.mean([-np.log(np.bincount(y)[y] / len(y)).mean() for y in labels])
    found = [(seconds_of(one_thread, X, labels), seconds_of(ours, X, labels)) for _ in range(repeats)]
    all_cores = 5 * seconds_of(usual, X, labels, n_folds=1)[0]
    (clock_one, cpu_one, loss_usual), (clock_ours, cpu_ours, loss_ours) = np.median(found, axis=0)
    ratios = [[one[0] / own[0], one[1] / own[1]] for one, own in found]
    line = {
        "benchmark": "boosted",
        "rows": N_ROWS,
        "columns": N_COLUMNS,
        "tasks": len(N_CLASSES),
        "folds": 5,
        "seconds": {"usual": round(all_cores, 2), "one_thread": round(clock_one, 2), "ours": round(clock_ours, 2)},
        "usual_extrapolated_from": "the first fold of every task",
        "cpu_seconds": {"one_thread": round(cpu_one, 2), "ours": round(cpu_ours, 2)},
        "ratio": {"usual": round(all_cores / clock_ours, 2), "one_thread": round(clock_one / clock_ours, 2)},
        "ratio_cpu": round(cpu_one / cpu_ours, 2),
        "ratio_spread": np.round([np.min(ratios, axis=0), np.max(ratios, axis=0)], 2).T.tolist(),
        "log_loss_usual": round(loss_usual, 4),
        "log_loss_ours": round(loss_ours, 4),
        "log_loss_prior": round(float(prior), 4),
        "cores": os.cpu_count(),
        "lightgbm": lightgbm.__version__,
        "python": platform.python_version(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
