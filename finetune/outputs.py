"""What a trained network says of rows, and what its task heads see of them."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from extract import Device, resolve_device
from finetune.branches import Input
from finetune.loaders import Loader, score_loader
from finetune.network import MultimodalNetwork
from store import Dataset, Progress, Rows

BATCH_ROWS = 32

Outputs = dict[str, NDArray[np.float64]]
Ask = Callable[[Mapping[str, Input]], Tensor]


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
    tasks = network.blueprint.tasks

    def ask(inputs: Mapping[str, Input]) -> Tensor:
        found = network(inputs)
        return torch.cat([_values(found[task.name], task.kind) for task in tasks], dim=1)

    values = np.full((dataset.n_rows, sum(task.n_outputs for task in tasks)), np.nan)
    _fill(values, network, ask, scoring.loader, device=device)
    parts = np.split(values, np.cumsum([task.n_outputs for task in tasks])[:-1], axis=1)
    return {task.name: part for task, part in zip(tasks, parts, strict=True)}, scoring.left_out


def network_features(
    network: MultimodalNetwork,
    dataset: Dataset,
    rows: Rows,
    *,
    joined: bool = False,
    device: Device = "auto",
    progress: Progress | None = None,
) -> tuple[NDArray[np.float32], dict[str, str]]:
    """Return features float32 ``(n, d)``, NaN in rows not asked or that lack something; and what those lack, by id.

    Args:
        network: In evaluation mode; it is back on the CPU afterwards.
        dataset: n rows.
        rows: Which of them.
        joined: Those of the branches, before `MultimodalNetwork.fusion`; else what the task heads see.
        device: Where it runs, in float32.
        progress: Called with (rows done, rows to do).
    """
    scoring = score_loader(dataset, network, rows, batch_size=BATCH_ROWS)
    ask, dim = (network.joined, network.joined_dim) if joined else (network.features, network.dim)
    found = np.full((dataset.n_rows, dim), np.nan, dtype=np.float32)

    def note(n_done: int) -> None:
        if progress:
            progress(len(scoring.left_out) + n_done, len(rows))

    _fill(found, network, ask, scoring.loader, device=device, note=note)
    found[np.isin(dataset.ids, list(dataset.bad_cells))] = np.nan
    return found, {**dataset.bad_cells, **scoring.left_out}


def _fill(
    found: NDArray[Any],
    network: MultimodalNetwork,
    ask: Ask,
    loader: Loader,
    *,
    device: Device,
    note: Callable[[int], None] = lambda _: None,
) -> None:
    """Put what is asked of each row of a loader into its place; note how many rows are done."""
    where, n_done = resolve_device(device), 0
    network = network.to(where).eval()
    with torch.inference_mode():
        for batch in loader:
            found[batch.rows.numpy()] = ask(batch.to(where).inputs).cpu().numpy()
            n_done += len(batch)
            note(n_done)
    network.cpu()


def _values(outputs: Tensor, kind: str) -> Tensor:
    values = outputs.double()
    return values.softmax(dim=1) if kind == "classification" else values
