"""What is wrong with a run, found before anything is embedded or trained."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from extract import Device
from finetune.checkpoint import ABOUT, CHECKPOINTS, LAST, about_fit, check_about, read_checkpoint
from finetune.device import choose_precision
from finetune.division import Fit, plan_fits, with_tasks
from finetune.encoders import FROM_SCRATCH, check_encoders
from finetune.from_heads import check_init
from finetune.loaders import check_mixing, least_batch
from finetune.loss import TaskLosses
from finetune.network import MultimodalNetwork, labelled_rows, make_network
from finetune.optimise import make_optimizer
from finetune.pictures import check_whole
from finetune.settings import FinetuneSettings, check_task_names
from store import Dataset, Split

ENOUGH = 2  # what an automatic batch has at least


@dataclass(frozen=True)
class Ready:
    """A run that can begin.

    Attributes:
        encoders: What training starts from, as (name, weights); those from scratch, whose features say little, are not
            among them.
        notes: What the user should know of the network.
    """

    encoders: list[tuple[str, str]]
    notes: list[str]


def check_choice(dataset: Dataset, settings: FinetuneSettings, tasks: Sequence[str] = ()) -> None:
    """Raise for names of blocks, encoders and tasks that are not there: what can be known where nothing is loaded.

    Args:
        dataset: What a run elsewhere will be trained on.
        settings: All that is chosen.
        tasks: Names; all by default.

    Raises:
        InputError: With the nearest name.
    """
    check_encoders(dataset, settings)
    check_task_names(settings, with_tasks(dataset, tasks).tasks)


def check_run(
    dataset: Dataset,
    split: Split,
    settings: FinetuneSettings,
    *,
    folder: Path,
    tasks: Sequence[str] = (),
    fold: int | None = None,
    final: bool = False,
    resume: bool = False,
    seed: int = 0,
    device: Device = "auto",
) -> Ready:
    """Raise for what a run would stumble over later, having read no image and trained nothing.

    Args:
        dataset: As it will be trained on.
        split: Its folds, or train and val.
        settings: All that is chosen.
        folder: The run's.
        tasks: Names; all by default.
        fold: Score this one alone.
        final: Score the test rows.
        resume: Go on from checkpoints.
        seed: Of random weights, and of what is kept out of training.
        device: Where it will train.

    Raises:
        InputError: No such device; blocks, encoders, weights, layers or tasks that are not there or do not go together;
            a training part that lacks a class; a batch of one with batch norm; a checkpoint of another run.
    """
    choose_precision(settings, device)
    dataset = with_tasks(dataset, tasks)
    fits = plan_fits(dataset, split, fold=fold, final=final, seed=seed)
    network = make_network(dataset, settings, rows=fits[0].train, seed=seed)
    for fit in fits:
        for task in dataset.tasks.values():
            labelled_rows(task, fit.train)
        if resume:
            _check_checkpoint(folder / fit.folder / CHECKPOINTS / LAST, dataset, network, settings, fit, seed)
    _check_settings(dataset, network, settings, fits[0])
    plans = [plan for plan in network.blueprint.branches if plan.encoder and plan.settings.encoder != FROM_SCRATCH]
    encoders = [(str(plan.settings.encoder), str(plan.settings.weights)) for plan in plans]
    return Ready(list(dict.fromkeys(encoders)), network.notes)


def _check_settings(dataset: Dataset, network: MultimodalNetwork, settings: FinetuneSettings, fit: Fit) -> None:
    """Raise for settings that do not fit the network or the tasks."""
    for plan in network.blueprint.branches:
        if plan.kind == "image":
            check_whole([dataset.images[name] for name in plan.blocks])
    check_init(network, settings)
    losses = TaskLosses(list(dataset.tasks.values()), settings, rows=fit.train)
    make_optimizer(network, settings, losses.parameters())
    check_task_names(settings, dataset.tasks)
    check_mixing(dataset, network, settings.augment)
    size = settings.batch_size
    least_batch(network, len(fit.train), size if isinstance(size, int) else ENOUGH)


def _check_checkpoint(
    path: Path, dataset: Dataset, network: MultimodalNetwork, settings: FinetuneSettings, fit: Fit, seed: int
) -> None:
    if path.exists():
        rows = np.concatenate([fit.train, fit.stop])
        about = about_fit(dataset, network, settings, rows=rows, seed=seed, batch_size=ENOUGH)
        check_about(path, read_checkpoint(path)[ABOUT], about)
