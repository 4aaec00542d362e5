"""Branches: one block each, from pixels, tokens or numbers to features."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from extract import pool_tokens, with_normalisation
from finetune.blueprint import BranchPlan
from finetune.settings import Activation
from heads import standardise

Input = Tensor | tuple[Tensor, Tensor]
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "none": nn.Identity}


class Branch(nn.Module):
    """What all branches have.

    Attributes:
        encoder: The library's own headless network; None for metadata. One that another branch owns is no part of this
            one's parameters.
        projection: What follows.
        dim: d of the features.
    """

    encoder: nn.Module | None

    def __init__(self, plan: BranchPlan) -> None:
        super().__init__()
        own = plan.settings
        widths = (*own.hidden, own.width) if own.width is not None else own.hidden
        self.projection = layers(plan.dim, widths, own.activation, layer_norm=own.layer_norm, dropout=own.dropout)
        self.dim = widths[-1] if widths else plan.dim

    def _use(self, encoder: nn.Module, *, is_own: bool) -> None:
        if is_own:
            self.encoder = encoder
        else:
            object.__setattr__(self, "encoder", encoder)


class ImageBranch(Branch):
    """Images through a backbone."""

    encoder: nn.Module

    def __init__(self, plan: BranchPlan, encoder: nn.Module) -> None:
        super().__init__(plan)
        self._use(encoder, is_own=plan.shares is None)
        self.normalise = with_normalisation(nn.Identity(), plan.preprocess or {}, plan.in_chans // 3)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return ``(b, d)`` of uint8 or float32 ``(b, h, w, 3 p)`` from 0 to 255."""
        features: Tensor = self.projection(self.encoder(self.normalise(pixels)))
        return features


class TextBranch(Branch):
    """Texts through a transformer.

    Attributes:
        tokenizer: Of transformers, what makes the tokens.
    """

    encoder: nn.Module

    def __init__(self, plan: BranchPlan, encoder: nn.Module, tokenizer: Any) -> None:
        super().__init__(plan)
        self._use(encoder, is_own=plan.shares is None)
        self.pooling, self.tokenizer = plan.pooling, tokenizer

    def forward(self, tokens: tuple[Tensor, Tensor]) -> Tensor:
        """Return ``(b, d)`` of token ids and mask, int64 ``(b, t)``."""
        ids, mask = tokens
        vectors = self.encoder(input_ids=ids, attention_mask=mask, return_dict=False)[0]
        features: Tensor = self.projection(pool_tokens(vectors, mask, self.pooling))
        return features


class MetadataBranch(Branch):
    """Numbers through a small network, standardised as the training rows are."""

    mean: Tensor
    per_unit: Tensor

    def __init__(self, plan: BranchPlan) -> None:
        super().__init__(plan)
        self.encoder = None
        self.register_buffer("mean", torch.zeros(plan.dim))
        self.register_buffer("per_unit", torch.ones(plan.dim))

    def fit(self, X: NDArray[np.float32]) -> None:
        """Take mean and scale from training rows ``(n, m)``, NaN skipped; a column that does not vary becomes 0."""
        found = standardise(X, np.arange(len(X)))
        self.mean.copy_(torch.from_numpy(found.mean))
        self.per_unit.copy_(torch.from_numpy(1 / found.scale))

    def forward(self, values: Tensor) -> Tensor:
        """Return ``(b, d)`` of float32 ``(b, m)``, NaN where missing, which becomes the mean."""
        standardised = ((values - self.mean) * self.per_unit).nan_to_num(nan=0.0)
        features: Tensor = self.projection(standardised)
        return features


class Named(nn.ModuleDict):
    """Modules by names of the dataset, which may have dots or be the name of a method."""

    def __init__(self, modules: Iterable[tuple[str, nn.Module]]) -> None:
        super().__init__({module_key(name): module for name, module in modules})

    def __getitem__(self, name: str) -> Any:
        return super().__getitem__(module_key(name))

    def __contains__(self, name: object) -> bool:
        return super().__contains__(module_key(str(name)))


def module_key(name: str) -> str:
    """Return what torch can call the module of that name."""
    key = name.replace(".", ":")
    return f"{key}:" if hasattr(nn.ModuleDict, key) or key == "training" else key


def layers(
    n_in: int, widths: Sequence[int], activation: Activation, *, layer_norm: bool, dropout: float
) -> nn.Sequential:
    """Return linear layers of these widths, each with activation, LayerNorm and dropout; without any, the last two."""
    made: list[nn.Module] = []
    for n_out in widths:
        made += [nn.Linear(n_in, n_out), ACTIVATIONS[activation](), *_after(n_out, layer_norm, dropout)]
        n_in = n_out
    return nn.Sequential(*(made or _after(n_in, layer_norm, dropout)))


def _after(width: int, layer_norm: bool, dropout: float) -> list[nn.Module]:
    return [nn.LayerNorm(width)] * layer_norm + [nn.Dropout(dropout)] * (dropout > 0)
