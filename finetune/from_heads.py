"""Start from the heads: a network's task heads become the linear solution on its own untrained features.

Linear probe, then fine-tune (Kumar et al. 2022, arXiv 2202.10054): random task heads would first bend the features.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from extract import (
    Backbone,
    Encoder,
    ImageEncoder,
    Language,
    Runtime,
    TextEncoder,
    extract_features,
    image_space,
    text_space,
)
from finetune.blueprint import BranchPlan
from finetune.choice import METADATA
from finetune.network import MultimodalNetwork
from finetune.settings import FinetuneSettings
from heads import ABSENT, MISSING, FeatureMatrix, Sweep, load_matrix_like
from store import Dataset, FeatureSpace, FeatureStore, ImageBlock, InputError, Rows, view_settings

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Linear:
    """A linear model on raw columns.

    Attributes:
        weight: ``(k, d)``, columns as the matrix has them.
        bias: ``(k,)``.
        mean: ``(d,)``: what stands in for a missing value.
        fitted: Of a classification, the classes in the order of the rows.
    """

    weight: Floats
    bias: Floats
    mean: Floats
    fitted: NDArray[np.int64]


def begin_from_heads(
    network: MultimodalNetwork,
    sweep: Sweep,
    store: FeatureStore,
    settings: FinetuneSettings,
    *,
    rows: Rows,
    runtime: Runtime | None = None,
) -> str:
    """Give the task heads the linear solution of some rows, where the settings want that, and say what was done.

    Args:
        network: Its encoders still as they were loaded; changed in place.
        sweep: Its dataset, tasks and seed; its features, as far as they are those of the network's encoders.
        store: Gets the vectors that the sweep does not have: the run's own, so that the dataset's keeps what `extract`
            made.
        settings: `init` decides.
        rows: Training rows.
        runtime: Where encoders run.

    Raises:
        InputError: ``init = "heads"``, and the network is not linear over its encoders' features.
    """
    check_init(network, settings)
    if (reason := why_not(network, settings)) is not None:
        return f"task heads start from random numbers: {reason}"
    sweep = _with_features(network, sweep, store, runtime or Runtime())
    blocks = tuple(sorted(sweep.matrix.blocks))
    plans = [sweep.plan(task.name, [(rows, rows[:0])]) for task in network.blueprint.tasks]
    for plan, [found] in zip(plans, sweep.fit(plans, blocks, "linear"), strict=True):
        _set_head(network, plan.task.name, sweep.matrix, _linear(found.state()[1], sweep.matrix, blocks))
    return f"task heads start from the linear solution of {len(rows)} training rows"


def check_init(network: MultimodalNetwork, settings: FinetuneSettings) -> None:
    """Raise an `InputError` where ``init = "heads"`` is asked for, and layers lie between encoders and heads."""
    if settings.init == "heads" and not is_linear(network):
        raise InputError(
            "[finetune]: init = 'heads' is for a network whose task heads see the encoders' features as they are: "
            "take away widths, hidden layers, layer_norm and fusion, or set init = 'auto'"
        )


def why_not(network: MultimodalNetwork, settings: FinetuneSettings) -> str | None:
    """Return why a network does not start from the heads; None where it does.

    Features of encoders that were never trained change at once, so that a solution on them is worse than none.
    """
    if settings.init == "backbone":
        return "init = backbone"
    if not is_linear(network):
        return "between encoders and heads are layers that no sweep has fitted"
    plans = [plan for plan in network.blueprint.branches if plan.encoder is not None]
    if settings.init == "auto" and any(plan.settings.weights == "random" for plan in plans):
        return "an encoder was never trained"
    return None


def is_linear(network: MultimodalNetwork) -> bool:
    """Whether the task heads see the encoders' features as they are."""
    branches = [network.branches[plan.name] for plan in network.blueprint.branches]
    between = [network.fusion, *(branch.projection for branch in branches)]
    return all(isinstance(layer, nn.Dropout) for part in between for layer in part)


def _with_features(network: MultimodalNetwork, sweep: Sweep, store: FeatureStore, runtime: Runtime) -> Sweep:
    """Return the sweep with a matrix of exactly the network's features, embedding what it does not have."""
    plans = [plan for plan in network.blueprint.branches if plan.kind != "metadata"]
    dataset = _with_stacks(sweep.dataset, plans)
    encoders = {_block(plan): _encoder(network, plan, dataset, runtime, seed=sweep.seed) for plan in plans}
    known = {block: name for block, encoder in encoders.items() if (name := _found(sweep.matrix, block, encoder.space))}
    unknown = {block: encoder for block, encoder in encoders.items() if block not in known}
    if unknown:
        extract_features(dataset, {block: [encoder] for block, encoder in unknown.items()}, store)
    spaces = {f"{block}@{encoder.space.encoder}": encoder.space for block, encoder in unknown.items()}
    matrix = load_matrix_like(dataset, store, spaces=spaces, columns=network.blueprint.columns)
    taken = {f"{block}@{encoders[block].space.encoder}": name for block, name in known.items()}
    return replace(sweep, matrix=_joined(matrix, sweep.matrix, taken), blocks=())


def _found(matrix: FeatureMatrix, block: str, space: FeatureSpace) -> str | None:
    """Return what a matrix calls the vectors of a block in a space; None where it has none."""
    own = (name for name in matrix.spaces if name.startswith((f"{block}@", f"{block}.")))
    return next((name for name in own if matrix.spaces[name].fingerprint == space.fingerprint), None)


def _joined(matrix: FeatureMatrix, other: FeatureMatrix, taken: Mapping[str, str]) -> FeatureMatrix:
    """Return a matrix with some vectors of another matrix of the same rows, by the name to have and the name there."""
    parts = {name: other.X[:, other.blocks[there]] for name, there in taken.items()}
    ends = np.cumsum([matrix.X.shape[1], *(part.shape[1] for part in parts.values())])
    places = {name: slice(int(a), int(b)) for name, a, b in zip(parts, ends[:-1], ends[1:], strict=True)}
    complete = matrix.complete.copy()
    for part in parts.values():
        complete &= ~np.isnan(part[:, 0])
    return replace(
        matrix,
        X=np.concatenate([matrix.X, *parts.values()], axis=1),
        blocks={**matrix.blocks, **places},
        complete=complete,
        spaces={**matrix.spaces, **{name: other.spaces[there] for name, there in taken.items()}},
        provenance={**matrix.provenance, **{name: other.provenance.get(there, {}) for name, there in taken.items()}},
    )


def _with_stacks(dataset: Dataset, plans: list[BranchPlan]) -> Dataset:
    """Return the dataset with the blocks that the network stacks as one block."""
    images = dict(dataset.images)
    for plan in plans:
        if len(plan.blocks) > 1:
            parts = tuple(dataset.images[name] for name in plan.blocks)
            rows = zip(*(part.refs for part in parts), strict=True)
            refs = tuple(None if None in row else row[0] for row in rows)
            images[plan.name] = ImageBlock(plan.name, refs, None, parts=parts)
    return replace(dataset, images=images)


def _block(plan: BranchPlan) -> str:
    return f"{plan.kind}:{plan.name}"


def _encoder(network: MultimodalNetwork, plan: BranchPlan, dataset: Dataset, runtime: Runtime, *, seed: int) -> Encoder:
    """Return a branch's encoder as extraction knows it; of a copy, for running it may move it to another device."""
    branch = network.branches[plan.name]
    module = copy.deepcopy(branch.encoder).eval()
    chosen = network.blueprint.branch(plan.shares or plan.name).settings
    provenance = {"name": chosen.encoder, "weights": chosen.weights, "seed": seed, "source": plan.source}
    preprocess = plan.preprocess or {}
    if plan.kind == "text":
        language = Language(module, branch.tokenizer, plan.encoder, preprocess, plan.pooling, plan.dim, plan.source)
        return TextEncoder(language, text_space(language, precision="float32"), provenance=provenance, runtime=runtime)
    backbone = Backbone(module, plan.encoder, preprocess, plan.pooling, plan.source, plan.in_chans)
    space: FeatureSpace = image_space(backbone, view_settings(dataset.images[plan.name]), precision="float32")
    return ImageEncoder(backbone, space, provenance=provenance, runtime=runtime)


def _linear(arrays: Mapping[str, NDArray[np.float64] | str], matrix: FeatureMatrix, blocks: tuple[str, ...]) -> Linear:
    """Fold the standardisation into the weights, and sum those of columns that the head saw several times."""
    coef, intercept, mean, scale, fitted = (
        np.asarray(arrays[name]) for name in ("coef", "intercept", "mean", "scale", "fitted")
    )
    columns = matrix.select(blocks)
    per_unit = coef / scale
    weight, means = np.zeros((len(coef), matrix.X.shape[1])), np.zeros(matrix.X.shape[1])
    np.add.at(weight.T, columns, per_unit.T)
    means[columns] = mean
    return Linear(weight, intercept - per_unit @ mean, means, fitted)


def _set_head(network: MultimodalNetwork, task: str, matrix: FeatureMatrix, linear: Linear) -> None:
    """Put a linear model of raw columns into a task's head."""
    parts, bias = [], linear.bias
    for plan in network.blueprint.branches:
        part = matrix.blocks[METADATA if plan.kind == "metadata" else f"{_block(plan)}@{plan.encoder}"]
        weight = linear.weight[:, part]
        if plan.kind == "metadata":
            weight, shift = _of_standardised(network, matrix, weight, linear.mean[part])
            bias = bias + shift
        parts.append(weight)
    weight = np.concatenate(parts, axis=1)
    if task in network.units:
        mean, scale = (getattr(network.units[task], name).double().numpy() for name in ("mean", "scale"))
        weight, bias = weight / scale[:, None], (bias - mean) / scale
    else:
        weight, bias = _of_all_classes(weight, bias, linear.fitted, network.heads[task].out_features)
    with torch.no_grad():
        network.heads[task].weight.copy_(torch.from_numpy(weight))
        network.heads[task].bias.copy_(torch.from_numpy(bias))


def _of_standardised(
    network: MultimodalNetwork, matrix: FeatureMatrix, weight: Floats, means: Floats
) -> tuple[Floats, Floats]:
    """Return weights ``(k, m)`` per unit of what the metadata branch gives, and what that adds to the bias ``(k,)``.

    A missing number is the mean of the training rows to the network, and of the task's own rows to the head. The
    column that says it is missing makes up for the difference.
    """
    branch = network.branches[METADATA]
    mean, per_unit = branch.mean.double().numpy(), branch.per_unit.double().numpy()
    weight = weight.copy()
    for j, name in enumerate(matrix.columns):
        if name + MISSING in matrix.columns:
            weight[:, matrix.columns.index(name + MISSING)] += weight[:, j] * (means[j] - mean[j])
    varies = per_unit > 0
    return np.where(varies, weight / np.where(varies, per_unit, 1), 0), weight @ mean


def _of_all_classes(weight: Floats, bias: Floats, fitted: NDArray[np.int64], n_classes: int) -> tuple[Floats, Floats]:
    """Return weights and bias of all classes; one that no row with features had is next to impossible."""
    full, added = np.zeros((n_classes, weight.shape[1])), np.full(n_classes, bias.min() + np.log(ABSENT))
    full[fitted], added[fitted] = weight, bias
    return full, added
