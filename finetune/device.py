"""Where networks run."""

from typing import Literal

import torch

from store import InputError

Device = Literal["auto", "cpu", "cuda"]


def resolve_device(device: Device) -> str:
    """Return ``"cpu"`` or ``"cuda"``.

    Raises:
        InputError: A GPU is asked for, and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: there is no GPU that torch can use here; leave the option out, or give cpu")
    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
