"""The columns of the table of predictions: what they are called, what is in them, and in which unit."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from heads.conformal import COVERAGE, half_widths, in_set
from heads.held_out import predicted
from store import Task

if TYPE_CHECKING:
    from heads.bundle import Bundle, Model

Columns = dict[str, NDArray[Any]]
Described = list[tuple[str, str, str | None]]
"""Name, meaning and unit of columns."""
JOIN = "|"


def task_columns(model: "Model", X: NDArray[np.float32], usable: NDArray[np.bool_]) -> Columns:
    """Return a task's columns, each ``(n,)``.

    Args:
        model: The task's.
        X: Raw rows ``(n, d)`` of the model's blocks.
        usable: bool ``(n,)``: rows with all vectors that the model needs; the others stay empty.
    """
    found = _predicted(model, X[usable])
    made = (_class_columns if model.task.kind == "classification" else _output_columns)(model, found)
    return {name: _with_gaps(column, usable) for name, column in made.items()}


def applies_column(condition: "Model", X: NDArray[np.float32], usable: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the probability that a task's condition holds, ``(n,)``; arguments as `task_columns`."""
    return _with_gaps(_predicted(condition, X[usable])[:, 1], usable)


def applies_name(task: str) -> str:
    """Return what the column of `applies_column` is called."""
    return f"{task}_p_applies"


def prediction_words(bundle: "Bundle", row: Mapping[str, Any]) -> list[str]:
    """Return what a row of predictions says, a line per output: ``morphology: flat 0.81``, ``hall_flow: 31.2 s``.

    Behind a task with a condition stands the probability that this holds.
    """
    lines = []
    for name, model in bundle.models.items():
        applies = f", applies {row[applies_name(name)]:.2f}" if name in bundle.conditions else ""
        if model.task.kind == "classification":
            lines.append(f"{name}: {row[name]} {row[f'{name}_p_{row[name]}']:.2f}{applies}")
            continue
        unit = bundle.spec.unit_of(name)
        behind = (f" {unit}" if unit else "") + applies
        lines += [f"{output}: {row[output]:.4g}{behind}" for output in _output_names(model.task)]
    return lines


def describe_columns(bundle: "Bundle") -> list[dict[str, Any]]:
    """Return column, meaning and unit (None where there is none), in the order of the table."""
    rows: Described = [("id", "the row's id", None)]
    for name, model in bundle.models.items():
        unit = bundle.spec.unit_of(name)
        is_class = model.task.kind == "classification"
        rows += (_describe_classes if is_class else _describe_outputs)(model.task, unit)
        if name in bundle.conditions:
            rows.append((applies_name(name), f"probability that {model.task.when}", None))
    far = "distance to the training rows; one in twenty of those lies above 1"
    rows.append(("ood_distance", far, None))
    rows.append(("status", "ok, or why the row has no prediction", None))
    return [{"column": column, "meaning": meaning, "unit": unit} for column, meaning, unit in rows]


def _describe_classes(task: Task, unit: str | None) -> Described:
    rows: Described = [(task.name, "likeliest class", unit)]
    rows += [(f"{task.name}_p_{name}", f"probability of {name}", None) for name in task.classes]
    held = f"classes joined by {JOIN}, which hold the truth with probability {COVERAGE}"
    return [*rows, (f"{task.name}_set", held, None)]


def _describe_outputs(task: Task, unit: str | None) -> Described:
    rows: Described = []
    for name, column in zip(_output_names(task), task.columns, strict=True):
        ends = f"end of the interval that holds the truth with probability {COVERAGE}; empty where there is no such end"
        rows += [(name, f"predicted {column}", unit)]
        rows += [(f"{name}_low", f"lower {ends}", unit), (f"{name}_high", f"upper {ends}", unit)]
    return rows


def _predicted(model: "Model", X: NDArray[np.float32]) -> NDArray[np.float64]:
    return predicted(model.fitted, X, model.task.kind, len(model.task.classes))


def _output_names(task: Task) -> list[str]:
    return [task.name] if len(task.columns) == 1 else [f"{task.name}_{column}" for column in task.columns]


def _class_columns(model: "Model", p: NDArray[np.float64]) -> Columns:
    task = model.task
    names = np.array(task.classes, dtype=object)
    inside = in_set(p, [model.fitted.calibration.limits] * len(p))
    made: Mapping[str, NDArray[Any]] = {
        task.name: names[p.argmax(axis=1)],
        **{f"{task.name}_p_{name}": p[:, j] for j, name in enumerate(task.classes)},
        f"{task.name}_set": _joined(names, inside),
    }
    return dict(made)


def _joined(names: NDArray[np.object_], inside: NDArray[np.bool_]) -> NDArray[np.object_]:
    sets: Sequence[str] = [JOIN.join(names[row]) for row in inside]
    joined = np.empty(len(sets), dtype=object)
    joined[:] = sets
    return joined


def _output_columns(model: "Model", values: NDArray[np.float64]) -> Columns:
    made: Columns = {}
    reach = half_widths(model.fitted.calibration.limits)
    reach = np.where(np.isfinite(reach), reach, np.nan)
    for j, name in enumerate(_output_names(model.task)):
        made[name] = values[:, j]
        made |= {f"{name}_low": values[:, j] - reach[j], f"{name}_high": values[:, j] + reach[j]}
    return made


def _with_gaps(column: NDArray[Any], usable: NDArray[np.bool_]) -> NDArray[Any]:
    """Return a column of the usable rows as one of all rows, empty elsewhere."""
    gap = None if column.dtype == object else np.nan
    whole = np.full(len(usable), gap, dtype=column.dtype)
    whole[usable] = column
    return whole
