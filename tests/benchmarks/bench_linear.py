"""The linear head beside scikit-learn's GridSearchCV on the same grid, folds and values.

    python tests/benchmarks/bench_linear.py                       # all three below, one after the other
    python tests/benchmarks/bench_linear.py small                 # 185 rows: sweep, ridge, exactness at every strength
    python tests/benchmarks/bench_linear.py large [--rows 5000]   # scikit-learn on one fold of each task, times 5
    python tests/benchmarks/bench_linear.py growth [--rows 20000] # seconds and memory up to that many rows, 3 strengths

One JSON line per result. "default" is GridSearchCV as people run it (BLAS on all cores), "one_thread" its best
setting (BLAS on one thread, n_jobs=1); ours on one thread stands beside it. "cpu" is processor time, which other
programs on the machine disturb less. Chosen strengths are compared before ratios are printed.
"""

import argparse
import json
import os
import platform
import resource
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import sklearn
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from heads import strength as grid
from heads.head import Job
from heads.linear import fit_linear
from heads.strength import STRENGTHS

COLUMNS = 1312
CLASSES = (4, 6, 5, 5, 2)
N_FOLDS = 5


def make_matrix(n_rows: int, n_latent: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Correlated columns as embeddings have them, a decaying spectrum over a floor of noise; and what is behind."""
    rng = np.random.default_rng(0)
    latent = rng.standard_normal((n_rows, n_latent)).astype(np.float32)
    mixing = rng.standard_normal((n_latent, COLUMNS)) * np.exp(-np.arange(n_latent) / 10)[:, None]
    X = latent @ mixing.astype(np.float32)
    X += 0.3 * rng.standard_normal((n_rows, COLUMNS), dtype=np.float32)
    return X, latent


def class_jobs(latent: np.ndarray, classes: tuple[int, ...] = CLASSES) -> list[Job]:
    """One job per task: five stratified folds to choose on, then the refit."""
    rng = np.random.default_rng(1)
    jobs = []
    for c in classes:
        y = (latent[:, :6] @ rng.standard_normal((6, c)) + rng.gumbel(size=(len(latent), c))).argmax(axis=1)
        y = np.unique(y, return_inverse=True)[1]
        inner = list(StratifiedKFold(N_FOLDS, shuffle=True, random_state=0).split(y, y))
        jobs.append(Job("classification", y, int(y.max()) + 1, np.arange(len(y)), inner))
    return jobs


def ridge_jobs(latent: np.ndarray, n_targets: int = 4) -> list[Job]:
    """One job per target, on the same five folds."""
    rng = np.random.default_rng(2)
    inner = list(KFold(N_FOLDS, shuffle=True, random_state=0).split(latent))
    Y = latent @ rng.standard_normal((latent.shape[1], n_targets)) + rng.standard_normal((len(latent), n_targets))
    return [Job("regression", Y[:, [t]], 0, np.arange(len(Y)), inner) for t in range(n_targets)]


def search(X: np.ndarray, job: Job, folds: Any, strengths: Any = STRENGTHS, *, refit: bool = True) -> GridSearchCV:
    """The plain way: GridSearchCV over a pipeline."""
    if job.kind == "classification":
        model, grid = LogisticRegression(max_iter=1000), {"logisticregression__C": strengths}
        scoring, y = "neg_log_loss", job.y
    else:
        model, grid = Ridge(), {"ridge__alpha": COLUMNS / strengths}
        scoring, y = "neg_mean_squared_error", (job.y[:, 0] - job.y.mean()) / job.y.std()
    tool = GridSearchCV(make_pipeline(StandardScaler(), model), grid, scoring=scoring, cv=folds, refit=refit)
    return tool.fit(X, y)


def seconds_of(function: Callable[[], Any], repeats: int = 1) -> tuple[list[float], Any]:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - start)
    return seconds, result


def cpu_seconds_of(function: Callable[[], Any]) -> tuple[float, Any]:
    """Processor time on one thread, and the result."""
    with threadpool_limits(1):
        start = time.process_time()
        result = function()
        return time.process_time() - start, result


def report(name: str, **values: Any) -> None:
    rounded = {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in values.items()}
    versions = {"numpy": np.__version__, "scipy": scipy.__version__, "sklearn": sklearn.__version__}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    where = {"cores": cores, "machine": platform.machine(), "python": platform.python_version(), **versions}
    print(json.dumps({"benchmark": name, **rounded, **where}), flush=True)


def compare(name: str, X: np.ndarray, jobs: list[Job], repeats: int) -> None:
    """The whole sweep, here and by GridSearchCV in both settings."""
    fit_linear(X, jobs, seed=0)
    ours, heads = seconds_of(lambda: fit_linear(X, jobs, seed=0), repeats)
    alone = [cpu_seconds_of(lambda: fit_linear(X, jobs, seed=0))[0] for _ in range(repeats)]
    with threadpool_limits(1):
        cpu_start = time.process_time()
        one, searches = seconds_of(lambda: [search(X, job, job.inner) for job in jobs])
        cpu = time.process_time() - cpu_start
    default, _ = seconds_of(lambda: [search(X, job, job.inner) for job in jobs])
    chosen = [_strength(found) for found in searches]
    median = float(np.median(ours))
    report(
        name,
        rows=len(X),
        columns=X.shape[1],
        tasks=len(jobs),
        strengths=len(STRENGTHS),
        folds=N_FOLDS,
        seconds=median,
        seconds_spread=[round(min(ours), 4), round(max(ours), 4)],
        cpu_seconds_one_thread=float(np.median(alone)),
        sklearn_default_seconds=default[0],
        sklearn_one_thread_seconds=one[0],
        sklearn_one_thread_cpu_seconds=cpu,
        ratio_default=default[0] / median,
        ratio_one_thread=one[0] / median,
        ratio_cpu_one_thread=cpu / float(np.median(alone)),
        same_strengths=bool(np.allclose([head.strength for head in heads], chosen)),
        chosen=[head.strength for head in heads],
    )


def _strength(found: GridSearchCV) -> float:
    name, value = next(iter(found.best_params_.items()))
    return float(value if name.endswith("C") else COLUMNS / value)


def exactness(X: np.ndarray, jobs: list[Job]) -> None:
    """Probabilities at every strength against un-rotated solutions: scikit-learn at tol 1e-12, and at 1e-9.

    At C = 1e4 a tolerance of 1e-9 leaves scikit-learn itself up to 6e-4 from its own solution at 1e-12.
    """
    for job in jobs:
        fit, val = job.inner[0]
        scaler = StandardScaler().fit(X[fit].astype(np.float64))
        Z = scaler.transform(X.astype(np.float64))
        worst: dict[float, dict[str, float]] = {1e-12: {}, 1e-9: {}}
        for strength in STRENGTHS:
            P = _only_strength(X, Job("classification", job.y, job.n_classes, fit, [(fit, val)]), strength)
            for tolerance, found in worst.items():
                tight = LogisticRegression(C=strength, tol=tolerance, max_iter=100_000, solver="newton-cg")
                tight.fit(Z[fit], job.y[fit])
                found[f"{strength:g}"] = float(f"{np.abs(P - tight.predict_proba(Z)).max():.2g}")
        report(
            "exactness",
            rows=len(fit),
            classes=job.n_classes,
            worst=max(worst[1e-12].values()),
            worst_against_1e_9=max(worst[1e-9].values()),
            per_strength=worst[1e-12],
        )


def _only_strength(X: np.ndarray, job: Job, strength: float) -> np.ndarray:
    """Probabilities of all rows when there is one strength to choose."""
    grid.STRENGTHS = np.array([strength])
    try:
        return fit_linear(X, [job], seed=0)[0].predict_proba(X)
    finally:
        grid.STRENGTHS = STRENGTHS


def large(n_rows: int) -> None:
    """The sweep at `n_rows`; scikit-learn on one fold per task without the refit, times the folds.

    Its losses on that fold are compared with ours where ours are at the optimum: scikit-learn's own tolerance stops
    early at weak penalties.
    """
    X, latent = make_matrix(n_rows)
    jobs = class_jobs(latent)
    alone, heads = cpu_seconds_of(lambda: fit_linear(X, jobs, seed=0))
    ours, _ = seconds_of(lambda: fit_linear(X, jobs, seed=0))
    part, found = cpu_seconds_of(lambda: [search(X, job, job.inner[:1], refit=False) for job in jobs])
    first = fit_linear(X, [replace(job, inner=job.inner[:1]) for job in jobs], seed=0)
    report(
        "sweep",
        rows=n_rows,
        columns=COLUMNS,
        tasks=len(jobs),
        strengths=len(STRENGTHS),
        folds=N_FOLDS,
        seconds=ours[0],
        cpu_seconds_one_thread=alone,
        sklearn_one_thread_cpu_seconds=part * N_FOLDS,
        sklearn_extrapolated_from="one fold of each task, without the refit",
        ratio_cpu_one_thread=part * N_FOLDS / alone,
        same_strengths_on_that_fold=[h.strength for h in first] == [_strength(one) for one in found],
        chosen=[head.strength for head in heads],
        strengths_at_optimum=[int(head.inner_exact.sum()) for head in heads],
        memory_mb=_memory_mb(),
    )


def growth(n_rows: int) -> None:
    """Processor time and memory of one task of four classes as rows grow; three strengths of the nine."""
    sizes = [n for n in (185, 1250, 5000, 20_000, 60_000, 180_000) if n <= n_rows]
    grid.STRENGTHS = np.array([1e-4, 1e-3, 1e-2])
    for n in sizes:
        X, latent = make_matrix(n)
        before = _memory_mb()
        seconds, heads = cpu_seconds_of(lambda X=X, latent=latent: fit_linear(X, class_jobs(latent, (4,)), seed=0))
        report(
            "growth",
            rows=n,
            columns=COLUMNS,
            tasks=1,
            folds=N_FOLDS,
            strengths=grid.STRENGTHS.tolist(),
            cpu_seconds_one_thread=seconds,
            ms_per_row=1e3 * seconds / n,
            memory_mb=_memory_mb(),
            memory_before_mb=before,
            chosen=heads[0].strength,
        )
    grid.STRENGTHS = STRENGTHS


def small(n_rows: int, repeats: int) -> None:
    """Sweep and ridge side by side, and exactness at every strength."""
    X, latent = make_matrix(n_rows)
    compare("sweep", X, class_jobs(latent), repeats)
    compare("ridge", X, ridge_jobs(latent), repeats)
    exactness(X, class_jobs(latent))


def _memory_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=["small", "large", "growth"])
    parser.add_argument("--rows", type=int, help="185, 5000 or 20000 unless given")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # scikit-learn stops at 1,000 iterations at the weakest penalties
    if options.part in (None, "small"):
        small(options.rows or 185, options.repeats)
    if options.part in (None, "large"):
        large(options.rows or 5000)
    if options.part in (None, "growth"):
        growth(options.rows or 20_000)


if __name__ == "__main__":
    main()
