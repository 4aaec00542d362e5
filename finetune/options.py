"""What the command line says, put over what the spec says; and what is shortened where there is no GPU."""

import json
from collections.abc import Sequence

from extract import Device, fitting_blocks, resolve_device
from finetune.settings import FinetuneSettings, read_settings
from store import Dataset, InputError

KEYS = {"image": "backbone", "text": "text_backbone"}
SHORT = {"input_px": "96", "max_epochs": "8"}
"""Of the built-in sample without a GPU, so that a first look takes minutes."""


def choose_settings(
    dataset: Dataset,
    *,
    assignments: Sequence[str] | None = None,
    backbones: Sequence[str] | None = None,
    preset: str | None = None,
    init: str | None = None,
    weights: str | None = None,
    device: Device = "auto",
) -> tuple[FinetuneSettings, list[str]]:
    """Return the settings, and a line for each that was shortened.

    Args:
        dataset: Its spec may have a ``[finetune]`` table.
        assignments: ``key=value``; over everything else.
        backbones: One for images, one for texts at most.
        preset: A study's architecture.
        init: Where task heads begin.
        weights: Of the backbones.
        device: Where it will train.

    Raises:
        InputError: With every problem at once; two backbones for one kind of block, or one for a kind that is
            not there; no such device.
    """
    named = {"preset": preset, "init": init, "weights": weights} | _by_kind(dataset, backbones or ())
    given = [f"{key}={json.dumps(value)}" for key, value in named.items() if value is not None] + list(
        assignments or ()
    )
    table = dict(dataset.spec.finetune)
    settings = read_settings(table, given)
    is_short = dataset.spec.sample is not None and resolve_device(device) == "cpu" and settings.preset is None
    short = {key: value for key, value in SHORT.items() if key not in settings.model_fields_set} if is_short else {}
    if not short:
        return settings, []
    changed = ", ".join(f"{key} = {value}" for key, value in short.items())
    line = f"no GPU: the built-in sample's training is shortened: {changed} (--set gives other values)"
    return read_settings(table, [*(f"{key}={value}" for key, value in short.items()), *given]), [line]


def _by_kind(dataset: Dataset, backbones: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in backbones:
        modality, _ = fitting_blocks(name, dataset)
        if KEYS[modality] in found:
            raise InputError(
                f"--backbone {name}: one backbone for {modality}s is trained at a time, and {found[KEYS[modality]]} is "
                "given already; give a branch its own with --set branches.NAME.encoder=…"
            )
        found[KEYS[modality]] = name
    return found
