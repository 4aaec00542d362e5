"""Lightning's trainer: precision, clipping, accumulation, devices, signals; and its silence on the user's terminal."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from lightning import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from extract import resolve_device
from finetune.device import Device
from finetune.loaders import Loaders
from finetune.module import FinetuneModule
from finetune.settings import FinetuneSettings
from store import InputError

PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}
TENSORBOARD = "tensorboard"


class Stopped(KeyboardInterrupt):
    """The user or a scheduler ended training."""


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
            precision=_precision(settings, is_cuda=is_cuda),  # type: ignore[arg-type]
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
        n_epochs = len(module.history)
        raise Stopped(
            f"stopped after {n_epochs} whole epochs: the same command with --resume goes on from the last checkpoint"
        ) from None


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


def _precision(settings: FinetuneSettings, *, is_cuda: bool) -> str:
    """Return what Lightning calls the precision.

    Raises:
        InputError: float16 without a GPU.
    """
    asked = settings.precision
    if asked == "float16" and not is_cuda:
        raise InputError("[finetune]: precision = float16 needs a GPU; on a CPU take bfloat16 or float32")
    if asked == "auto":
        asked = "bfloat16" if is_cuda and torch.cuda.is_bf16_supported() else "float32"
    return PRECISIONS[asked]
