"""Explain a bundle's predictions of new files."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from extract import Encoder, Options, encoder_from_space, extract_features
from finetune.bundle import load_bundle as load_tuned
from finetune.explain.models import FrozenModel, TunedModel
from finetune.explain.rows import Progress, explain_rows
from finetune.features import network_features
from heads import (
    FEATURES,
    Bundle,
    FeatureMatrix,
    Sweep,
    block_importance,
    bundle_kind,
    features_matrix,
    load_bundle,
)
from store import Dataset, FeatureStore, Split, prediction_dataset

N_NEAREST = 3

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
        ``rows``: as `explain_rows`, with ``nearest`` (``id``, ``distance`` in the unit of ``ood_distance``); and
        ``blocks``: as `block_importance`, empty for a fine-tuned network.

    Raises:
        InputError: As `explain_rows`, or the files lack what the bundle reads.
    """
    if bundle_kind(folder) == "finetune":
        return _explain_tuned(folder, source, out, n_rows=n_rows, training=training, options=options, progress=progress)
    bundle = load_bundle(folder)
    dataset = _first(prediction_dataset(bundle.spec, source), n_rows)
    matrix = _embedded(bundle, dataset, store, options)
    model = FrozenModel(bundle, dataset, matrix, options)
    rows = explain_rows(model, bundle, bundle.predict(matrix), out, progress=progress)
    if training is None:
        return {"rows": rows, "blocks": []}
    known = _embedded(bundle, training[0], store, options)
    chosen = [
        {"task": name, "head": one.head, "blocks": one.blocks, "headline": one.scores["headline"]}
        for name, one in bundle.models.items()
    ]
    blocks = block_importance(Sweep(training[0], known, training[1]), chosen)
    return {"rows": _with_nearest(rows, bundle, matrix, known, training), "blocks": blocks}


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
    dataset = _first(prediction_dataset(tuned.layers.spec, source), n_rows)
    matrix = _seen(tuned.network, tuned.layers, dataset, np.arange(dataset.n_rows), options)
    table = tuned.layers.predict(matrix)
    rows = explain_rows(TunedModel(tuned, dataset), tuned.layers, table, out, progress=progress)
    if training is not None:
        known = _seen(tuned.network, tuned.layers, training[0], training[1].fitting(training[0].ids), options)
        rows = _with_nearest(rows, tuned.layers, matrix, known, training)
    return {"rows": rows, "blocks": []}


def _first(dataset: Dataset, n_rows: int) -> Dataset:
    return next(dataset.parts(n_rows), dataset)


def _embedded(bundle: Bundle, dataset: Dataset, store: FeatureStore, options: Options) -> FeatureMatrix:
    """Embed what is new and return the bundle's matrix of a dataset."""
    encoders: dict[str, list[Encoder]] = {}
    for name, space in bundle.spaces.items():
        encoder = encoder_from_space(space, bundle.provenance[name], options)
        encoders.setdefault(name.partition("@")[0], []).append(encoder)
    extract_features(dataset, encoders, store)
    return bundle.load_matrix(dataset, store)


def _seen(network: Any, layers: Bundle, dataset: Dataset, rows: Any, options: Options) -> FeatureMatrix:
    X, _ = network_features(network, dataset, rows, device=options.device)
    return features_matrix(dataset, layers.spaces[FEATURES], X)


def _with_nearest(
    rows: Sequence[dict[str, Any]], bundle: Bundle, matrix: FeatureMatrix, known: FeatureMatrix, training: Training
) -> list[dict[str, Any]]:
    """Name the training rows that each row resembles most; held-out rows are no training rows."""
    dataset, split = training
    is_fitting = np.zeros(dataset.n_rows, dtype=bool)
    is_fitting[split.fitting(dataset.ids)] = True
    near = bundle.nearest(matrix, replace(known, complete=known.complete & is_fitting), k=N_NEAREST)
    named = [[{"id": name, "distance": distance} for name, distance in one] for one in near]
    return [row | {"nearest": one} for row, one in zip(rows, named, strict=True)]
