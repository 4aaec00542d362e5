"""Losses: one per task over the rows that have a label there, and their sum."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from finetune.branches import Named
from finetune.network import labelled_rows, sample_weights
from finetune.settings import FinetuneSettings
from heads import balanced_weights, target_scale
from store import InputError, Rows, Task, did_you_mean

TINY = 1e-12


class TaskLosses(nn.Module):
    """The loss of each task and their weighted sum.

    A task's loss is the mean over the rows of the batch that have a label there, each times its weight over the mean
    weight of the training rows; 0 where no row has one. Task weights are fixed; or learned as uncertainties (Kendall,
    Gal, Cipolla 2018, arXiv 1705.07115, equations 7 and 10): with s = log of the variance, ``exp(-s) L + s / 2`` for a
    classification and ``exp(-s) L / 2 + s / 2`` for a regression.
    """

    def __init__(self, tasks: Sequence[Task], settings: FinetuneSettings, *, rows: Rows) -> None:
        """Take class weights and scales from training rows.

        Raises:
            InputError: Task weights name a task that is not there, or training rows lack a class.
        """
        super().__init__()
        self._names = [task.name for task in tasks]
        self._is_class = {task.name: task.kind == "classification" for task in tasks}
        self._weights = _fixed(self._names, settings)
        self.of = Named((task.name, _loss(task, settings, rows)) for task in tasks)
        learned = settings.task_weights == "uncertainty"
        self.log_variance = nn.Parameter(torch.zeros(len(tasks))) if learned else None

    def forward(
        self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], weights: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss to lower, and each task's own.

        Args:
            outputs: As `MultimodalNetwork.forward` gives them.
            targets: Class index int64 ``(b,)``, -1 where missing or not applicable; float32 ``(b, t)``, NaN there.
            weights: Sample weights ``(b,)`` by task; ones when left out.
        """
        weights = weights or {}
        losses = {name: self.of[name](outputs[name], targets[name], weights.get(name)) for name in self._names}
        if self.log_variance is None:
            parts = [self._weights[name] * loss for name, (loss, _) in losses.items()]
        else:
            each = zip(self._names, self.log_variance, strict=True)
            parts = [self._uncertain(name, losses[name], s) for name, s in each]
        return torch.stack(parts).sum(), {name: loss for name, (loss, _) in losses.items()}

    def _uncertain(self, name: str, one: tuple[Tensor, Tensor], s: Tensor) -> Tensor:
        loss, has_rows = one
        share = 1.0 if self._is_class[name] else 0.5
        return (share * torch.exp(-s) * loss + s / 2) * has_rows


class ClassLoss(nn.Module):
    """Cross-entropy with class weights and label smoothing."""

    class_weights: Tensor

    def __init__(self, task: Task, settings: FinetuneSettings, rows: Rows) -> None:
        super().__init__()
        known = labelled_rows(task, rows)
        per_row = sample_weights(task, known)
        by_class = np.ones(len(task.classes))
        if task.class_weight == "balanced":
            balanced = balanced_weights(task.y, known)
            by_class = np.array([balanced[known][task.y[known] == i][0] for i in range(len(by_class))])
        mean = float((per_row * by_class[task.y[known]]).mean())
        self.register_buffer("class_weights", torch.tensor(by_class / mean, dtype=torch.float32))
        self._smoothing = settings.label_smoothing

    def forward(self, logits: Tensor, y: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the loss, and whether any row has a label."""
        known = y >= 0
        each = F.cross_entropy(logits, y, ignore_index=-1, reduction="none", label_smoothing=self._smoothing)
        each = each * self.class_weights[y.clamp(min=0)]
        total = torch.where(known, each if weight is None else each * weight, 0).sum()
        return total / known.sum().clamp(min=1), known.any()


class OutputLoss(nn.Module):
    """Squared or Huber error of outputs in training standard deviations; each missing output is left out."""

    scale: Tensor
    output_weights: Tensor

    def __init__(self, task: Task, settings: FinetuneSettings, rows: Rows) -> None:
        super().__init__()
        known = labelled_rows(task, rows)
        per_row = sample_weights(task, known)
        self.register_buffer("scale", _tensor(target_scale(task.y[known], per_row)[1]))
        self.register_buffer("output_weights", _tensor(task.weights))
        self._mean_weight = float(per_row.mean())
        self._error = F.huber_loss if settings.loss == "huber" else F.mse_loss

    def forward(self, outputs: Tensor, y: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the loss, and whether any row has a target."""
        known = ~y.isnan()
        target = torch.where(known, y, outputs.detach())
        each = self._error(outputs / self.scale, target / self.scale, reduction="none")
        share = self.output_weights * known
        if weight is not None:
            each = each * torch.where(known, weight[:, None], 0) / self._mean_weight
        return (each * share).sum() / share.sum().clamp(min=TINY), known.any()


def _loss(task: Task, settings: FinetuneSettings, rows: Rows) -> nn.Module:
    return (ClassLoss if task.kind == "classification" else OutputLoss)(task, settings, rows)


def _fixed(names: Sequence[str], settings: FinetuneSettings) -> dict[str, float]:
    given = settings.task_weights if isinstance(settings.task_weights, dict) else {}
    for name in given:
        if name not in names:
            hint = did_you_mean(name, names)
            raise InputError(f"[finetune]: task_weights names {name!r}.{hint} There is {', '.join(names)}")
    return {name: given.get(name, 1.0) for name in names}


def _tensor(values: NDArray[np.float64]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)
