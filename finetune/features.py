"""What a network's task heads see of rows."""

import numpy as np
import torch
from numpy.typing import NDArray

from extract import resolve_device
from finetune.device import Device
from finetune.inputs import Progress, Rows
from finetune.loaders import score_loader
from finetune.network import MultimodalNetwork
from store import Dataset

BATCH_ROWS = 32


def network_features(
    network: MultimodalNetwork,
    dataset: Dataset,
    rows: Rows,
    *,
    device: Device = "auto",
    progress: Progress | None = None,
) -> tuple[NDArray[np.float32], dict[str, str]]:
    """Return features float32 ``(n, d)``, NaN in rows that were not asked or cannot be read; and why those cannot.

    Args:
        network: In evaluation mode; it is back on the CPU afterwards.
        dataset: n rows.
        rows: Which of them.
        device: Where it runs, in float32.
        progress: Called with (rows done, rows to do).
    """
    found = np.full((dataset.n_rows, network.dim), np.nan, dtype=np.float32)
    scoring = score_loader(dataset, network, rows, batch_size=BATCH_ROWS)
    where, n_done = resolve_device(device), len(scoring.left_out)
    network = network.to(where)
    with torch.inference_mode():
        for batch in scoring.loader:
            found[batch.rows.numpy()] = network.features(batch.to(where).inputs).float().cpu().numpy()
            n_done += len(batch)
            if progress:
                progress(n_done, len(rows))
    network.cpu()
    return found, scoring.left_out
