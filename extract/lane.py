"""One feature space on its way from prepared items to stored vectors."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.batch import BatchSize
from extract.contract import Encoder
from store import FeatureStore

WRITE_ROWS = 1024  # one chunk of the store
WRITE_SECONDS = 10.0  # what is encoded waits no longer for its chunk to fill: that much a killed run loses
IN_FLIGHT = 2  # batches an encoder has at once: while the last parts of one run, the next one fills the other cores

Batch = list[tuple[str, Any]]


@dataclass
class Clock:
    """Where the main thread's time goes, in seconds."""

    spent: dict[str, float] = field(default_factory=lambda: {"decode": 0.0, "forward": 0.0, "store": 0.0})

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Add the block's time to `part`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.spent[part] += time.perf_counter() - start

    def divide(self, seconds: float, like: "Clock") -> None:
        """Add time that was waited for others, divided as theirs was."""
        whole = sum(like.spent.values())
        for part, spent in like.spent.items():
            self.spent[part] += seconds * spent / whole if whole else 0.0

    @property
    def bottleneck(self) -> str:
        """The part that took most."""
        return max(self.spent, key=lambda part: self.spent[part])


class Lane:
    """Prepared items, batches on their way, finished vectors, failures.

    Attributes:
        missing: Keys still to be embedded, by whomever.
        claimed: Those of them that this process embeds; written or failed, they leave both.
        embedded: Keys embedded and stored by this process; not those that another one stored meanwhile.
        is_patient: Whether what other processes claimed is left to them.
        is_deep: Whether any image that it was given has more than 8 bits.
        n_small: Images that it was given with a side shorter than their tiles were to be.
        worked: Seconds of work for it, in whatever threads; decoding is everybody's.
    """

    def __init__(
        self,
        encoder: Encoder,
        store: FeatureStore,
        *,
        batch_size: int | None,
        clock: Clock,
        workers: Executor,
        retry: bool = False,
    ) -> None:
        self.encoder = encoder
        self.clock = clock
        self.missing: set[str] = set()
        self.claimed: set[str] = set()
        self.embedded: set[str] = set()
        self.is_patient = True
        self.is_deep = False
        self.n_small = 0
        self.worked = 0.0
        self._is_needed = False
        self._retry = retry
        self._store = store
        self._workers = workers
        self._given_size = batch_size
        self._prepared: Batch = []
        self._running: deque[tuple[Batch, Future[tuple[NDArray[np.float32], float]]]] = deque()
        self._keys: list[str] = []
        self._vectors: list[NDArray[np.float32]] = []
        self._reasons: dict[str, str] = {}
        self._written_at = time.monotonic()

    def claim(self, keys: Sequence[str]) -> None:
        """Take over those of the keys that nobody has embedded and that no other process is embedding."""
        wanted = [key for key in keys if key in self.missing]
        if not self.is_patient:
            self.claimed.update(wanted)
            return
        with self.clock.measure("store"):
            mine, done = self._store.claim(self.encoder.space, wanted, retry=self._retry)
        self.claimed.update(mine)
        self.missing.difference_update(done)

    def prepare(self, item: Any, clock: Clock) -> Any:
        """Return what `add` takes; of an encoder without a network that is nearly all of its work."""
        with clock.measure("forward" if self.encoder.runner is None else "decode"):
            return self.encoder.prepare(item)

    def add(self, key: str, prepared: Any, seconds: float = 0.0) -> None:
        """Take one item that was prepared in so many seconds; encode when a batch is full, write when a chunk is."""
        self.worked += seconds
        self._prepared.append((key, prepared))
        while len(self._prepared) >= self._batch.rows:
            self._start()

    def fail(self, key: str, reason: str) -> None:
        """Note that an item cannot be embedded."""
        self._reasons[key] = reason

    def encode(self) -> None:
        """Encode what is prepared and wait for it."""
        while self._prepared or self._running:
            if self._prepared:
                self._start()
            else:
                self._finish()

    def write(self) -> None:
        """Write what is encoded, and what failed."""
        keys, vectors, reasons = self._keys, self._vectors, self._reasons
        self._keys, self._vectors, self._reasons = [], [], {}
        begun = time.perf_counter()
        with self.clock.measure("store"):
            if keys:
                provenance = self.encoder.provenance
                there = self._store.present(self.encoder.space, keys)
                self._store.write(self.encoder.space, keys, np.concatenate(vectors), provenance=provenance)
                self.embedded.update(compress(keys, ~there))
            if reasons:
                self._store.fail(self.encoder.space, reasons)
            done = [*keys, *reasons]
            self._store.release(self.encoder.space, done)
            self.missing.difference_update(done)
            self.claimed.difference_update(done)
            self._written_at = time.monotonic()
        self.worked += time.perf_counter() - begun

    def release(self) -> None:
        """Give back what is claimed and not written."""
        self._store.release(self.encoder.space, list(self.claimed))

    def expect(self) -> None:
        """Tell an encoder with weights how much will come, so that it picks its engine."""
        self._is_needed = True
        if self.encoder.runner is not None:
            self.encoder.runner.expected = len(self.missing) * self.encoder.n_looks

    @property
    def engine(self) -> tuple[str, str, str]:
        """Device, engine, and a note on why it is not the usual one, or ""."""
        if not self._is_needed:
            return "none", "none", ""
        runner = self.encoder.runner
        return ("cpu", "numpy", "") if runner is None else (*runner.describe(), runner.note)

    @cached_property
    def _batch(self) -> BatchSize:
        """The batch size: what the user gave is fixed; a GPU's is searched for."""
        if self._given_size is not None:
            return BatchSize(self._given_size, grows=False)
        runner = self.encoder.runner
        return BatchSize(self.encoder.batch_size, grows=runner is not None and runner.resolve_device() == "cuda")

    def _start(self) -> None:
        while len(self._running) >= IN_FLIGHT:
            self._finish()
        n_rows = self._batch.rows
        batch, self._prepared = self._prepared[:n_rows], self._prepared[n_rows:]
        self._running.append((batch, self._workers.submit(self._encode, [item for _, item in batch])))

    def _encode(self, items: list[Any]) -> tuple[NDArray[np.float32], float]:
        """Return vectors, and the seconds that they took."""
        begun = time.perf_counter()
        vectors = self.encoder.encode(items)
        return vectors, time.perf_counter() - begun

    def _finish(self) -> None:
        """Wait for the oldest batch; one that does not fit is halved, and stays so."""
        batch, future = self._running.popleft()
        try:
            with self.clock.measure("forward"):
                vectors, seconds = future.result()
        except MemoryError:
            if len(batch) == 1:
                raise
            self._batch.refuse(len(batch))
            self._prepared = batch + self._prepared
            return
        self.worked += seconds
        self._batch.ran(len(batch), seconds)
        finite = np.asarray(np.isfinite(vectors).all(axis=1))
        for (key, _), good in zip(batch, finite, strict=True):
            if good:
                self._keys.append(key)
            else:
                self.fail(key, "its vector is not finite")
        self._vectors.append(vectors[finite])
        if len(self._keys) >= WRITE_ROWS or time.monotonic() - self._written_at > WRITE_SECONDS:
            self.write()
