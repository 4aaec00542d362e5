"""Datasets made of arrays and a text network of one layer, for networks that read no files."""

from pathlib import Path

import numpy as np
import torch

from extract import seeded
from finetune.network import MultimodalNetwork, make_network
from finetune.settings import read_settings
from store import Dataset, ImageBlock, MetadataColumn, TextBlock
from tests.heads.made import classes, dataset, numbers

N = 12
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "powder", "flow", "##able", "rods", "and", "tubes", "of"]


def text_folder(path: Path, *, dim: int = 16) -> Path:
    """Write a one-layer DistilBERT with seeded weights and thirteen word pieces."""
    from transformers import BertTokenizerFast, DistilBertConfig, DistilBertModel

    config = DistilBertConfig(
        vocab_size=len(WORDS), dim=dim, n_layers=1, n_heads=2, hidden_dim=32, max_position_embeddings=24
    )
    with seeded(0):
        DistilBertModel(config).save_pretrained(path)
    BertTokenizerFast(vocab={word: i for i, word in enumerate(WORDS)}).save_pretrained(path)
    return path


def image(name: str, view: str = "plain", parts: tuple[ImageBlock, ...] = ()) -> ImageBlock:
    return ImageBlock(name, (None,) * N, None if view == "fourier" or parts else "none", view=view, parts=parts)


def data(*images: ImageBlock, texts: tuple[str, ...] = (), metadata: bool = False, tasks: tuple = ()) -> Dataset:
    """Twelve rows; two magnifications, one of them missing, and an instrument."""
    magnification = np.array([100.0, 400.0] * 5 + [np.nan, 100.0])
    numeric = MetadataColumn("magnification", "numeric", magnification, "log")
    return dataset(
        *(tasks or (classes([0, 1, 2] * 4), numbers(np.arange(24.0).reshape(12, 2), columns=("u", "v")))),
        n=N,
        images={block.name: block for block in images},
        texts={name: TextBlock(name, ("a powder",) * N) for name in texts},
        metadata={"magnification": numeric} if metadata else {},
    )


def network(of: Dataset, *assignments: str, seed: int = 0, **table: object) -> MultimodalNetwork:
    """A network with random weights, on all rows; test_resnet unless another backbone is named."""
    settings = read_settings({"weights": "random", "backbone": "test_resnet", **table}, assignments)
    return make_network(of, settings, rows=np.arange(N), seed=seed)


def pixels(n: int = 2, size_px: int = 64, channels: int = 3, seed: int = 0) -> torch.Tensor:
    """uint8 (n, size_px, size_px, channels)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, size_px, size_px, channels), dtype=torch.uint8, generator=generator)
