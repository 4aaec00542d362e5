"""What trains: whole encoders, some of their layers, or one stage more every few epochs."""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import accumulate

from torch import nn

from finetune.inputs import Network
from finetune.network import MultimodalNetwork
from finetune.settings import FinetuneSettings
from store import InputError, did_you_mean

BACKBONE = "backbone"
"""Stands for the encoders of all branches."""

_NUMBERED = re.compile(r"((?:.*?\.)??[^.]*?)(\d+)(?=\.|$)")
_SHOWN = 3


def stages(encoder: nn.Module) -> list[list[str]]:
    """Return an encoder's parameter names in stages, from its input to its output.

    Stages are the numbered layers that hold most of the weights: ``layer1`` to ``layer4``, ``stages.0``, ``blocks.11``,
    ``features.denseblock2``. What comes before the first is a stage too (the stem); what follows a numbered one, up to
    the next, belongs to it.
    """
    sizes: Counter[str] = Counter()
    for name, parameter in encoder.named_parameters():
        sizes[_numbered(name)[0]] += parameter.numel() if _numbered(name)[1] else 0
    [(series, _)] = sizes.most_common(1)
    found: dict[str, list[str]] = {}
    current = ""
    for name, _ in encoder.named_parameters():
        base, number = _numbered(name)
        current = number if number and base == series else current
        found.setdefault(current, []).append(name)
    return list(found.values())


def frozen(network: MultimodalNetwork, settings: FinetuneSettings, *, epoch: int | None = None) -> set[str]:
    """Return the names of the network's parameters that do not train.

    Args:
        network: Its branches have an `encoder` each, or None.
        settings: ``freeze``, ``train_only``, ``unfreeze_every``.
        epoch: From 0; None: those that never do.

    Raises:
        InputError: A name matches no layer; the nearest ones are given.
    """
    names = _names(network)
    for wanted in (*settings.freeze, *settings.train_only):
        _check(wanted, names)
    kept = {name for name, called in names.items() if any(_begins(one, settings.freeze) for one in called)}
    if settings.train_only:
        kept |= {
            name
            for name, called in names.items()
            if any(_begins(one, [BACKBONE]) for one in called)
            and not any(_begins(one, settings.train_only) for one in called)
        }
    if settings.unfreeze_every is not None and epoch is not None:
        kept |= _not_yet(network, n_open=epoch // settings.unfreeze_every)
    return kept


def freeze(network: MultimodalNetwork, kept: Collection[str], *, keeps_statistics: bool = False) -> None:
    """Switch gradients off for some parameters, on for all others; frozen batch norms keep their statistics.

    Args:
        network: In training afterwards.
        kept: Names of parameters.
        keeps_statistics: All batch norms keep them: task heads that were fitted on the features as they are would see
            others, as soon as a batch is normalised by its own.
    """
    network.train()
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name not in kept)
    for module in batch_norms(network):
        own = list(module.parameters(recurse=False))
        if keeps_statistics or (own and not any(parameter.requires_grad for parameter in own)):
            module.eval()


def batch_norms(network: Network) -> list[nn.Module]:
    """Return the batch norms of a network."""
    return [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def encoders(network: MultimodalNetwork) -> Iterator[tuple[str, nn.Module]]:
    """Yield the path and the encoder of each branch that has one; one that several branches share, once."""
    seen: set[int] = set()
    for name, branch in network.branches.items():
        encoder = getattr(branch, "encoder", None)
        if isinstance(encoder, nn.Module) and id(encoder) not in seen:
            seen.add(id(encoder))
            yield f"branches.{name}.encoder", encoder


def _numbered(name: str) -> tuple[str, str]:
    """Return what comes before the first number that ends a part of a parameter's path, and the number; or nothing."""
    found = _NUMBERED.match(name.rpartition(".")[0])
    return (found[1], found[2]) if found else ("", "")


def _not_yet(network: MultimodalNetwork, *, n_open: int) -> set[str]:
    return {
        f"{path}.{name}"
        for path, encoder in encoders(network)
        for stage in stages(encoder)[: max(0, len(stages(encoder)) - n_open)]
        for name in stage
    }


def _names(network: MultimodalNetwork) -> dict[str, list[str]]:
    """Return what each parameter may be called: in full, from the branch on, or as the encoder's library calls it."""
    names = {name: [name, name.removeprefix("branches.")] for name, _ in network.named_parameters()}
    for path, encoder in encoders(network):
        branch = path.split(".")[1]
        for inner, _ in encoder.named_parameters():
            called = (inner, f"{branch}.{inner}", f"{BACKBONE}.{inner}", f"{branch}.{BACKBONE}.{inner}")
            names[f"{path}.{inner}"].extend(called)
    return names


def _begins(name: str, starts: Collection[str]) -> bool:
    return any(name == start or name.startswith(f"{start}.") for start in starts)


def _check(wanted: str, names: Mapping[str, Sequence[str]]) -> None:
    known = {prefix for called in names.values() for one in called for prefix in accumulate(one.split("."), _dotted)}
    if wanted not in known:
        near = did_you_mean(wanted, sorted(known), n=_SHOWN)
        tops = sorted({one.split(".")[0] for called in names.values() for one in called[2:3]})
        raise InputError(
            f"[finetune]: {wanted!r} is the start of no layer's name.{near} There is {BACKBONE}, {', '.join(tops)}"
        )


def _dotted(left: str, right: str) -> str:
    return f"{left}.{right}"
