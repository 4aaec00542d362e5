"""Where a result errs: per class or output, and row by row."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from heads.entry import BOOTSTRAP_SEED
from heads.error_chart import draw_confusion, draw_scatter
from heads.output import write_predictions
from heads.per_class import RATES, class_rates, confusion
from heads.stored import Result
from store import Dataset, InputError

if TYPE_CHECKING:
    from pandas import DataFrame

N_FARTHEST = 100  # rows of a regression in JSON; the csv has all
Document = dict[str, Any]


def describe_errors(result: Result, dataset: Dataset) -> tuple[Document, "DataFrame"]:
    """Return what is reported of a result as JSON values, and its rows in dataset order.

    Args:
        result: Of this dataset.
        dataset: n rows.

    Returns:
        The document: what was scored and how well, with the baseline; of a classification ``classes``, ``macro``,
        ``weighted``, ``confusion`` and ``wrong``, the misclassified rows, surest first; of a regression ``outputs`` and
        ``farthest``, the rows that were missed by most. And the table: ``id``, ``label``, ``predicted`` and how sure,
        or how far off; the texts of each row.
    """
    entry, task = result.entry, dataset.tasks[result.entry["task"]]
    names = ("task", "kind", "split", "blocks", "head", "headline", "metrics", "baseline", "difference", "verdict")
    document = {name: entry[name] for name in (*names, "n_rows", "n_left_out", "n_groups", "seed")}
    if task.kind == "classification":
        rows = _class_rows(result, dataset)
        wrong = rows[rows["is_wrong"]].sort_values("p_predicted", ascending=False, kind="stable")
        listed = wrong.drop(columns="is_wrong").to_dict("records")
        return document | _classes(result, task.classes) | {"n_wrong": len(wrong), "wrong": listed}, rows
    rows = _output_rows(result, dataset)
    far = np.argsort(-np.abs(_in_deviations(result)).ravel(), kind="stable")[:N_FARTHEST]
    return document | {"outputs": _outputs(result, dataset), "farthest": rows.iloc[far].to_dict("records")}, rows


def write_errors(result: Result, dataset: Dataset, folder: Path) -> Document:
    """Describe a result, write its rows as csv and a chart, and name the files in the document.

    Raises:
        InputError: The folder cannot be written to.
        StoreError: The disk is full.
    """
    document, rows = describe_errors(result, dataset)
    name = f"{document['task']}-{document['split']}"
    is_classes = document["kind"] == "classification"
    files = {"rows": folder / f"{name}.csv", "chart": folder / f"{name}-{'confusion' if is_classes else 'scatter'}.png"}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made a folder ({error.strerror}); give another --out") from None
    write_predictions([rows], files["rows"])
    if is_classes:
        draw_confusion(document, files["chart"])
    else:
        draw_scatter(document, rows, files["chart"])
    return document | {"files": {kind: str(path) for kind, path in files.items()}}


def row_captions(document: Mapping[str, Any]) -> dict[str, str]:
    """Return a caption for each row that a report lists, by its id: its text or id, and label -> prediction."""
    found: dict[str, str] = {}
    for row in document.get("wrong") or document.get("farthest", ()):
        texts = [text for name, text in row.items() if name.startswith("text_") and text]
        what = f"{row['output']}: " if len(document.get("outputs", ())) > 1 else ""
        sure = f" {row['p_predicted']:.2f}" if "p_predicted" in row else ""
        label, predicted = (one if isinstance(one, str) else f"{one:.4g}" for one in (row["label"], row["predicted"]))
        found.setdefault(row["id"], f"{(texts or [row['id']])[0]}\n{what}{label} -> {predicted}{sure}")
    return found


def _classes(result: Result, classes: tuple[str, ...]) -> Document:
    rates = class_rates(result.scored, seed=BOOTSTRAP_SEED)
    counts = confusion(result.scored)
    n_rows, n_predicted = counts.sum(axis=1).tolist(), counts.sum(axis=0).tolist()
    of_output = [{name: rates[name].interval(j) for name in RATES} for j in range(len(classes) + 2)]
    return {
        "classes": [
            {"class": name, **of_output[j], "rows": n_rows[j], "predicted": n_predicted[j]}
            for j, name in enumerate(classes)
        ],
        "macro": of_output[-2],
        "weighted": of_output[-1],
        "confusion": {"classes": list(classes), "counts": counts.tolist()},
    }


def _outputs(result: Result, dataset: Dataset) -> list[Document]:
    """Return each output's metrics beside the baseline's, which are known where the prior's entry is."""
    entry, task = result.entry, dataset.tasks[result.entry["task"]]
    unit = dataset.spec.unit_of(task.name)
    [first, *others] = task.columns
    if not others:
        return [{"output": first, "unit": unit, "metrics": entry["metrics"], "baseline": entry["baseline"]}]
    without = result.prior["outputs"] if result.prior else {}
    return [
        {
            "output": name,
            "unit": unit,
            "metrics": entry["outputs"][name],
            "baseline": {metric: found["value"] for metric, found in without.get(name, {}).items()},
        }
        for name in task.columns
    ]


def _class_rows(result: Result, dataset: Dataset) -> "DataFrame":
    from pandas import DataFrame

    scored = result.scored
    classes, chosen = np.array(dataset.tasks[result.entry["task"]].classes), scored.predicted.argmax(axis=1)
    each = np.arange(len(chosen))
    table = {
        "id": dataset.ids[scored.row],
        "label": classes[scored.y],
        "predicted": classes[chosen],
        "p_predicted": scored.predicted[each, chosen],
        "p_label": scored.predicted[each, scored.y],
        "is_wrong": chosen != scored.y,
    }
    return DataFrame(table | _texts(dataset, scored.row))


def _output_rows(result: Result, dataset: Dataset) -> "DataFrame":
    """Return a line per row and output."""
    from pandas import DataFrame

    scored, columns = result.scored, dataset.tasks[result.entry["task"]].columns
    row = np.repeat(scored.row, len(columns))
    table = {
        "id": dataset.ids[row],
        "output": np.tile(np.array(columns), len(scored.row)),
        "label": scored.y.ravel(),
        "predicted": scored.predicted.ravel(),
        "error": (scored.predicted - scored.y).ravel(),
    }
    return DataFrame(table | _texts(dataset, row))


def _in_deviations(result: Result) -> np.ndarray[Any, Any]:
    """Return the errors in standard deviations of each output's labels, ``(m, t)``, so that outputs can be compared."""
    spread = result.scored.y.std(axis=0)
    return np.asarray((result.scored.predicted - result.scored.y) / np.where(spread > 0, spread, 1.0))


def _texts(dataset: Dataset, rows: np.ndarray[Any, Any]) -> dict[str, list[str]]:
    return {f"text_{name}": [block.texts[row] or "" for row in rows] for name, block in dataset.texts.items()}
