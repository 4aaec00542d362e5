"""What a dataset's table holds, told before any model: classes and numbers, metadata, and what is missing."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from store.dataset import Dataset, MetadataColumn
from store.split import Split
from store.task import Task

QUANTILES: Mapping[str, float] = {
    "min": 0.0,
    "5%": 0.05,
    "25%": 0.25,
    "median": 0.5,
    "75%": 0.75,
    "95%": 0.95,
    "max": 1.0,
}
N_BINS = 20
N_VALUES = 20  # of a categorical column, the most frequent ones
THIRDS = ("low third", "middle third", "high third")


class Stratum(NamedTuple):
    """Rows that are told apart by one task: of a class, or of a third of the values of its first column."""

    task: str
    name: str
    rows: NDArray[np.int64]


def strata(task: Task) -> list[Stratum]:
    """Return the labelled rows of each class, or of each third of the first column's values, in their order."""
    rows = np.flatnonzero(task.labelled)
    if task.kind == "classification":
        return [Stratum(task.name, name, rows[task.y[rows] == code]) for code, name in enumerate(task.classes)]
    values = task.y[rows, 0]
    prefix = f"{task.columns[0]}: " if len(task.columns) > 1 else ""
    third = np.searchsorted(np.quantile(values, [1 / 3, 2 / 3]), values) if len(rows) else values.astype(np.int64)
    return [Stratum(task.name, prefix + name, rows[third == code]) for code, name in enumerate(THIRDS)]


def distributions(dataset: Dataset, split: Split) -> dict[str, Any]:
    """Count and measure every task and metadata column.

    Args:
        dataset: n rows.
        split: Says which part each row belongs to: a fold, ``train``, ``val`` or a held-out set.

    Returns:
        ``rows``, ``groups`` (None without), ``parts`` (rows of each), ``tasks`` (a class each, or a column each),
        ``metadata``, and ``missing`` (labels where a task applies, metadata, texts and images).
    """
    parts = _parts(dataset, split)
    return {
        "name": dataset.spec.name,
        "rows": dataset.n_rows,
        "groups": _n_groups(dataset, np.arange(dataset.n_rows)),
        "parts": {name: int(rows.sum()) for name, rows in parts.items()},
        "tasks": [_describe_task(dataset, task, parts) for task in dataset.tasks.values()],
        "metadata": [_describe_column(column) for column in dataset.metadata.values()],
        "missing": list(_missing(dataset)),
    }


def _parts(dataset: Dataset, split: Split) -> dict[str, NDArray[np.bool_]]:
    """Return which rows each part has: train, val and folds first."""
    roles = np.array([split.roles[id_] for id_ in dataset.ids.tolist()], dtype=np.str_)
    held_out = split.held_out_names
    fitting = sorted(set(roles.tolist()) - set(held_out), key=lambda role: (role == "val", role))
    return {f"fold {role}" if role.isdecimal() else role: roles == role for role in [*fitting, *held_out]}


def _n_groups(dataset: Dataset, rows: NDArray[np.int64]) -> int | None:
    return None if dataset.groups is None else len(np.unique(dataset.groups[rows]))


def _describe_task(dataset: Dataset, task: Task, parts: Mapping[str, NDArray[np.bool_]]) -> dict[str, Any]:
    n_rows = int(task.labelled.sum())
    found: dict[str, Any] = {
        "task": task.name,
        "kind": task.kind,
        "n_rows": n_rows,
        "n_missing": int((task.applies & ~task.labelled).sum()),
        "n_outside": int((~task.applies).sum()),
    }
    if task.kind == "regression":
        values = task.y[task.labelled]
        columns = zip(task.columns, values.T, strict=True)
        return found | {"columns": [{"column": name} | _describe_numbers(column) for name, column in columns]}
    classes = [
        {
            "class": stratum.name,
            "n_rows": len(stratum.rows),
            "share": len(stratum.rows) / max(n_rows, 1),
            "n_groups": _n_groups(dataset, stratum.rows),
            "parts": {name: int(mask[stratum.rows].sum()) for name, mask in parts.items()},
        }
        for stratum in strata(task)
    ]
    return found | {"classes": classes}


def _describe_numbers(values: NDArray[np.float64]) -> dict[str, Any]:
    """Return quantiles and a histogram; both None without values."""
    if not len(values):
        return {"quantiles": None, "histogram": None}
    counts, edges = np.histogram(values, bins=N_BINS)
    quantiles = dict(zip(QUANTILES, np.quantile(values, list(QUANTILES.values())).tolist(), strict=True))
    return {"quantiles": quantiles, "histogram": {"edges": edges.tolist(), "counts": counts.tolist()}}


def _describe_column(column: MetadataColumn) -> dict[str, Any]:
    present = column.values[~column.is_missing]
    found = {"name": column.name, "kind": column.kind, "n_rows": len(present)}
    if column.kind == "numeric":
        return found | _describe_numbers(present)
    names, counts = np.unique(present.astype(np.str_), return_counts=True)
    order = np.argsort(-counts, kind="stable")[:N_VALUES]
    return found | {"n_values": len(names), "values": {str(names[i]): int(counts[i]) for i in order}}


def _missing(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """Yield what is missing somewhere: how often, and in which share of the rows that should have it."""
    counts = [
        (f"task {t.name}", int((t.applies & ~t.labelled).sum()), int(t.applies.sum())) for t in dataset.tasks.values()
    ]
    counts += [(f"metadata {c.name}", int(c.is_missing.sum()), dataset.n_rows) for c in dataset.metadata.values()]
    counts += [(f"text {b.name}", sum(not text for text in b.texts), dataset.n_rows) for b in dataset.texts.values()]
    counts += [(f"image {b.name}", b.refs.count(None), dataset.n_rows) for b in dataset.images.values()]
    for what, n_missing, n_rows in counts:
        if n_missing:
            yield {"what": what, "n_missing": n_missing, "share": n_missing / n_rows}
