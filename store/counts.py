"""How many labels a dataset has, and which."""

import numpy as np

from store.dataset import Dataset
from store.task import Task


def summary(dataset: Dataset) -> dict[str, dict[str, float]]:
    """Count the labels of each task, in the rows where it applies.

    Returns:
        By task. Classification: the rows of each class, and ``"missing"`` (``"(missing)"`` where a class has that
        name). Regression: ``"n"``, ``"missing"``, ``"min"``, ``"median"`` and ``"max"``; with several columns the last
        three once each, as in ``"min uv"``; without a label none of them.
    """
    return {
        name: _count_classes(task) if task.kind == "classification" else _describe_values(task)
        for name, task in dataset.tasks.items()
    }


def _count_classes(task: Task) -> dict[str, float]:
    counts = np.bincount(task.y[task.labelled], minlength=len(task.classes)).tolist()
    missing = "(missing)" if "missing" in task.classes else "missing"
    return {**dict(zip(task.classes, counts, strict=True)), missing: int((task.applies & ~task.labelled).sum())}


def _describe_values(task: Task) -> dict[str, float]:
    values = task.y[task.labelled]
    found: dict[str, float] = {"n": len(values), "missing": int((task.applies & ~task.labelled).sum())}
    for i, column in enumerate(task.columns if len(values) else ()):
        suffix = f" {column}" if len(task.columns) > 1 else ""
        for name, measure in (("min", np.min), ("median", np.median), ("max", np.max)):
            found[name + suffix] = float(measure(values[:, i]))
    return found
