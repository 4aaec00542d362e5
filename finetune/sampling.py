"""Which rows make a batch: the order of an epoch, weights that make classes equally frequent, no batch of one."""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from finetune.settings import wrong_sampling
from heads import balanced_weights
from store import InputError, Task

Place = tuple[int, int]
"""An epoch, and a row's position among the rows of a `RowDataset`: what a draw depends on travels with the index."""


def row_weights(tasks: Mapping[str, Task], rows: NDArray[np.int64], sampling: str) -> NDArray[np.float64] | None:
    """Return how often each row is to be drawn, relative to the others, ``(len(rows),)``; None for evenly.

    Args:
        tasks: All tasks.
        rows: Training rows.
        sampling: ``"uniform"``; a classification's name: each of its classes has the same expected share; or
            ``"balanced"``: the mean of the weights of all classifications. A row without a label counts as 1.

    Raises:
        InputError: No such task, or one without classes.
    """
    if problems := wrong_sampling(sampling, tasks):
        raise InputError(f"[finetune]: {problems[0]}")
    if sampling == "uniform":
        return None
    classed = {name: task for name, task in tasks.items() if task.kind == "classification"}
    chosen = list(classed.values()) if sampling == "balanced" else [classed[sampling]]
    return np.asarray(np.mean([_class_weights(task, rows) for task in chosen], axis=0))


class EpochBatches(Sampler[list[Place]]):
    """Batches of places, in an order that depends on the seed and the epoch alone.

    Of training rows each of several processes (DDP) takes its own part, equally many.

    Attributes:
        epoch: Of the next pass.
    """

    def __init__(
        self,
        n_rows: int,
        *,
        batch_size: int,
        seed: int = 0,
        is_training: bool = False,
        weights: NDArray[np.float64] | None = None,
        least: int = 1,
    ) -> None:
        """Say what a pass is.

        Args:
            n_rows: How many rows there are to draw from, and how many are drawn in an epoch.
            batch_size: Rows per batch.
            seed: Of the order.
            is_training: Whether rows are shuffled and divided among processes; else each has all, in their order.
            weights: From `row_weights`; rows are then drawn with replacement.
            least: Rows of the last batch; fewer than that are added to the one before.
        """
        self.epoch = 0
        self._n_skipped = 0
        self._n_rows, self._batch_size, self._least = n_rows, batch_size, least
        self._seed, self._is_training = seed, is_training
        self._shares = None if weights is None else weights / weights.sum()

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next pass is."""
        self.epoch = epoch

    def skip(self, n_batches: int) -> None:
        """Leave out the first batches of the next pass, which an earlier run has done."""
        self._n_skipped = n_batches

    def __len__(self) -> int:
        return len(self._cuts(len(self._own(np.arange(self._n_rows)))))

    def __iter__(self) -> Iterator[list[Place]]:
        epoch, first, self._n_skipped = self.epoch, self._n_skipped, 0
        order = self._own(self._order(epoch))
        for start, stop in self._cuts(len(order))[first:]:
            yield [(epoch, int(place)) for place in order[start:stop]]

    def _order(self, epoch: int) -> NDArray[np.int64]:
        rng = np.random.default_rng([self._seed, epoch])
        if self._shares is not None:
            return rng.choice(self._n_rows, self._n_rows, p=self._shares)
        return rng.permutation(self._n_rows) if self._is_training else np.arange(self._n_rows)

    def _own(self, order: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return this process's part; where it does not come out even, some rows come twice."""
        rank, n_processes = _processes() if self._is_training else (0, 1)
        whole = -(-len(order) // n_processes) * n_processes
        return np.resize(order, whole)[rank::n_processes]

    def _cuts(self, n: int) -> list[tuple[int, int]]:
        """Return where batches begin and end."""
        starts = list(range(0, n, self._batch_size))
        if len(starts) > 1 and n - starts[-1] < self._least:
            starts.pop()
        return list(zip(starts, [*starts[1:], n], strict=True))


def _class_weights(task: Task, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    labelled = task.labelled[rows]
    return np.where(labelled, balanced_weights(task.y, rows[labelled])[rows], 1.0)


def _processes() -> tuple[int, int]:
    """Return this process's number, and how many there are."""
    import torch.distributed as distributed

    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
