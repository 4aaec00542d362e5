"""The network: a branch per block, their features joined and fused, a linear head per task."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from extract import seeded
from finetune.blueprint import Blueprint, Fusion, Output
from finetune.branches import Branch, ImageBranch, Input, MetadataBranch, Named, TextBranch, layers
from finetune.choice import METADATA, choose_parts
from finetune.encoders import Loaded, load_branches
from finetune.settings import FinetuneSettings
from heads import metadata_columns, target_scale
from store import Dataset, InputError, Rows, Task


class Units(nn.Module):
    """From training standard deviations to a regression's own units."""

    mean: Tensor
    scale: Tensor

    def __init__(self, n_outputs: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_outputs))
        self.register_buffer("scale", torch.ones(n_outputs))

    def forward(self, outputs: Tensor) -> Tensor:
        """Return outputs ``(b, t)`` in units."""
        return outputs * self.scale + self.mean


class MultimodalNetwork(nn.Module):
    """The network.

    Attributes:
        blueprint: What it is made of.
        branches: By name.
        joined_dim: How many features all branches have together.
        fusion: From the joined features to what the task heads see.
        heads: A linear layer by task.
        units: By regression task: what its head's outputs are multiplied by and added to.
        notes: What the user should know of how it was made.
    """

    def __init__(self, blueprint: Blueprint, loaded: Sequence[Loaded]) -> None:
        super().__init__()
        self.blueprint = blueprint
        self.notes: list[str] = []
        self.branches = Named((one.plan.name, _branch(one)) for one in loaded)
        fusion = blueprint.fusion
        joined = sum(self.branches[plan.name].dim for plan in blueprint.branches)
        self.joined_dim = joined
        self.fusion = layers(
            joined, fusion.widths, fusion.activation, layer_norm=fusion.layer_norm, dropout=fusion.dropout
        )
        self.dim = fusion.widths[-1] if fusion.widths else joined
        self.heads = Named((task.name, nn.Linear(self.dim, task.n_outputs)) for task in blueprint.tasks)
        self.units = Named((t.name, Units(t.n_outputs)) for t in blueprint.tasks if t.kind == "regression")

    def joined(self, inputs: Mapping[str, Input]) -> Tensor:
        """Return the features of all branches, ``(b, joined_dim)``; `inputs` as `forward`."""
        names = [plan.name for plan in self.blueprint.branches]
        return torch.cat([self.branches[name](inputs[name]) for name in names], dim=1)

    def features(self, inputs: Mapping[str, Input]) -> Tensor:
        """Return what the task heads see, ``(b, dim)``; `inputs` as `forward`."""
        features: Tensor = self.fusion(self.joined(inputs))
        return features

    def forward(self, inputs: Mapping[str, Input]) -> dict[str, Tensor]:
        """Return logits ``(b, c)`` or outputs in the task's units ``(b, t)``, float32, by task.

        Args:
            inputs: By branch: images uint8 or float32 ``(b, h, w, 3 p)`` from 0 to 255; token ids and mask, int64
                ``(b, t)``; metadata float32 ``(b, m)``, NaN where missing.
        """
        features = self.features(inputs)
        outputs = {task.name: self.heads[task.name](features).float() for task in self.blueprint.tasks}
        return {name: self.units[name](out) if name in self.units else out for name, out in outputs.items()}

    def fit_scales(self, dataset: Dataset, rows: Rows) -> None:
        """Take the scales of metadata and regression targets from training rows.

        Raises:
            InputError: A task has no label there, or not every class.
        """
        if METADATA in self.branches:
            columns = metadata_columns(dataset.metadata, self.blueprint.columns)
            self.branches[METADATA].fit(np.stack(list(columns.values()), axis=1)[rows])
        for output in self.blueprint.tasks:
            task = dataset.tasks[output.name]
            known = labelled_rows(task, rows)
            if task.kind == "regression":
                mean, scale = target_scale(task.y[known], sample_weights(task, known))
                self.units[task.name].mean.copy_(torch.from_numpy(mean))
                self.units[task.name].scale.copy_(torch.from_numpy(scale))


def make_network(dataset: Dataset, settings: FinetuneSettings, *, rows: Rows, seed: int) -> MultimodalNetwork:
    """Return the network that the settings describe for a dataset.

    Args:
        dataset: Its blocks become branches, its tasks heads.
        settings: What is to be made of them.
        rows: Training rows: scales of metadata and targets are fitted there.
        seed: Of all random weights.

    Raises:
        InputError: The preset's blocks are not there, an encoder is unknown or its weights out of reach, or the
            training rows lack a class.
    """
    if not dataset.tasks:
        raise InputError("the dataset has no task: add [tasks.NAME] to dataset.toml")
    columns = tuple(metadata_columns(dataset.metadata))
    parts = choose_parts(dataset, settings)
    loaded, notes = load_branches(dataset, parts, settings, n_columns=len(columns), seed=seed)
    plans = tuple(one.plan for one in loaded)
    has_metadata = any(plan.kind == "metadata" for plan in plans)
    blueprint = Blueprint(plans, _fusion(settings), _outputs(dataset), columns if has_metadata else ())
    with seeded(seed):
        network = MultimodalNetwork(blueprint, loaded)
    network.fit_scales(dataset, rows)
    network.notes = notes
    return network


def labelled_rows(task: Task, rows: Rows) -> Rows:
    """Return the training rows that a task learns from.

    Raises:
        InputError: There is none, or none of some class.
    """
    known = rows[task.labelled[rows]]
    if not len(known):
        raise InputError(f"task {task.name!r}: no training row has a label. Label some, or leave it out with --task.")
    lacking = [name for i, name in enumerate(task.classes) if not (task.y[known] == i).any()]
    if lacking:
        raise InputError(
            f"task {task.name!r}: no training row is of class {', '.join(map(repr, lacking))}, so it cannot be learnt. "
            "Label more rows, join rare classes, or leave the task out with --task."
        )
    return known


def sample_weights(task: Task, rows: Rows) -> NDArray[np.float64]:
    """Return sample weights of some labelled rows, ones where there are none."""
    return np.ones(len(rows)) if task.sample_weight is None else task.sample_weight[rows]


def _branch(loaded: Loaded) -> Branch:
    if loaded.encoder is None:
        return MetadataBranch(loaded.plan)
    if loaded.plan.kind == "text":
        return TextBranch(loaded.plan, loaded.encoder, loaded.tokenizer)
    return ImageBranch(loaded.plan, loaded.encoder)


def _fusion(settings: FinetuneSettings) -> Fusion:
    return Fusion(settings.fusion, settings.fusion_activation, settings.fusion_layer_norm, settings.fusion_dropout)


def _outputs(dataset: Dataset) -> tuple[Output, ...]:
    return tuple(
        Output(name, task.kind, len(task.classes) if task.kind == "classification" else len(task.columns))
        for name, task in dataset.tasks.items()
    )
