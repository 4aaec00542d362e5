"""The predictions of some rows, with heat maps of what they look at."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from finetune.explain.attribution import grad_cam, integrated_gradients
from finetune.explain.models import Explained, Inputs
from finetune.explain.overlay import draw_overlays
from heads import Bundle
from store import Progress, Task


@dataclass(frozen=True)
class Target:
    """What is predicted of one output of one task: a class with its probability, or a number.

    Attributes:
        task: The task.
        number: Of the class, or of the output.
        name: Of the class, or of the output.
        value: The class, or the number.
        p: Of the class; None for a number.
        words: For people.
    """

    task: str
    number: int
    name: str
    value: str | float
    p: float | None
    words: str

    @property
    def document(self) -> dict[str, Any]:
        """Its JSON value."""
        return {"task": self.task, "output": self.name, "value": self.value, "p": self.p}


def explain_rows(
    model: Explained,
    bundle: Bundle,
    table: pd.DataFrame,
    status: Sequence[str],
    out: Path,
    *,
    progress: Progress | None = None,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Draw what the predictions of some rows look at.

    Args:
        model: With the gradients of `bundle`.
        bundle: Its tasks.
        table: What it predicted, one line per row.
        status: ``ok``, or why a row has no prediction.
        out: A folder for the pictures: ``<row>.<task>.<output>.<picture>.png``.
        progress: Called with (rows done, rows).

    Returns:
        One JSON value per row: ``id``, ``predictions`` (`Target.document`), ``pictures`` (``task``, ``output``,
        ``input``, ``file``) and ``status``; and lines that say what has no heat map and why.
    """
    found, notes = [], without_gradients(model, bundle)
    for row, predicted in enumerate(table.to_dict("records")):
        asked = [
            target
            for name, one in bundle.models.items()
            for target in targets(one.task, predicted, bundle.spec.unit_of(name))
        ]
        document: dict[str, Any] = {"id": predicted["id"], "predictions": [one.document for one in asked]}
        document |= {"pictures": [], "status": status[row]}
        drawn = [target for target in asked if target.task in model.tasks]
        if status[row] == "ok" and drawn and model.encoders:
            document["pictures"] = list(_pictures(model, model.read(row), drawn, predicted["id"], out, notes))
        found.append(document)
        if progress:
            progress(row + 1, len(table))
    return found, list(dict.fromkeys(notes))


def without_gradients(model: Explained, bundle: Bundle) -> list[str]:
    """Return a line for each block and each task that no heat map can be drawn of."""
    lines = [
        f"no heat map of {name}: only whole images seen by a network have one (extract --backbone resnet18)"
        for name in model.others
    ]
    return lines + [
        f"no heat map for {name}: {one.head} has no gradients (heads --head linear --save has)"
        for name, one in bundle.models.items()
        if name not in model.tasks
    ]


def targets(task: Task, predicted: Mapping[str, Any], unit: str | None = None) -> list[Target]:
    """Return what is explained of a row: the predicted class, or every output; nothing without a prediction."""
    if task.kind == "classification":
        if pd.isna(predicted[task.name]):
            return []
        name = str(predicted[task.name])
        p = float(predicted[f"{task.name}_p_{name}"])
        return [Target(task.name, task.classes.index(name), name, name, p, f"{task.name}: {name} ({p:.2f})")]
    single = len(task.columns) == 1
    columns = [task.name] if single else [f"{task.name}_{column}" for column in task.columns]
    values = [float(predicted[column]) for column in columns]
    return [
        Target(task.name, i, column, value, None, f"{column}: {value:.4g} {unit or ''}".rstrip())
        for i, (column, value) in enumerate(zip(columns, values, strict=True))
        if np.isfinite(value)
    ]


def _pictures(
    model: Explained, inputs: Inputs, asked: Sequence[Target], row: str, out: Path, notes: list[str]
) -> Iterator[dict[str, Any]]:
    for target in asked:
        for name in model.encoders:
            cam = grad_cam(model, inputs, name, target.task, target.number)
            heats = {} if cam is None else {"Grad-CAM": cam}
            if cam is None:
                notes.append(f"no Grad-CAM of {name}: its network has no map of places; integrated gradients alone")
            heats["integrated gradients"] = integrated_gradients(model, inputs, name, target.task, target.number)
            file = out / f"{_plain([row, target.task, target.name, name])}.png"
            draw_overlays(file, _shown(inputs[name]), heats, f"{row}\n{target.words}", is_number=target.p is None)
            yield {"task": target.task, "output": target.name, "input": name, "file": str(file)}


def _shown(pixels: Any) -> NDArray[np.uint8]:
    """Return a network's input as a picture; of a stack, the first."""
    found: NDArray[np.uint8] = pixels[0, :, :, :3].numpy()
    return found


def _plain(words: Sequence[Any]) -> str:
    """Return a file name of some words."""
    return ".".join("".join(c if c.isalnum() or c in "-_" else "_" for c in str(word)) for word in words)
