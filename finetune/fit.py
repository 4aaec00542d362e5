"""One network trained on one part of the rows, stopped by another."""

import shutil
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from extract import Device, resolve_device
from finetune.callbacks import (
    CURVES,
    METRICS,
    best_epoch,
    make_callbacks,
)
from finetune.checkpoint import ABOUT, BEST, CHECKPOINTS, LAST, NEXT, about_fit, check_about, read_checkpoint
from finetune.device import is_main_process, n_workers
from finetune.listener import NOBODY, Listener
from finetune.loaders import make_loaders
from finetune.module import FinetuneModule
from finetune.network import MultimodalNetwork, make_network
from finetune.settings import FinetuneSettings
from finetune.trainer import TENSORBOARD, make_trainer, train
from store import Dataset, InputError

CPU_BATCH, GPU_BATCH = 32, 256  # what ``batch_size = "auto"`` begins with; halved where memory runs out

Begin = Callable[[MultimodalNetwork], None]


@dataclass(frozen=True)
class Training:
    """What is fitted, and where it is kept.

    Attributes:
        dataset: Whose rows.
        settings: All that is chosen.
        train: Training rows.
        stop: Rows kept out of training: they choose the best epoch.
        folder: Gets checkpoints/, metrics.csv, curves.png and TensorBoard's events.
        seed: Of weights, order, augmentation and dropout.
        device: Where to train.
    """

    dataset: Dataset
    settings: FinetuneSettings
    train: NDArray[np.int64]
    stop: NDArray[np.int64]
    folder: Path
    seed: int
    device: Device = "auto"

    @property
    def last(self) -> Path:
        """The checkpoint that a killed run goes on from."""
        return self.folder / CHECKPOINTS / LAST


@dataclass(frozen=True)
class Fitted:
    """A trained network.

    Attributes:
        network: In evaluation mode on the CPU, with the weights of the best epoch.
        history: A row per epoch.
        best_epoch: Counted from 1.
        seconds: Of all epochs, earlier runs included.
        left_out: Why rows were not used, by row id.
        batch_size: What it was trained with.
    """

    network: MultimodalNetwork
    history: list[dict[str, float]]
    best_epoch: int
    seconds: float
    left_out: dict[str, str]
    batch_size: int


def fit_fold(
    training: Training,
    *,
    begin: Begin | None = None,
    resume: bool = False,
    listener: Listener = NOBODY,
) -> Fitted:
    """Train one network and return it with the weights of its best epoch.

    Args:
        training: What and where.
        begin: Changes the network before the first step, such as to start from a linear solution.
        resume: Go on from the last checkpoint; without any, begin anew.
        listener: Hears of batches, epochs, and how it was made.

    Raises:
        InputError: No such device, a checkpoint of another run, a loss that is not a number, too little memory.
        Stopped: Training was ended from outside.
    """
    is_cuda = resolve_device(training.device) == "cuda"
    saved = read_checkpoint(training.last) if resume and training.last.exists() else None
    if saved is None and is_main_process() and (line := _beginning(training, resume=resume)):
        listener.say(line)
    asked = training.settings.batch_size
    size = saved[ABOUT]["batch_size"] if saved else (GPU_BATCH if is_cuda else CPU_BATCH) if asked == "auto" else asked
    while True:
        try:
            return _fit(training, saved, begin, size, listener)
        except torch.OutOfMemoryError:
            if asked != "auto" or size == 1:
                raise InputError(_too_large(size, training.settings)) from None
        torch.cuda.empty_cache()
        saved, size = None, size // 2
        listener.say(f"batches of {2 * size} do not fit into the GPU's memory: trying {size}")


def _fit(
    training: Training,
    saved: dict[str, Any] | None,
    begin: Begin | None,
    batch_size: int,
    listener: Listener,
) -> Fitted:
    """Train from `saved`, or from the beginning."""
    dataset, settings, seed = training.dataset, training.settings, training.seed
    network = make_network(dataset, settings, rows=training.train, seed=seed)
    rows = np.concatenate([training.train, training.stop])
    about = about_fit(dataset, network, settings, rows=rows, seed=seed, batch_size=batch_size)
    if saved is not None:
        check_about(training.last, saved[ABOUT], about)
        if is_main_process():
            listener.say(_going_on(training, saved))
    else:
        if is_main_process():
            _clear(training.folder)
        if begin is not None and is_main_process():  # the other processes get its weights
            begin(network)
    loaders = make_loaders(
        dataset,
        network,
        settings,
        train=training.train,
        stop=training.stop,
        seed=seed,
        batch_size=batch_size,
        workers=n_workers(settings, training.device),
    )
    if not len(loaders.stop):
        raise InputError("no row that is kept out of training to choose the best epoch can be used; run check")
    if saved is not None:
        batches: Any = loaders.train.batch_sampler
        epoch, n_done = saved[NEXT]
        batches.set_epoch(epoch)
        batches.skip(n_done)
    tasks = {task.name: dataset.tasks[task.name] for task in network.blueprint.tasks}
    module = FinetuneModule(network, settings, tasks, ids=dataset.ids, train=training.train, seed=seed)
    callbacks = make_callbacks(settings, training.folder, about, listener)
    trainer = make_trainer(settings, training.folder, callbacks, device=training.device)
    train(trainer, module, loaders, training.last if saved is not None else None)
    return _fitted(training, module, loaders.left_out, batch_size)


def _fitted(training: Training, module: FinetuneModule, left_out: dict[str, str], batch_size: int) -> Fitted:
    state = read_checkpoint(training.folder / CHECKPOINTS / BEST)["state_dict"]
    network = module.network.cpu()
    start = "network."
    network.load_state_dict({k.removeprefix(start): v for k, v in state.items() if k.startswith(start)})
    seconds = sum(row["seconds"] for row in module.history)
    return Fitted(network.eval(), module.history, best_epoch(module.history), seconds, left_out, batch_size)


def _beginning(training: Training, *, resume: bool) -> str | None:
    """Return in words what a run that begins anew does with what it finds."""
    if resume:
        return f"{training.folder}: there is no checkpoint to resume from: beginning at epoch 1"
    if training.last.exists():
        return f"{training.folder}: replacing an earlier run's checkpoints and curves (--resume would go on from them)"
    return None


def _going_on(training: Training, saved: dict[str, Any]) -> str:
    """Return in words where a checkpoint goes on."""
    history, (epoch, n_done), n_epochs = saved["history"], saved[NEXT], training.settings.max_epochs
    best = best_epoch(history) if history else 0
    if epoch >= n_epochs or (not n_done and len(history) - best >= training.settings.patience):
        return (
            f"{training.folder}: was complete after {len(history)} epochs, of which {best} is the best: not trained on"
        )
    within = f", after {n_done} of its batches" if n_done else ""
    return f"{training.folder}: resuming at epoch {epoch + 1} of {n_epochs}{within}"


def clear_folds(folder: Path, *, but: Collection[str]) -> None:
    """Take away the networks of folds that an earlier run left in a run's folder, and this one has not trained."""
    for fold in folder.glob("fold-[0-9]*"):
        if fold.is_dir() and fold.name not in but:
            _clear(fold)
            with suppress(OSError):  # it holds something else too
                fold.rmdir()


def _clear(folder: Path) -> None:
    """Take away what an earlier run left."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (CHECKPOINTS, TENSORBOARD):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (METRICS, CURVES):
        (folder / name).unlink(missing_ok=True)


def _too_large(size: int, settings: FinetuneSettings) -> str:
    smaller = "input_px" if size == 1 else "batch_size"
    return (
        f"[finetune]: batch_size = {size} does not fit into the GPU's memory: set a smaller {smaller}, "
        f"precision = bfloat16, or another backbone than {settings.backbone}"
    )
