"""Batches: what the network takes, what it is to predict, and how much each row counts."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray

from extract import ImageError
from finetune.augment import Picture
from finetune.mixing import Inputs, draw_mix, mix_inputs
from finetune.pictures import Change, ImageInput
from finetune.sampling import Place
from heads import metadata_columns
from store import Dataset, InputError, Progress, Rows, Task, usable_cores

CACHE_BYTES = 2 * 2**30  # begun pictures kept in memory
MAX_THREADS = 16


class Network(Protocol):
    """What is asked of a network here: its blueprint, and its text branches' tokenizers."""

    blueprint: Any
    branches: Any

    def modules(self) -> Iterator[torch.nn.Module]:
        """Yield every module."""


@dataclass(frozen=True)
class Other:
    """The other rows that a batch was mixed with: its loss is ``lam`` of its own targets and 1 - lam of theirs.

    Attributes:
        partner: int64 ``(b,)``: position in the batch.
        lam: Share of a row itself.
    """

    partner: torch.Tensor
    lam: float


@dataclass(frozen=True)
class Batch:
    """b rows.

    Attributes:
        rows: int64 ``(b,)``: row numbers of the dataset.
        inputs: By branch: images uint8 ``(b, h, w, 3 p)``; tokens and mask int64 ``(b, t)``; metadata float32
            ``(b, m)``, NaN where missing.
        targets: By task: class index int64 ``(b,)``, -1 where missing or not applicable; or float32 ``(b, t)``, NaN
            there.
        weights: By task: sample weights float32 ``(b,)``.
        other: With MixUp and CutMix: what the inputs are mixed with.
    """

    rows: torch.Tensor
    inputs: Inputs
    targets: dict[str, torch.Tensor]
    weights: dict[str, torch.Tensor]
    other: Other | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def to(self, device: Any, **how: Any) -> Self:
        """Return the batch on a device."""
        return self._each(lambda tensor: tensor.to(device, **how))

    def pin_memory(self) -> Self:
        """Return the batch in memory from which a GPU copies while it computes."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, move: Callable[[torch.Tensor], torch.Tensor]) -> Self:
        def moved(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: moved(one) for name, one in value.items()}
            if isinstance(value, tuple):
                return tuple(map(moved, value))
            if isinstance(value, Other):
                return replace(value, partner=move(value.partner))
            return None if value is None else move(value)

        return replace(self, **{field.name: moved(getattr(self, field.name)) for field in fields(self)})


class RowDataset(torch.utils.data.Dataset[Batch]):
    """The rows of a dataset as a network takes them; every image is read once to begin with.

    Attributes:
        rows: int64 ``(n,)``: the dataset's rows that can be used, in the order given.
        left_out: Why the others cannot, by row id.
    """

    def __init__(
        self,
        dataset: Dataset,
        network: Network,
        rows: Rows,
        *,
        change: Change | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Read and keep what fits into `CACHE_BYTES`.

        Args:
            dataset: Whose rows.
            network: Its blueprint says what it takes; its text branches have the tokenizers.
            rows: Row numbers.
            change: What happens to training inputs; None for validation, which sees none of it.
            progress: Called after each row.
        """
        change = change or Change()
        blueprint = network.blueprint
        self._change = change
        self._tasks = {task.name: dataset.tasks[task.name] for task in blueprint.tasks if task.name in dataset.tasks}
        self._metadata = _metadata(dataset, blueprint.columns)
        self._images = {
            branch.name: ImageInput([dataset.images[name] for name in branch.blocks], branch.preprocess, change)
            for branch in blueprint.branches
            if branch.kind == "image"
        }
        texts = {b.name: dataset.texts[b.blocks[0]].texts for b in blueprint.branches if b.kind == "text"}
        self._kept: dict[int, dict[str, list[Picture]]] = {}
        self._n_bytes = 0
        reasons = self._begin_all(rows, texts, progress)
        self.left_out = {str(dataset.ids[row]): reason for row, reason in zip(rows, reasons, strict=True) if reason}
        self.rows = rows[[reason is None for reason in reasons]]
        self._ids = dataset.ids
        self._tokens = {
            branch.name: _Tokens(network.branches[branch.name].tokenizer, texts[branch.name], self.rows, branch)
            for branch in blueprint.branches
            if branch.kind == "text"
        }

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: Place) -> Batch:
        """Return a batch of one row: its position in `rows`, in an epoch."""
        return self.__getitems__([place])

    def __getitems__(self, places: Sequence[Place]) -> Batch:
        """Return a batch; mixed where MixUp or CutMix are on."""
        rows = self.rows[[position for _, position in places]]
        pixels = [self._pixels(int(row), epoch) for (epoch, _), row in zip(places, rows, strict=True)]
        inputs: Inputs = {name: torch.from_numpy(np.stack([one[name] for one in pixels])) for name in self._images}
        inputs |= {name: tokens.batch(rows) for name, tokens in self._tokens.items()}
        if self._metadata is not None:
            inputs["metadata"] = torch.from_numpy(self._metadata[rows])
        targets = {name: torch.from_numpy(_target(task, rows)) for name, task in self._tasks.items()}
        weights = {name: torch.from_numpy(_weight(task, rows)) for name, task in self._tasks.items()}
        batch = Batch(torch.from_numpy(rows), inputs, targets, weights)
        return self._mixed(batch, epoch=places[0][0])

    def _mixed(self, batch: Batch, *, epoch: int) -> Batch:
        """Mix each row with the one before it; how depends on the batch's first row."""
        augment = self._change.augment
        if augment is None:
            return batch
        rng = np.random.default_rng([self._change.seed, epoch, int(batch.rows[0]), 2])
        mix = draw_mix(augment, rng)
        if mix is None:
            return batch
        partner = torch.arange(len(batch)).roll(1)
        inputs, lam = mix_inputs(batch.inputs, mix, partner)
        return replace(batch, inputs=inputs, other=Other(partner, lam))

    def _pixels(self, row: int, epoch: int) -> dict[str, NDArray[np.uint8]]:
        try:
            begun = self._kept.get(row) or {name: image.begin(row) for name, image in self._images.items()}
        except ImageError as error:
            raise InputError(f"row '{self._ids[row]}' could be read before and cannot now: {error}") from None
        return {name: image.finish(begun[name], epoch=epoch, row=row) for name, image in self._images.items()}

    def _begin_all(self, rows: Rows, texts: dict[str, Any], progress: Progress | None) -> list[str | None]:
        """Begin every row, keep what fits, and return why a row cannot be used, None where it can."""
        reasons: list[str | None] = []
        with ThreadPoolExecutor(min(MAX_THREADS, len(usable_cores()))) as pool:
            for reason in pool.map(lambda row: self._begin(int(row), texts), rows):
                reasons.append(reason)
                if progress:
                    progress(len(reasons), len(rows))
        return reasons

    def _begin(self, row: int, texts: dict[str, Any]) -> str | None:
        for name, of_rows in texts.items():
            if of_rows[row] is None:
                return f"has no text for [texts.{name}]"
        try:
            begun = {name: image.begin(row) for name, image in self._images.items()}
        except (ImageError, LookupError) as error:
            return str(error.args[0])
        n_bytes = sum(picture.nbytes for pictures in begun.values() for picture in pictures)
        if self._n_bytes + n_bytes <= CACHE_BYTES:
            self._n_bytes += n_bytes
            self._kept[row] = begun
        return None


class _Tokens:
    """The tokens of some rows' texts."""

    def __init__(self, tokenizer: Any, texts: Sequence[str | None], rows: Rows, branch: Any) -> None:
        chosen = [str(texts[row]) for row in rows]
        limit = branch.preprocess["max_tokens"]
        found = tokenizer(chosen, truncation=True, max_length=limit)["input_ids"] if chosen else []
        self._ids = dict(zip(rows.tolist(), found, strict=True))
        self._padding = int(tokenizer.pad_token_id)

    def batch(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids and mask, int64 ``(b, t)``, padded to the longest."""
        found = [self._ids[row] for row in rows.tolist()]
        ids = np.full((len(found), max(map(len, found))), self._padding, np.int64)
        mask = np.zeros_like(ids)
        for i, one in enumerate(found):
            ids[i, : len(one)], mask[i, : len(one)] = one, 1
        return torch.from_numpy(ids), torch.from_numpy(mask)


def _metadata(dataset: Dataset, columns: Sequence[str]) -> NDArray[np.float32] | None:
    if not columns:
        return None
    return np.stack(list(metadata_columns(dataset.metadata, columns).values()), axis=1)


def _target(task: Task, rows: Rows) -> NDArray[Any]:
    applies = task.applies[rows]
    if task.kind == "classification":
        return np.where(applies, task.y[rows], -1)
    return np.where(applies[:, None], task.y[rows], np.nan).astype(np.float32)


def _weight(task: Task, rows: Rows) -> NDArray[np.float32]:
    given = task.sample_weight
    return np.ones(len(rows), np.float32) if given is None else given[rows].astype(np.float32)
