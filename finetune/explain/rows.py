"""Heat maps of the predictions of some rows."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from extract import ImageError
from finetune.explain.attribution import grad_cam, integrated_gradients
from finetune.explain.models import Explained, Inputs
from finetune.explain.overlay import draw_overlays
from heads import Bundle
from store import InputError, Task

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Target:
    """One output of one task: a class with its probability, or a number."""

    task: str
    output: int
    name: str
    words: str


def explain_rows(
    model: Explained, bundle: Bundle, table: pd.DataFrame, out: Path, *, progress: Progress | None = None
) -> list[dict[str, Any]]:
    """Draw what the predictions of some rows look at.

    Args:
        model: With the gradients of `bundle`.
        bundle: Its tasks.
        table: What it predicted, one line per row.
        out: A folder for the pictures: ``<row>.<task>.<picture>.png``.
        progress: Called with (rows done, rows).

    Returns:
        One JSON value per row: ``id``, ``pictures`` (``task``, ``output``, ``input``, ``file``) and ``status``.

    Raises:
        InputError: No task, or no picture, has gradients.
    """
    check_gradients(model, bundle)
    found = []
    for row, predicted in enumerate(table.to_dict("records")):
        document: dict[str, Any] = {"id": predicted["id"], "pictures": [], "status": "ok"}
        try:
            inputs = model.read(row)
        except ImageError as error:
            document["status"] = str(error)
        else:
            document["pictures"] = list(_pictures(model, bundle, inputs, predicted, out))
        found.append(document)
        if progress:
            progress(row + 1, len(table))
    return found


def check_gradients(model: Explained, bundle: Bundle) -> None:
    """Raise an InputError where there is nothing to draw a heat map of."""
    if not model.encoders:
        raise InputError(
            f"none of {', '.join(bundle.spaces) or 'the blocks'} is a whole image seen by a network, so there is no "
            "gradient to draw. Extract with a network (extract --backbone resnet18), then heads --save"
        )
    if not model.tasks:
        heads = ", ".join(sorted({one.head for one in bundle.models.values()}))
        raise InputError(f"heat maps need a linear head, and this bundle has {heads}: heads --head linear --save")


def targets(task: Task, predicted: Mapping[str, Any]) -> list[Target]:
    """Return what is explained of a row: the predicted class, or every output."""
    if task.kind == "classification":
        name = str(predicted[task.name])
        p = float(predicted[f"{task.name}_p_{name}"])
        return [Target(task.name, task.classes.index(name), name, f"{task.name}: {name} ({p:.2f})")]
    single = len(task.columns) == 1
    columns = [task.name] if single else [f"{task.name}_{column}" for column in task.columns]
    words = [f"{column}: {float(predicted[column]):.4g}" for column in columns]
    return [Target(task.name, i, column, words[i]) for i, column in enumerate(task.columns)]


def _pictures(
    model: Explained, bundle: Bundle, inputs: Inputs, predicted: Mapping[str, Any], out: Path
) -> Iterator[dict[str, Any]]:
    for task in model.tasks:
        for target in targets(bundle.models[task].task, predicted):
            for name in model.encoders:
                cam = grad_cam(model, inputs, name, task, target.output)
                heats = {} if cam is None else {"Grad-CAM": cam}
                heats["integrated gradients"] = integrated_gradients(model, inputs, name, task, target.output)
                file = out / f"{_plain([predicted['id'], task, target.name, name])}.png"
                draw_overlays(file, _shown(inputs[name]), heats, f"{predicted['id']}\n{target.words}")
                yield {"task": task, "output": target.name, "input": name, "file": str(file)}


def _shown(pixels: Any) -> NDArray[np.uint8]:
    """Return a network's input as a picture; of a stack, the first."""
    found: NDArray[np.uint8] = pixels[0, :, :, :3].numpy()
    return found


def _plain(words: Sequence[Any]) -> str:
    """Return a file name of some words."""
    return ".".join("".join(c if c.isalnum() or c in "-_" else "_" for c in str(word)) for word in words)
