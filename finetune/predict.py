"""Predictions of a fine-tuned model on new files, part by part."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pandas as pd

from extract import Device, Drawing, Options
from finetune.bundle import FinetunedBundle, load_bundle
from heads import prediction_words, write_predictions
from store import Dataset, InputError, Progress, prediction_dataset


def predict_source(
    folder: Path,
    source: Path,
    out: Path,
    *,
    rows_at_once: int,
    options: Options,
    drawing: Drawing | None = None,
    progress: Progress | None = None,
) -> tuple[int, int]:
    """Predict a folder of images or a table, and write the predictions as heads' bundles do.

    Args:
        folder: The bundle's.
        source: What to predict.
        out: The csv.
        rows_at_once: Rows in memory.
        options: Where the network runs.
        drawing: Gets a copy of every image with its predictions.
        progress: Called with (rows done, rows to do).

    Returns:
        The number of rows, and of those without a prediction.

    Raises:
        InputError: Other weights are asked for.
    """
    if options.weights != "pretrained":
        raise InputError(f"--weights {options.weights}: {folder} is a fine-tuned network, which has its own weights")
    bundle = load_bundle(folder)
    dataset = prediction_dataset(bundle.layers.spec, source)
    n_failed: list[int] = []
    tables = _tables(bundle, dataset, n_failed, rows_at_once=rows_at_once, device=options.device, progress=progress)
    if drawing is not None:
        tables = drawing.draw(tables, dataset, partial(prediction_words, bundle.layers))
    write_predictions(tables, out)
    return dataset.n_rows, sum(n_failed)


def _tables(
    bundle: FinetunedBundle,
    dataset: Dataset,
    n_failed: list[int],
    *,
    rows_at_once: int,
    device: Device,
    progress: Progress | None,
) -> Iterator[pd.DataFrame]:
    for part, advance in dataset.parts_of_progress(rows_at_once, progress):
        table, left_out = bundle.predict(part, device=device, progress=advance)
        n_failed.append(len(left_out))
        yield table.assign(status=[left_out.get(row, "ok") for row in part.ids.tolist()])
