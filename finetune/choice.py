"""Which blocks of a dataset become which branches."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from finetune.presets import NEEDED
from finetune.settings import FinetuneSettings, Kind
from store import Dataset, ImageBlock, InputError, block_names, counted, did_you_mean

METADATA = "metadata"
STACK = "stack"
KINDS: dict[Kind, str] = {
    "image": "[images.NAME]",
    "fourier": '[images.NAME] with view = "fourier"',
    "text": "[texts.NAME]",
    "metadata": "[metadata.NAME]",
}
"""Where a spec has blocks of each kind."""


@dataclass(frozen=True)
class Part:
    """What one branch takes.

    Attributes:
        name: Of its block; ``stack`` for several stacked here, ``metadata``.
        kind: ``"image"``, ``"fourier"``, ``"text"`` or ``"metadata"``.
        blocks: Image or text blocks.
        n_images: Of a row; several for a stack.
    """

    name: str
    kind: Kind
    blocks: tuple[str, ...]
    n_images: int = 0


def choose_parts(dataset: Dataset, settings: FinetuneSettings) -> list[Part]:
    """Return the branches to make: images, spectra, texts, metadata.

    Raises:
        InputError: Blocks that are asked for, or that the preset is for, are not there; or two have one name.
    """
    chosen = _chosen(dataset, settings.blocks)
    _check_preset(settings.preset, dataset)
    images = [block for name, block in dataset.images.items() if f"image:{name}" in chosen]
    texts = [Part(name, "text", (name,)) for name in dataset.texts if f"text:{name}" in chosen]
    plain = [block for block in images if block.view != "fourier"]
    parts = _stacked(plain) if settings.modalities == "stacked" else [_part(block) for block in plain]
    parts += [Part(block.name, "fourier", (block.name,), 1) for block in images if block.view == "fourier"]
    parts += [*texts, *([Part(METADATA, "metadata", ())] if METADATA in chosen else [])]
    _check_names([part.name for part in parts], settings.branches)
    return parts


def _chosen(dataset: Dataset, wanted: Sequence[str]) -> list[str]:
    known = [*block_names(dataset), *([METADATA] if dataset.metadata else [])]
    if not known:
        raise InputError("the dataset has no image, text or metadata block to learn from")
    for name in wanted:
        if name not in known:
            hint = did_you_mean(name, known)
            raise InputError(f"[finetune]: blocks has {name!r}, which is not there.{hint} There is {', '.join(known)}")
    return list(wanted) or known


def _check_preset(preset: str | None, dataset: Dataset) -> None:
    """Raise an InputError where the dataset lacks what a preset is for; `blocks` may then choose among it."""
    images = dataset.images.values()
    there = {
        "image": sum(len(block.parts) or 1 for block in images if block.view != "fourier"),
        "fourier": sum(block.view == "fourier" for block in images),
        "text": len(dataset.texts),
        "metadata": int(bool(dataset.metadata)),
    }
    for kind, where in KINDS.items():
        wanted = NEEDED.get(preset or "", {}).get(kind, 0)
        if there[kind] < wanted:
            raise InputError(
                f"preset {preset!r} needs {counted(wanted, f'{kind} block')}, and there is "
                f"{there[kind] or 'none'}: add {where} to dataset.toml, or choose another preset"
            )


def _part(block: ImageBlock) -> Part:
    return Part(block.name, "image", (block.name,), len(block.parts) or 1)


def _stacked(blocks: Sequence[ImageBlock]) -> list[Part]:
    """Return the spec's own stacks and what is in none of them; without any, everything as one stack."""
    stacks = [block for block in blocks if block.parts]
    inside = {part.name for block in stacks for part in block.parts}
    if stacks:
        return [_part(block) for block in blocks if block.name not in inside]
    if len(blocks) < 2:
        names = ", ".join(block.name for block in blocks) or "none"
        raise InputError(f"[finetune]: modalities = 'stacked' is for several image blocks, and there is {names}")
    return [Part(STACK, "image", tuple(block.name for block in blocks), len(blocks))]


def _check_names(names: Sequence[str], settings: Mapping[str, object]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"two blocks are called {twice[0]!r}, and each is a branch: give one of them another name")
    known: Iterable[str] = (*names, *KINDS)
    for name in settings:
        if name not in known:
            hint = did_you_mean(name, known)
            raise InputError(
                f"[finetune.branches.{name}] is for a branch that is not there.{hint} There is {', '.join(names)}; "
                f"and for all of a kind {', '.join(KINDS)}"
            )
