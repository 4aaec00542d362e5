"""Where networks run."""

import os

from extract import Device, resolve_device
from finetune.settings import FinetuneSettings
from store import InputError, usable_cores

MAX_WORKERS = 8
PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}
"""What Lightning calls them."""


def is_main_process() -> bool:
    """Say whether this process is the one of several (torchrun, srun, Lightning's own) that writes and reports."""
    ranks = (os.environ.get(name) for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"))
    return next((rank for rank in ranks if rank is not None), "0") == "0"


def n_workers(settings: FinetuneSettings, device: Device) -> int:
    """Return how many processes read images: none beside a CPU that is busy with the network."""
    if settings.workers is not None:
        return settings.workers
    return min(MAX_WORKERS, len(usable_cores()) - 1) if resolve_device(device) == "cuda" else 0


def choose_precision(settings: FinetuneSettings, device: Device) -> str:
    """Return what Lightning calls the precision.

    Raises:
        InputError: float16 without a GPU, or no GPU where one is asked for.
    """
    import torch

    asked, is_cuda = settings.precision, resolve_device(device) == "cuda"
    if asked == "float16" and not is_cuda:
        raise InputError("[finetune]: precision = float16 needs a GPU; on a CPU take bfloat16 or float32")
    if asked == "auto":
        asked = "bfloat16" if is_cuda and torch.cuda.is_bf16_supported() else "float32"
    return PRECISIONS[asked]
