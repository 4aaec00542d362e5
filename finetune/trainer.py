"""Lightning's trainer: precision, clipping, accumulation, devices, signals; and its silence on the user's terminal."""

import logging
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from lightning import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from extract import Device, resolve_device
from finetune.checkpoint import CHECKPOINTS, LAST
from finetune.device import choose_precision
from finetune.loaders import Loaders
from finetune.module import FinetuneModule
from finetune.settings import FinetuneSettings

TENSORBOARD = "tensorboard"


class Stopped(KeyboardInterrupt):
    """The user or a scheduler ended training.

    Attributes:
        status: What the process exits with: 128 and the number of the signal.
    """

    def __init__(self, words: str, number: signal.Signals) -> None:
        super().__init__(words)
        self.status = 128 + number


def make_trainer(settings: FinetuneSettings, folder: Path, callbacks: list[Callback], *, device: Device) -> Trainer:
    """Return the trainer; gradients are clipped before the step, checkpoints are the callbacks'."""
    is_cuda = resolve_device(device) == "cuda"
    devices = settings.devices if is_cuda or settings.devices != "auto" else 1
    n_devices = torch.cuda.device_count() if devices == "auto" else devices
    several = n_devices * settings.nodes > 1
    with quiet():
        return Trainer(
            accelerator="gpu" if is_cuda else "cpu",
            devices=devices,
            num_nodes=settings.nodes,
            strategy="ddp_find_unused_parameters_true" if several else "auto",
            precision=choose_precision(settings, device),  # type: ignore[arg-type]
            max_epochs=settings.max_epochs,
            gradient_clip_val=settings.clip_norm,
            accumulate_grad_batches=settings.accumulate,
            logger=TensorBoardLogger(folder, name="", version=TENSORBOARD),
            callbacks=callbacks,
            default_root_dir=folder,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,  # the loaders' own batches are divided already
            enable_progress_bar=False,
            enable_model_summary=False,
            benchmark=is_cuda,
        )


def train(trainer: Trainer, module: FinetuneModule, loaders: Loaders, checkpoint: Path | None) -> None:
    """Train, from a checkpoint or from the beginning; the global random state is left as it was.

    Raises:
        Stopped: By Ctrl-C or SIGTERM.
    """
    devices = range(torch.cuda.device_count()) if trainer.strategy.root_device.type == "cuda" else ()
    try:
        with quiet(), torch.random.fork_rng(devices):
            trainer.fit(module, loaders.train, loaders.stop, ckpt_path=checkpoint, weights_only=True)
    except SystemExit:  # Lightning makes one of Ctrl-C and of SIGTERM
        words = _stopped(Path(trainer.default_root_dir), len(module.history), trainer.max_epochs or 0)
        raise Stopped(words, signal.SIGTERM if trainer.received_sigterm else signal.SIGINT) from None


def _stopped(folder: Path, n_done: int, n_epochs: int) -> str:
    """Return in words where training was stopped, and how it goes on."""
    is_saved = (folder / CHECKPOINTS / LAST).exists()
    how = "with --resume goes on from the last checkpoint" if is_saved else "begins anew: no epoch was complete"
    return f"{folder}: stopped after {n_done} of {n_epochs} epochs; the same command {how}"


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning's tips and warnings from the terminal: what a user can act on is said in our own words."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
