"""Explain a bundle's predictions of new files."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from extract import Options, encoders_from_spaces, extract_features, row_status
from finetune.bundle import SUBSET, UNSEEN, FinetunedBundle
from finetune.bundle import load_bundle as load_tuned
from finetune.explain.models import FrozenModel, TunedModel
from finetune.explain.rows import explain_rows
from finetune.outputs import network_features
from heads import (
    FEATURES,
    Bundle,
    FeatureMatrix,
    Sweep,
    block_importance,
    bundle_kind,
    features_matrix,
    load_bundle,
    network_importance,
)
from store import Dataset, FeatureStore, InputError, Progress, Rows, Split, prediction_dataset

N_NEAREST = 3
HEAD = "finetune"  # as entries call it

Training = tuple[Dataset, Split]
"""The dataset that a bundle was made from, and its split."""


def explain_files(
    folder: Path,
    source: Path,
    out: Path,
    *,
    n_rows: int,
    training: Training | None,
    store: FeatureStore,
    options: Options,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Draw heat maps of the first rows' predictions, find the training rows they resemble, and weigh the blocks.

    Args:
        folder: A bundle of heads, or of a fine-tuned network.
        source: A folder of images, or a table.
        out: Where the pictures go.
        n_rows: How many rows, from the first on.
        training: What the bundle was made from; None leaves neighbours and blocks out.
        store: Where vectors are kept.
        options: Device; and weights, where they have moved.
        progress: Called with (rows done, rows).

    Returns:
        ``rows``: as `explain_rows`, with ``nearest`` (``id``, ``distance`` in the unit of ``ood_distance``);
        ``blocks``: as `block_importance`; and ``notes``: what cannot be given, and why.

    Raises:
        InputError: The files lack what the bundle reads, or the training data is not the bundle's.
    """
    if bundle_kind(folder) == "finetune":
        return _explain_tuned(folder, source, out, n_rows=n_rows, training=training, options=options, progress=progress)
    bundle = load_bundle(folder)
    check_training(bundle, training)
    dataset = _first(prediction_dataset(bundle.spec, source), n_rows)
    matrix, status = _embedded(bundle, dataset, store, options)
    model = FrozenModel(bundle, dataset, matrix, options)
    rows, notes = explain_rows(model, bundle, bundle.predict(matrix), status, out, progress=progress)
    if training is None:
        return {"rows": rows, "blocks": [], "notes": notes}
    known, _ = _embedded(bundle, training[0], store, options)
    chosen = [
        {"task": name, "head": one.head, "blocks": one.blocks, "headline": one.scores["headline"]}
        for name, one in bundle.models.items()
    ]
    blocks = block_importance(Sweep(training[0], known, training[1]), chosen)
    return {"rows": _with_nearest(rows, bundle, matrix, known, training), "blocks": blocks, "notes": notes}


def check_training(bundle: Bundle, training: Training | None) -> None:
    """Raise an `InputError` where a dataset is not what a bundle was made from: a task or its classes differ."""
    if training is None:
        return
    dataset, _ = training
    for name, model in bundle.models.items():
        task, want = dataset.tasks.get(name), model.task
        if task is None or (task.kind, task.classes, task.columns) != (want.kind, want.classes, want.columns):
            raise InputError(
                f"{dataset.folder}: is not what the bundle was made from: its task {name!r} is "
                f"{'not there' if task is None else 'another'}. Give the right one with --data"
            )


def _explain_tuned(
    folder: Path,
    source: Path,
    out: Path,
    *,
    n_rows: int,
    training: Training | None,
    options: Options,
    progress: Progress | None,
) -> dict[str, Any]:
    tuned = load_tuned(folder)
    check_training(tuned.layers, training)
    dataset = _first(prediction_dataset(tuned.layers.spec, source), n_rows)
    matrix, left_out = _seen(tuned, dataset, np.arange(dataset.n_rows), options)
    status = [left_out.get(row, "ok") for row in dataset.ids.tolist()]
    table = tuned.layers.predict(matrix)
    rows, notes = explain_rows(TunedModel(tuned, dataset), tuned.layers, table, status, out, progress=progress)
    if training is None:
        return {"rows": rows, "blocks": [], "notes": notes}
    known, _ = _seen(tuned, training[0], training_rows(tuned.layers, training), options)
    rows = _with_nearest(rows, tuned.layers, matrix, known, training)
    blocks, more = _blocks_of(tuned, training, options)
    return {"rows": rows, "blocks": blocks, "notes": [*notes, *more]}


def training_rows(bundle: Bundle, training: Training) -> Rows:
    """Return the rows that a bundle was made from: those that are not held out, or what --subset drew of them."""
    dataset, split = training
    rows = split.fitting(dataset.ids)
    drawn = bundle.about.get(SUBSET)
    return rows if drawn is None else rows[np.isin(dataset.ids[rows], drawn)]


def _blocks_of(tuned: FinetunedBundle, training: Training, options: Options) -> tuple[list[dict[str, Any]], list[str]]:
    """Weigh a network's blocks on rows that it was not trained on, and say where that cannot be done."""
    dataset, network = training[0], tuned.network
    unseen = np.isin(dataset.ids, list(tuned.layers.about.get(UNSEEN, ())))
    score = np.flatnonzero(unseen)
    if not len(score):
        return [], ["no block importance: the bundle names no row that it was not trained on; run finetune again"]
    X, _ = network_features(network, dataset, score, joined=True, device=options.device)
    ends = np.cumsum([network.branches[plan.name].dim for plan in network.blueprint.branches]).tolist()
    starts = [0, *ends[:-1]]
    parts = {plan.label: slice(a, b) for plan, a, b in zip(network.blueprint.branches, starts, ends, strict=True)}

    def see(features: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            seen: NDArray[np.float32] = network.fusion(torch.from_numpy(features)).numpy()
        return seen

    train = np.setdiff1d(training_rows(tuned.layers, training), score)
    how: dict[str, Any] = {"parts": parts, "see": see, "train": train, "score": score, "head": HEAD}
    return network_importance(tuned.layers, dataset, X, **how), []


def _first(dataset: Dataset, n_rows: int) -> Dataset:
    return next(dataset.parts(n_rows), dataset)


def _embedded(
    bundle: Bundle, dataset: Dataset, store: FeatureStore, options: Options
) -> tuple[FeatureMatrix, list[str]]:
    """Embed what is new and return the bundle's matrix of a dataset, and ``ok`` or what is wrong with each row."""
    encoders = encoders_from_spaces(bundle.spaces, bundle.provenance, options)
    reports = extract_features(dataset, encoders, store)
    matrix = bundle.load_matrix(dataset, store)
    return matrix, row_status(dataset, reports, matrix.complete)


def _seen(
    tuned: FinetunedBundle, dataset: Dataset, rows: NDArray[np.int64], options: Options
) -> tuple[FeatureMatrix, dict[str, str]]:
    """Return what a network's task heads see of some rows, and why others cannot be read, by row id."""
    X, left_out = network_features(tuned.network, dataset, rows, device=options.device)
    return features_matrix(dataset, tuned.layers.spaces[FEATURES], X), left_out


def _with_nearest(
    rows: Sequence[dict[str, Any]], bundle: Bundle, matrix: FeatureMatrix, known: FeatureMatrix, training: Training
) -> list[dict[str, Any]]:
    """Name the training rows that each row resembles most; held-out rows are no training rows."""
    is_fitting = np.zeros(training[0].n_rows, dtype=bool)
    is_fitting[training_rows(bundle, training)] = True
    near = bundle.nearest(matrix, replace(known, complete=known.complete & is_fitting), k=N_NEAREST)
    named = [[{"id": name, "distance": distance} for name, distance in one] for one in near]
    return [row | {"nearest": one} for row, one in zip(rows, named, strict=True)]
