"""Small datasets to split, and how evenly a split divides them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from store.dataset import Dataset
from store.spec import parse_spec
from store.split import Split
from store.task import Task

SPEC = parse_spec({"name": "made", "table": "labels.csv"}, "test")


def task(name: str, y: Any) -> Task:
    y = np.asarray(y)
    whole = np.issubdtype(y.dtype, np.integer)
    y = y if whole or y.ndim == 2 else y[:, None]
    n_columns = 1 if whole else y.shape[1]
    classes = tuple(f"c{c}" for c in range(int(y.max()) + 1)) if whole else ()
    kind: Any = "classification" if whole else "regression"
    columns = tuple(f"{name}{i}" for i in range(n_columns))
    return Task(name, kind, columns, classes, y, None, np.ones(len(y), dtype=bool), np.ones(n_columns))


def dataset(
    *tasks: Task, groups: Any = None, given: Any = None, n: int | None = None, folder: Path = Path()
) -> Dataset:
    n = len(tasks[0].y) if n is None else n
    ids = np.array([f"row{i:06d}" for i in range(n)])
    text = [None if x is None else np.asarray(x).astype(str) for x in (groups, given)]
    return Dataset(SPEC, folder, ids, text[0], {}, {}, {}, {t.name: t for t in tasks}, text[1])


def shuffled(data: Dataset, seed: int = 0) -> Dataset:
    order = np.random.default_rng(seed).permutation(data.n_rows)
    tasks = {n: replace(t, y=t.y[order], applies=t.applies[order]) for n, t in reversed(list(data.tasks.items()))}
    groups, given = (None if x is None else x[order] for x in (data.groups, data.given_split))
    return replace(data, ids=data.ids[order], tasks=tasks, groups=groups, given_split=given)


def correlated(n: int, *, seed: int, n_tasks: int = 5, missing: float = 0.1) -> list[Task]:
    """Unbalanced, correlated classifications, as real tables have them, and the last task a regression."""
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=n)
    tasks = []
    for i in range(n_tasks - 1):
        score = latent / 2 + rng.normal(size=n)
        y = np.searchsorted(np.quantile(score, np.sort(rng.random(1 + i))), score)
        tasks.append(task(f"t{i}", np.where(rng.random(n) < missing, -1, y)))
    return [*tasks, task("size", np.where(rng.random(n) < missing, np.nan, np.exp(latent)))]


def folds_of(split: Split, data: Dataset) -> np.ndarray[Any, Any]:
    return np.array([int(split.roles[id_]) for id_ in data.ids])


def deviation(y: np.ndarray[Any, Any], folds: np.ndarray[Any, Any], n_folds: int = 5) -> float:
    """The largest distance of a class's count in a fold from its share."""
    table = np.zeros((int(y.max()) + 1, n_folds))
    np.add.at(table, (y[y >= 0], folds[y >= 0]), 1)
    return float(np.abs(table - table.sum(axis=1, keepdims=True) / n_folds).max())
