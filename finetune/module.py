"""The training and stop steps; all else of the loop is Lightning's."""

import math
from collections.abc import Mapping
from typing import Any

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics import MeanMetric

from finetune.freezing import freeze, frozen
from finetune.from_heads import why_not
from finetune.inputs import Batch
from finetune.loss import TaskLosses
from finetune.network import MultimodalNetwork
from finetune.optimise import make_optimizer, make_schedule
from finetune.settings import FinetuneSettings, check_task_names
from heads import HEADLINE
from store import InputError, Task

SCORE = "score"
TIE = 1e-5  # of two epochs with the same score the one with less loss is better

Spreads = Mapping[str, float]


class FinetuneModule(lightning.LightningModule):
    """One network in training.

    Attributes:
        history: A row per epoch: ``epoch`` (from 1), losses, each task's main metric on the stop rows, ``score``,
            ``lr``.
    """

    def __init__(
        self,
        network: MultimodalNetwork,
        settings: FinetuneSettings,
        tasks: Mapping[str, Task],
        *,
        ids: NDArray[np.str_],
        train: NDArray[np.int64],
        seed: int,
    ) -> None:
        super().__init__()
        self.network, self.settings, self.tasks = network, settings, tasks
        check_task_names(settings, tasks)
        self.losses = TaskLosses(list(tasks.values()), settings, rows=train)
        self.spreads = {name: _spread(task, train) for name, task in tasks.items() if task.kind == "regression"}
        self.ids, self.seed = ids, seed
        self.starts_from_heads = why_not(network, settings) is None
        self.history: list[dict[str, float]] = []
        self.train_loss, self.stop_loss = MeanMetric(), MeanMetric()
        self.train_loss.persistent(True)  # a run that goes on within an epoch reports all of it
        self.metrics = nn.ModuleDict({f"of {name}": MeanMetric() for name in tasks})

    def configure_optimizers(self) -> Any:
        """Return the optimizer and its schedule, stepped with it."""
        optimizer = make_optimizer(self.network, self.settings, self.losses.parameters())
        n_steps = int(self.trainer.estimated_stepping_batches)
        schedule = make_schedule(optimizer, self.settings, steps_per_epoch=n_steps // self.settings.max_epochs)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_epoch_start(self) -> None:
        """Say what trains in this epoch."""
        self._freeze()

    def on_train_start(self) -> None:
        """Say what trains where a run goes on within an epoch."""
        self._freeze()

    def on_train_batch_start(self, _: Batch, batch_idx: int) -> None:
        """Draw dropout from the seed, the epoch and the batch alone, so that a run that goes on draws the same."""
        entropy = [self.seed, self.current_epoch, batch_idx, self.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Return the loss of a batch.

        Raises:
            InputError: It is not a number; the message has the row ids.
        """
        loss = self._loss(batch)
        if not torch.isfinite(loss):
            raise InputError(self._not_finite(batch, "rows"))
        self.train_loss.update(loss.detach(), len(batch))
        return loss

    def on_train_epoch_end(self) -> None:
        """Forget the epoch's training loss, which its row has; and draw another order."""
        self.train_loss.reset()
        loader: Any = self.trainer.train_dataloader
        loader.batch_sampler.set_epoch(self.current_epoch + 1)  # Lightning would look for a sampler

    def validation_step(self, batch: Batch, _: int) -> None:
        """Add a batch of stop rows to the metrics.

        Raises:
            InputError: Its loss is not a number; the message has the row ids.
        """
        outputs = self.network(batch.inputs)
        loss, _ = self.losses(outputs, batch.targets, batch.weights)
        if not torch.isfinite(loss):
            raise InputError(self._not_finite(batch, "stop rows"))
        self.stop_loss.update(loss, len(batch))
        for name, task in self.tasks.items():
            values = _values(task, outputs[name], batch.targets[name])
            if len(values):
                self._metric(name).update(values)

    def on_validation_epoch_end(self) -> None:
        """Put the epoch's row into the history, and into the logs."""
        row = self._row()
        if not math.isfinite(row[SCORE]):
            raise InputError(f"epoch {self.current_epoch + 1}: the score of the stop rows is not a number. {REMEDY}")
        self.history.append(row)
        self.log_dict({name: value for name, value in row.items() if name != "epoch"}, sync_dist=False)
        for metric in (self.stop_loss, *(self._metric(name) for name in self.tasks)):
            metric.reset()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the history."""
        checkpoint["history"] = self.history

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on from the history."""
        self.history = list(checkpoint["history"])

    def _freeze(self) -> None:
        kept = frozen(self.network, self.settings, epoch=self.current_epoch)
        freeze(self.network, kept, keeps_statistics=self.starts_from_heads)

    def _loss(self, batch: Batch) -> Tensor:
        outputs = self.network(batch.inputs)
        loss: Tensor = self.losses(outputs, batch.targets, batch.weights)[0]
        if batch.other is None:
            return loss
        partner, lam = batch.other.partner, batch.other.lam
        theirs = {name: target[partner] for name, target in batch.targets.items()}
        weights = {name: weight[partner] for name, weight in batch.weights.items()}
        of_theirs: Tensor = self.losses(outputs, theirs, weights)[0]
        return lam * loss + (1 - lam) * of_theirs

    def _row(self) -> dict[str, float]:
        stop_loss = float(self.stop_loss.compute())
        metrics = {name: self._metric(name) for name in self.tasks}
        found = {name: float(metric.compute()) for name, metric in metrics.items() if metric.update_called}
        return {
            "epoch": self.current_epoch + 1,
            "train_loss": float(self.train_loss.compute()),
            "stop_loss": stop_loss,
            **{f"{name}_{HEADLINE[self.tasks[name].kind]}": value for name, value in found.items()},
            SCORE: self._score(found, stop_loss),
            "lr": self.trainer.optimizers[0].param_groups[0]["lr"],
        }

    def _metric(self, task: str) -> MeanMetric:
        metric = self.metrics[f"of {task}"]
        assert isinstance(metric, MeanMetric)
        return metric

    def _score(self, found: Mapping[str, float], stop_loss: float) -> float:
        """Return what the best epoch has most of."""
        by = self.settings.best_by
        if by == "loss":
            return -stop_loss
        skills = {
            name: 1 - value / self.spreads[name] if name in self.spreads else value for name, value in found.items()
        }
        if not skills or by not in ("mean", *skills):
            raise InputError(
                f"[finetune]: best_by = {by!r}, but no row kept out of training has a label for it. Label more, or "
                "give mean, or loss"
            )
        chosen = skills.values() if by == "mean" else [skills[by]]
        score = sum(chosen) / len(chosen) - TIE * stop_loss
        return float(np.float32(score))  # as patience sees it: a better epoch for one is better for the other

    def _not_finite(self, batch: Batch, kind: str) -> str:
        ids = self.ids[batch.rows.cpu().numpy()].tolist()
        named = ", ".join(map(repr, ids))
        return f"epoch {self.current_epoch + 1}: the loss of the batch of {kind} {named} is not a number. {REMEDY}"


REMEDY = "Look at these rows, or take a lower lr, precision = float32, or clip_norm"


def _values(task: Task, outputs: Tensor, target: Tensor) -> Tensor:
    """Return what the task's main metric is the mean of, for each row that counts: right or not, or the error."""
    if task.kind == "classification":
        return (outputs.argmax(dim=1) == target)[target >= 0].float()
    errors = (outputs.float() - target).abs()[~target.isnan().any(dim=1)]
    weights = torch.as_tensor(task.weights, dtype=errors.dtype, device=errors.device)
    return errors @ (weights / weights.sum())


def _spread(task: Task, train: NDArray[np.int64]) -> float:
    """Return the mean absolute error of the training median: the error of a model that sees nothing."""
    y = task.y[train[task.labelled[train]]]
    errors = np.abs(y - np.median(y, axis=0)).mean(axis=0)
    return float(errors @ task.weights / task.weights.sum()) or 1.0
