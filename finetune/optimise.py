"""Optimizers, their learning rates layer by layer, and how these change over the epochs."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import nn

from finetune.freezing import encoders, frozen, stages
from finetune.network import MultimodalNetwork
from finetune.settings import FinetuneSettings
from store import InputError

Group = dict[str, object]


def make_optimizer(
    network: MultimodalNetwork, settings: FinetuneSettings, others: Iterable[nn.Parameter] = ()
) -> torch.optim.Optimizer:
    """Return the optimizer of all that ever trains.

    Encoders have ``lr`` in their last stage and ``layer_decay`` of it in each stage before; all else has ``head_lr``.
    Biases, norms and other vectors do not decay (Loshchilov and Hutter's decay is of weight matrices in practice:
    timm/optim/_param_groups.py).

    Args:
        network: Its encoders are divided into stages.
        settings: Which optimizer, rates, decay and freezing.
        others: Parameters that are not the network's, such as learned task weights; they do not decay.

    Raises:
        InputError: Nothing is left to train.
    """
    rates, kept = _rates(network, settings), frozen(network, settings)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if name not in kept:
            decay = settings.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rates.get(name, settings.head_lr), decay), []).append(parameter)
    if not groups:
        raise InputError("[finetune]: everything is frozen: leave something out of freeze")
    groups.setdefault((settings.head_lr, 0.0), []).extend(others)
    made = [{"params": members, "lr": lr, "weight_decay": decay} for (lr, decay), members in groups.items()]
    return OPTIMIZERS[settings.optimizer](made, settings)


OPTIMIZERS: dict[str, Callable[[list[dict[str, object]], FinetuneSettings], torch.optim.Optimizer]] = {
    "adam": lambda groups, _: torch.optim.Adam(groups),
    "adamw": lambda groups, _: torch.optim.AdamW(groups),
    "sgd": lambda groups, settings: torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum),
}


def make_schedule(
    optimizer: torch.optim.Optimizer, settings: FinetuneSettings, *, steps_per_epoch: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """Return the schedule, to be stepped after each step of the optimizer; no rate falls below ``min_lr``."""

    def of_rate(lr: float) -> Callable[[int], float]:
        least = min(1.0, settings.min_lr / lr)
        return lambda step: least + (1 - least) * share(settings, (step + 1) / steps_per_epoch, step / steps_per_epoch)

    return torch.optim.lr_scheduler.LambdaLR(optimizer, [of_rate(group["lr"]) for group in optimizer.param_groups])


def share(settings: FinetuneSettings, after: float, before: float) -> float:
    """Return the share of its full height that a learning rate has in one step, 0 to 1.

    Args:
        settings: Which schedule; its length is ``max_epochs``, warm-up included.
        after: Epochs done after the step, such as 0.25: warm-up counts them, so that the first step is one.
        before: Epochs done before it: all else counts them, so that full height is reached.
    """
    if after < settings.warmup_epochs:
        return after / settings.warmup_epochs
    return SCHEDULES[settings.schedule](max(0.0, before - settings.warmup_epochs), settings)


def _step(epoch: float, settings: FinetuneSettings) -> float:
    return float(settings.gamma ** math.floor(epoch / settings.step_epochs))


def _cosine(epoch: float, settings: FinetuneSettings) -> float:
    """Loshchilov and Hutter 2017, "SGDR", arXiv 1608.03983, eq. 5, without restarts."""
    return _half_cosine(epoch / max(1, settings.max_epochs - settings.warmup_epochs))


def _cosine_restarts(epoch: float, settings: FinetuneSettings) -> float:
    """The same with warm restarts: cycles of T0, T0 Tmult, T0 Tmult^2 … epochs."""
    length = float(settings.restart_epochs)
    while epoch >= length:
        epoch, length = epoch - length, length * settings.restart_factor
    return _half_cosine(epoch / length)


def _half_cosine(done: float) -> float:
    return (1 + math.cos(math.pi * min(1.0, done))) / 2


SCHEDULES: dict[str, Callable[[float, FinetuneSettings], float]] = {
    "constant": lambda _epoch, _settings: 1.0,
    "step": _step,
    "cosine": _cosine,
    "cosine_restarts": _cosine_restarts,
}


def _rates(network: MultimodalNetwork, settings: FinetuneSettings) -> dict[str, float]:
    """Return the learning rate of each encoder parameter."""
    rates: dict[str, float] = {}
    for path, encoder in encoders(network):
        for depth, names in enumerate(reversed(stages(encoder))):
            rates |= {f"{path}.{name}": settings.lr * settings.layer_decay**depth for name in names}
    return rates
