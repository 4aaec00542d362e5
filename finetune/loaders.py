"""Loaders of training rows, of the rows that choose the best epoch, and of rows to be scored."""

from dataclasses import dataclass
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader

from finetune.augment import is_off
from finetune.freezing import batch_norms
from finetune.inputs import Batch, Network, RowDataset
from finetune.pictures import Change
from finetune.sampling import EpochBatches, row_weights
from finetune.settings import AugmentSettings, FinetuneSettings
from store import Dataset, ImageBlock, InputError, Progress, Rows

Loader = DataLoader[Batch]


@dataclass(frozen=True)
class Loaders:
    """Training and stop loaders; `left_out` says why rows cannot be used, by row id."""

    train: Loader
    stop: Loader
    left_out: dict[str, str]


@dataclass(frozen=True)
class Scoring:
    """A loader that keeps the order of the rows; `left_out` says why rows cannot be used, by row id."""

    loader: Loader
    left_out: dict[str, str]


def make_loaders(
    dataset: Dataset,
    network: Network,
    settings: FinetuneSettings,
    *,
    train: Rows,
    stop: Rows,
    seed: int,
    batch_size: int,
    workers: int = 0,
    progress: Progress | None = None,
) -> Loaders:
    """Return loaders of training rows, augmented and shuffled, and of stop rows, as they are and in order.

    Args:
        dataset: Whose rows.
        network: What they are for.
        settings: Augmentation, conversion and sampling.
        train: Training rows; the order of an epoch, and all draws, depend on `seed`, the epoch and the row alone.
        stop: Rows that choose the best epoch.
        seed: Of order and draws.
        batch_size: Rows per batch; the last may be smaller, or one larger where batch norm cannot take a single row.
        workers: Processes that prepare batches; 0 for this one.
        progress: Called while images are first read.

    Raises:
        InputError: No training row can be used, a batch of one with batch norm, or mixing where it has no meaning.
    """
    check_mixing(dataset, network, settings.augment)
    change = Change(None if is_off(settings.augment) else settings.augment, settings.convert == "random", seed)
    made = RowDataset(dataset, network, train, change=change, progress=progress)
    least = least_batch(network, len(made), batch_size)
    weights = row_weights(dataset.tasks, made.rows, settings.sampling)
    batches = EpochBatches(len(made), batch_size=batch_size, seed=seed, weights=weights, least=least, is_training=True)
    scoring = score_loader(dataset, network, stop, batch_size=batch_size, workers=workers, progress=progress)
    return Loaders(_loader(made, batches, workers), scoring.loader, made.left_out | scoring.left_out)


def score_loader(
    dataset: Dataset,
    network: Network,
    rows: Rows,
    *,
    batch_size: int,
    workers: int = 0,
    progress: Progress | None = None,
) -> Scoring:
    """Return a loader of rows in their order, equal to what extraction feeds the same backbones."""
    made = RowDataset(dataset, network, rows, progress=progress)
    return Scoring(_loader(made, EpochBatches(len(made), batch_size=batch_size), workers), made.left_out)


def _loader(rows: RowDataset, batches: EpochBatches, workers: int) -> Loader:
    if workers:
        cv2.setNumThreads(0)  # a forked process stands still at its first call that would use OpenCV's threads
    return DataLoader(
        rows,
        batch_sampler=batches,
        collate_fn=_as_it_is,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def _as_it_is(batch: Any) -> Any:
    """Return what the row dataset gives, which is a batch already."""
    return batch


def check_mixing(dataset: Dataset, network: Network, settings: AugmentSettings) -> None:
    """Raise where MixUp or CutMix has no meaning: tokens cannot be blended, and a spectrum has no places."""
    if settings.mixup <= 0 and settings.cutmix <= 0:
        return
    for branch in network.blueprint.branches:
        seen = [part for name in branch.blocks if branch.kind == "image" for part in _views(dataset.images[name])]
        if branch.kind == "text" or "fourier" in seen:
            what = "texts cannot be blended" if branch.kind == "text" else "a spectrum cannot be cut or blended"
            raise InputError(
                f"augment.mixup and augment.cutmix do not go with branch '{branch.name}': {what}. Set both to 0, or "
                "leave the branch out with --set blocks"
            )


def _views(block: ImageBlock) -> list[str]:
    return [part.view for part in block.parts or (block,)]


def least_batch(network: Network, n_rows: int, batch_size: int) -> int:
    """Return how many rows a batch has at least: batch norm cannot take a single one."""
    if n_rows == 0:
        raise InputError(
            "no training row can be used: each lacks an image or a text that the network takes, or its image cannot "
            "be read; run check"
        )
    if not batch_norms(network):
        return 1
    if batch_size == 1 or n_rows == 1:
        few = "batch_size = 1 gives" if batch_size == 1 else "one training row gives"
        raise InputError(
            f"{few} batches of one, of which batch norm learns nothing: set batch_size to 2 or more, or take a network "
            "without batch norm"
        )
    return 2
