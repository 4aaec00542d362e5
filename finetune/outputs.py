"""What a trained network says of rows."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from extract import resolve_device
from finetune.device import Device
from finetune.inputs import Batch
from finetune.loaders import score_loader
from finetune.network import MultimodalNetwork
from store import Dataset

Rows = NDArray[np.int64]
Outputs = dict[str, NDArray[np.float64]]


def predict_rows(
    network: MultimodalNetwork,
    dataset: Dataset,
    rows: Rows,
    *,
    batch_size: int,
    workers: int = 0,
    device: Device = "auto",
) -> tuple[Outputs, dict[str, str]]:
    """Return probabilities ``(n, c)`` or outputs ``(n, t)`` by task; and why rows cannot be used, by row id.

    Rows that were not asked, or cannot be used, are NaN.

    Args:
        network: In evaluation mode; it is back on the CPU afterwards.
        dataset: n rows.
        rows: Which of them.
        batch_size: Rows per forward pass.
        workers: Processes that read images.
        device: Where it runs, in float32.
    """
    scoring = score_loader(dataset, network, rows, batch_size=batch_size, workers=workers)
    found = {task.name: np.full((dataset.n_rows, task.n_outputs), np.nan) for task in network.blueprint.tasks}
    for batch, outputs in _batches(network, scoring.loader, resolve_device(device)):
        for task in network.blueprint.tasks:
            values = outputs[task.name].double()
            values = values.softmax(dim=1) if task.kind == "classification" else values
            found[task.name][batch.rows.numpy()] = values.cpu().numpy()
    return found, scoring.left_out


def _batches(
    network: MultimodalNetwork, loader: "torch.utils.data.DataLoader[Batch]", device: str
) -> Iterator[tuple[Batch, dict[str, torch.Tensor]]]:
    network = network.to(device).eval()
    with torch.inference_mode():
        for batch in loader:
            yield batch, network(batch.to(device).inputs)
    network.cpu()
