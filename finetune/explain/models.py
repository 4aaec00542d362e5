"""Bundles as functions that can be differentiated: from a row's pictures to a task's logits or outputs."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from extract import ImageEncoder, Options, encoder_from_space
from finetune.bundle import FinetunedBundle
from finetune.inputs import RowDataset
from finetune.pictures import Change, ImageInput
from heads import Bundle, FeatureMatrix, LinearHead
from store import Dataset, FeatureSpace, ImageBlock, find_block, is_one_crop, view_settings

Inputs = dict[str, Any]


class Explained(Protocol):
    """A bundle with gradients."""

    @property
    def encoders(self) -> Mapping[str, nn.Module]:
        """The network of each input that is a picture, by the input's name."""

    @property
    def others(self) -> tuple[str, ...]:
        """The inputs without gradients, metadata aside."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that have gradients."""

    def read(self, row: int) -> Inputs:
        """Return one row's inputs; pictures are uint8 ``(1, h, w, 3 p)``.

        The row can be read: it has a prediction.
        """

    def outputs(self, inputs: Inputs) -> dict[str, Tensor]:
        """Return logits ``(b, c)`` or outputs ``(b, t)`` by task; pictures may be float32."""


class TunedModel:
    """A fine-tuned network on some rows."""

    def __init__(self, bundle: FinetunedBundle, dataset: Dataset) -> None:
        network = bundle.network
        self._network, self._dataset = network, dataset
        images = [plan.name for plan in network.blueprint.branches if plan.kind == "image"]
        self.encoders = {name: network.branches[name].encoder for name in images}
        self.others = tuple(f"text:{plan.name}" for plan in network.blueprint.branches if plan.kind == "text")
        self.tasks = tuple(task.name for task in network.blueprint.tasks)

    def read(self, row: int) -> Inputs:
        """As `Explained` says."""
        return RowDataset(self._dataset, self._network, np.array([row]))[0, 0].inputs

    def outputs(self, inputs: Inputs) -> dict[str, Tensor]:
        """As `Explained` says."""
        found: dict[str, Tensor] = self._network(inputs)
        return found


class FrozenModel:
    """Linear heads on the vectors of frozen networks; what has no gradient keeps the value it has in the matrix."""

    def __init__(self, bundle: Bundle, dataset: Dataset, matrix: FeatureMatrix, options: Options) -> None:
        self._vectors = torch.from_numpy(bundle.aligned(matrix))
        self._slices = bundle.slices()
        self._heads = {
            name: _Affine(model.fitted.head, bundle.select(model.blocks))
            for name, model in bundle.models.items()
            if isinstance(model.fitted.head, LinearHead)
        }
        self.tasks = tuple(self._heads)
        self._modules, self._images = {}, {}
        for name, space in bundle.spaces.items():
            if space.modality == "image" and is_one_crop(view_settings(space)):
                encoder = encoder_from_space(space, bundle.provenance[name], options)
                if isinstance(encoder, ImageEncoder):
                    self._modules[name] = encoder.runner.module
                    self._images[name] = _image_input(dataset, name, space)
        self.encoders = {name: module.get_submodule("network") for name, module in self._modules.items()}
        self.others = tuple(name for name in bundle.spaces if name not in self.encoders)

    def read(self, row: int) -> Inputs:
        """As `Explained` says."""
        pixels = {name: torch.from_numpy(image.begin(row)[0])[None] for name, image in self._images.items()}
        return {"": self._vectors[row][None], **pixels}

    def outputs(self, inputs: Inputs) -> dict[str, Tensor]:
        """As `Explained` says."""
        b = max(len(value) for value in inputs.values())
        parts = [
            self._modules[name](inputs[name]) if name in self._modules else inputs[""][:, place].expand(b, -1)
            for name, place in self._slices.items()
        ]
        X = torch.cat(parts, dim=1)
        return {name: head(X) for name, head in self._heads.items()}


class _Affine(nn.Module):
    """A linear head on raw columns, NaN where missing; a class that it was not fitted on is out of the question."""

    def __init__(self, head: LinearHead, columns: NDArray[np.int64]) -> None:
        super().__init__()
        self._columns = torch.from_numpy(columns)
        self._mean, self._scale, self._coef, self._intercept = (
            torch.from_numpy(np.asarray(array, np.float32))
            for array in (head.standard.mean, head.standard.scale, head.coef, head.intercept)
        )
        self._fitted, self._n_classes = torch.from_numpy(head.fitted), len(head.classes_)

    def forward(self, X: Tensor) -> Tensor:
        """Return logits ``(b, c)`` or outputs ``(b, t)``."""
        Z = ((X[:, self._columns] - self._mean) / self._scale).nan_to_num(nan=0.0)
        found = Z @ self._coef.T + self._intercept
        if not self._n_classes:
            return found
        logits = found.new_full((len(found), self._n_classes), -torch.inf)
        return logits.index_copy(1, self._fitted, found)


def _image_input(dataset: Dataset, name: str, space: FeatureSpace) -> ImageInput:
    block = find_block(dataset, name.partition("@")[0])
    assert isinstance(block, ImageBlock)  # its name begins with image:
    return ImageInput([block], space.preprocess, Change())
