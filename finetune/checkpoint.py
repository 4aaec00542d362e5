"""What a checkpoint says of itself, so that no run goes on from another run's."""

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from finetune.network import MultimodalNetwork
from finetune.settings import FinetuneSettings
from store import Dataset, InputError, json_key

CHECKPOINTS, LAST, BEST = "checkpoints", "last.ckpt", "best.ckpt"
ABOUT, NEXT = "about", "next"  # what a checkpoint is of; the epoch and the batch that come next
FREE = {"workers", "devices", "nodes", "batch_size"}  # change no more than rounding; the batch size stands by itself
SHOWN = 3
REMEDY = "Give what it was begun with, or leave --resume out to begin anew"


def about_fit(
    dataset: Dataset,
    network: MultimodalNetwork,
    settings: FinetuneSettings,
    *,
    rows: NDArray[np.int64],
    seed: int,
    batch_size: int,
) -> dict[str, Any]:
    """Return what decides a fit's numbers, JSON values only."""
    labels = [dataset.tasks[name].y[rows].tobytes() for name in sorted(dataset.tasks)]
    shapes = {name: list(value.shape) for name, value in network.state_dict().items()}
    return {
        "settings": {k: v for k, v in settings.model_dump(mode="json").items() if k not in FREE},
        "seed": seed,
        "rows": json_key([dataset.ids[rows].tolist(), [hashlib.sha256(one).hexdigest() for one in labels]]),
        "architecture": json_key(shapes),
        "batch_size": batch_size,
    }


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return a checkpoint's content on the CPU; nothing in it is executed.

    Raises:
        InputError: It is damaged or none.
    """
    try:
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise InputError(f"{path}: cannot be read ({str(error).splitlines()[0]}). {REMEDY}") from None
    if not isinstance(found, dict) or ABOUT not in found:
        raise InputError(f"{path}: is no checkpoint of finetune. {REMEDY}")
    return found


def check_about(path: Path, theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
    """Raise where a checkpoint is of another run.

    Raises:
        InputError: With what differs.
    """
    before, now = theirs["settings"], mine["settings"]
    changed = [f"{key} = {before.get(key)}, not {now.get(key)}" for key in now if before.get(key) != now[key]]
    changed += [f"seed = {theirs['seed']}, not {mine['seed']}"] * (theirs["seed"] != mine["seed"])
    if changed:
        more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
        raise InputError(f"{path}: was made with {', '.join(changed[:SHOWN])}{more}. {REMEDY}")
    if theirs["rows"] != mine["rows"]:
        raise InputError(f"{path}: was made from other rows or labels. {REMEDY}")
    if theirs["architecture"] != mine["architecture"]:
        raise InputError(f"{path}: is of another architecture. {REMEDY}")
