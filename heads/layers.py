"""Bundles of networks that were trained elsewhere: their last layers are linear heads on the features below them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.bundle import Bundle, Model
from heads.calibration import CalibratedHead, Calibration, fit_calibration
from heads.condition import CLASSES, condition_task
from heads.entry import SCORES
from heads.head import Standardiser
from heads.linear import LinearHead
from heads.matrix import FeatureMatrix
from heads.ood import make_reference
from heads.plan import Plan, make_plan
from heads.refit import check_columns
from heads.registry import HEADS, PRIOR
from store import Dataset, DatasetSpec, FeatureSpace, Rows, Task

FEATURES = "features"  # what the one block of such a bundle is called
FAMILY = "linear"

Features = NDArray[np.float32]


@dataclass(frozen=True)
class Layer:
    """A task's last layer.

    Attributes:
        coef: float64 ``(c, d)``, or of regression ``(t, d)`` in the outputs' own units.
        intercept: ``(c,)`` or ``(t,)``.
        calibration: From rows that the network was not trained on.
        entry: What the leaderboard says of it.
    """

    coef: NDArray[np.float64]
    intercept: NDArray[np.float64]
    calibration: Calibration
    entry: Mapping[str, Any]


def features_matrix(dataset: Dataset, space: FeatureSpace, X: Features) -> FeatureMatrix:
    """Return a network's features as what `Bundle.predict` takes.

    Args:
        dataset: n rows.
        space: The features'.
        X: ``(n, d)``; NaN in rows that the network could not read.
    """
    columns = {FEATURES: slice(0, X.shape[1])}
    return FeatureMatrix(dataset.ids, X, columns, (), ~np.isnan(X[:, 0]), {FEATURES: space}, {FEATURES: {}})


def bundle_of_layers(
    dataset: Dataset,
    spec: DatasetSpec,
    matrix: FeatureMatrix,
    rows: Rows,
    layers: Mapping[str, Layer],
    *,
    about: Mapping[str, Any],
) -> Bundle:
    """Return a bundle of a network's last layers.

    A task with a condition gets a linear classifier of whether it holds, fitted on the features.

    Args:
        dataset: n rows.
        spec: What new files are read by.
        matrix: From `features_matrix`, at least of the training rows.
        rows: Training rows.
        layers: By task.
        about: Split fingerprint, seed, versions.
    """
    space, seed = matrix.spaces[FEATURES], int(about["seed"])
    rows = rows[matrix.complete[rows]]
    groups = None if dataset.groups is None else np.unique(dataset.groups, return_inverse=True)[1]
    models = {name: _model(dataset.tasks[name], layer) for name, layer in layers.items()}
    conditional = [dataset.tasks[name] for name in layers if dataset.tasks[name].when is not None]
    bundle = Bundle(
        spec=spec,
        blocks={FEATURES: space.dim},
        spaces={FEATURES: space},
        provenance={FEATURES: {}},
        columns=(),
        models=models,
        reference=make_reference(matrix.X, rows, groups=groups, seed=seed),
        about=about,
        conditions={task.name: _condition(dataset, matrix, rows, task, seed=seed) for task in conditional},
    )
    check_columns(bundle)
    return bundle


def _model(task: Task, layer: Layer) -> Model:
    d = layer.coef.shape[1]
    n_classes = len(task.classes)
    head = LinearHead(
        kind=task.kind,
        classes_=np.arange(n_classes),
        fitted=np.arange(n_classes),
        coef=layer.coef,
        intercept=layer.intercept,
        standard=Standardiser(np.zeros(d), np.ones(d)),
        strength=1.0,
        inner_scores=np.empty(0),
        inner_exact=np.empty(0, dtype=bool),
    )
    scores = {name: layer.entry[name] for name in SCORES if name in layer.entry}
    return Model(task, FAMILY, (FEATURES,), CalibratedHead(head, layer.calibration), scores)


def _condition(dataset: Dataset, matrix: FeatureMatrix, rows: Rows, task: Task, *, seed: int) -> Model:
    asked = condition_task(task)
    plan: Plan = make_plan(dataset, matrix, asked, pairs=[(rows, rows[:0])], seed=seed)
    job, X = plan.jobs[0], matrix.X[plan.rows]
    has_both = len(np.unique(job.y[job.train])) == len(CLASSES)
    family = FAMILY if has_both else PRIOR
    fitted = HEADS[family].fit(X, [job], seed=seed)
    [held_out] = HEADS[family].predict_inner(X, [job], fitted)
    calibrated = CalibratedHead(fitted[0], fit_calibration(job, held_out, plan.groups))
    return Model(asked, family, (FEATURES,), calibrated, {})
