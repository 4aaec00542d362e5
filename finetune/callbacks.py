"""What happens beside training: checkpoints that a killed run goes on from, stopping early, metrics for people."""

import csv
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping, EMAWeightAveraging

from finetune.checkpoint import ABOUT, BEST, CHECKPOINTS, LAST, NEXT
from finetune.curves import draw_curves, metrics_of
from finetune.listener import Listener
from finetune.module import SCORE, FinetuneModule
from finetune.settings import FinetuneSettings

SAVE_EVERY_SECONDS = 300.0
DRAW_EVERY_SECONDS = 60.0
METRICS, CURVES = "metrics.csv", "curves.png"


def make_callbacks(
    settings: FinetuneSettings, folder: Path, about: Mapping[str, Any], listener: Listener
) -> list[Callback]:
    """Return the callbacks of one fit, in the order they are called in: a checkpoint has seen all the others.

    Args:
        settings: Patience and EMA.
        folder: Where checkpoints, metrics.csv and curves.png go.
        about: What a checkpoint says of itself.
        listener: Hears of batches and epochs.
    """
    average = [] if settings.ema is None else [EMAWeightAveraging(decay=settings.ema)]
    patience = Patience(monitor=SCORE, mode="max", patience=settings.patience)
    return [*average, Report(folder, listener), patience, Checkpoints(folder, about)]


class Patience(EarlyStopping):
    """Early stopping that also stops a run which goes on from where it had stopped."""

    def on_train_start(self, trainer: Trainer, _: LightningModule) -> None:
        """Stop before the first step, where patience had run out."""
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience


class Checkpoints(Checkpoint):
    """Saves the best epoch, and where a killed run goes on: each epoch's end, and within long epochs.

    Also when a scheduler asks the process to end (SIGTERM). Never in an epoch's last batch: what follows it, the score
    and the best epoch, is saved with it when the epoch ends. A file appears whole.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self._folder, self._about = folder / CHECKPOINTS, dict(about)
        self._saved = time.monotonic()

    def on_save_checkpoint(self, trainer: Trainer, _: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add what it is of, and where training goes on."""
        is_whole = trainer.is_last_batch
        checkpoint[ABOUT] = self._about
        checkpoint[NEXT] = [trainer.current_epoch + is_whole, 0 if is_whole else n_batches_done(trainer)]

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Save if it is time."""
        is_due = trainer.received_sigterm or time.monotonic() - self._saved >= SAVE_EVERY_SECONDS
        if trainer.strategy.broadcast(is_due and not trainer.is_last_batch):
            self._save(trainer, LAST)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Save the epoch."""
        assert isinstance(module, FinetuneModule)
        if best_epoch(module.history) == trainer.current_epoch + 1:
            self._save(trainer, BEST)
        self._save(trainer, LAST)

    def _save(self, trainer: Trainer, name: str) -> None:
        trainer.save_checkpoint(self._folder / name)
        self._saved = time.monotonic()


class Report(Callback):
    """The progress bar, a line per epoch, metrics.csv and curves.png."""

    def __init__(self, folder: Path, listener: Listener) -> None:
        self._folder, self._listener = folder, listener
        self._started = self._drawn = time.monotonic()

    def on_train_epoch_start(self, _: Trainer, __: LightningModule) -> None:
        """Look at the clock."""
        self._started = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Move the bar."""
        if self._listener.progress is not None and trainer.max_epochs is not None:
            n_batches = int(trainer.num_training_batches)
            done = trainer.current_epoch * n_batches + n_batches_done(trainer)
            self._listener.progress(done, trainer.max_epochs * n_batches)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Write the epoch down."""
        assert isinstance(module, FinetuneModule)
        if not module.history:
            return
        row = module.history[-1]
        row["seconds"] = row.get("seconds", 0.0) + time.monotonic() - self._started
        if trainer.is_global_zero:
            write_metrics(module.history, self._folder / METRICS)
            self._draw(module, every_seconds=DRAW_EVERY_SECONDS)
            self._listener.each_epoch(epoch_words(row, trainer.max_epochs or 0))

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Draw all of it."""
        assert isinstance(module, FinetuneModule)
        if trainer.is_global_zero and module.history:
            self._draw(module, every_seconds=0.0)

    def _draw(self, module: FinetuneModule, *, every_seconds: float) -> None:
        if time.monotonic() - self._drawn >= every_seconds:
            draw_curves(module.history, self._folder / CURVES)
            self._drawn = time.monotonic()


def n_batches_done(trainer: Trainer) -> int:
    """Return how many batches of the epoch are done."""
    return trainer.fit_loop.epoch_loop.batch_progress.current.ready


def best_epoch(history: Sequence[Mapping[str, float]]) -> int:
    """Return the epoch of the highest score, counted from 1; of several the first."""
    return int(max(history, key=lambda row: row[SCORE])["epoch"])


def epoch_words(row: Mapping[str, float], n_epochs: int) -> str:
    """Return an epoch's row in one line."""
    metrics = ", ".join(f"{name} {value:.3f}" for name, value in metrics_of(row).items())
    return (
        f"epoch {row['epoch']:.0f} of {n_epochs}: loss {row['train_loss']:.4f}, on the stop rows {row['stop_loss']:.4f}"
        f"{', ' if metrics else ''}{metrics}; {row['seconds']:.1f} s"
    )


def write_metrics(history: list[dict[str, float]], path: Path) -> None:
    """Write a row per epoch, csv; the file appears whole."""
    names = list(dict.fromkeys(name for row in history for name in row))
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(history)
    partial.replace(path)
