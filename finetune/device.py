"""Where networks run."""

import os
from typing import Literal

from extract import resolve_device
from finetune.settings import FinetuneSettings

Device = Literal["auto", "cpu", "cuda"]
MAX_WORKERS = 8


def is_main_process() -> bool:
    """Say whether this process is the one of several (torchrun, srun, Lightning's own) that writes and reports."""
    ranks = (os.environ.get(name) for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"))
    return next((rank for rank in ranks if rank is not None), "0") == "0"


def n_workers(settings: FinetuneSettings, device: Device) -> int:
    """Return how many processes read images: none beside a CPU that is busy with the network."""
    if settings.workers is not None:
        return settings.workers
    return min(MAX_WORKERS, (os.cpu_count() or 1) - 1) if resolve_device(device) == "cuda" else 0
