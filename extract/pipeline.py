"""From a dataset to vectors in the store: each image decoded once, for every encoder that lacks it."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.convert import to_8bit
from extract.decode import ImageError, read_image
from extract.encoder import Encoder
from extract.infobar import FINDERS
from store import Crop, Dataset, FeatureStore, ImageBlock, ImageRef, InputError, StoreError, TextBlock

WRITE_ROWS = 1024  # one chunk of the store
BATCH_ROWS = 64  # for encoders without weights
MAX_WORKERS = 16
N_EXAMPLES = 5

Progress = Callable[[int, int], None]
"""Called with (distinct items done, distinct items to do)."""


@dataclass(frozen=True)
class SpaceReport:
    """What happened to one block in one feature space.

    Attributes:
        name: ``image:bf@efficientnet_b0``.
        fingerprint: The space's.
        dim: d.
        rows: Rows of the block that have a file or text; ``embedded + present + failed``.
        embedded: Vectors computed now; rows of equal content count once.
        present: Rows whose vector was there already, or was computed for another row.
        failed: Rows without a vector.
        seconds: Wall time of the pass over the images or texts, shared by its encoders.
        rows_per_second: ``embedded / seconds``.
        device: ``"cpu"`` or ``"cuda"``.
        engine: ``"openvino"``, ``"torch"``, ``"numpy"``; ``"none"`` if no engine was needed.
        bottleneck: ``"decode"``, ``"forward"``, ``"store"``; ``"none"`` if nothing was embedded.
        note: Why another engine than the usual one ran, or "".
        failures: Examples of (row id, reason).
    """

    name: str
    fingerprint: str
    dim: int
    rows: int
    embedded: int
    present: int
    failed: int
    seconds: float
    rows_per_second: float
    device: str
    engine: str
    bottleneck: str
    note: str
    failures: tuple[tuple[str, str], ...]


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

    @property
    def bottleneck(self) -> str:
        """The part that took most."""
        return max(self.spent, key=lambda part: self.spent[part])


class Lane:
    """One feature space on its way into the store: prepared items, finished vectors, failures."""

    def __init__(self, encoder: Encoder, store: FeatureStore, *, batch_size: int | None, clock: Clock) -> None:
        self.encoder = encoder
        self.missing: set[str] = set()
        self.embedded: set[str] = set()
        self._store = store
        self._clock = clock
        self._batch_size = batch_size or int(getattr(encoder, "batch_size", BATCH_ROWS))
        self._prepared: list[tuple[str, Any]] = []
        self._keys: list[str] = []
        self._vectors: list[NDArray[np.float32]] = []
        self._reasons: dict[str, str] = {}

    def add(self, key: str, prepared: Any) -> None:
        """Take one prepared item; encode when a batch is full, write when a chunk is."""
        self._prepared.append((key, prepared))
        if len(self._prepared) >= self._batch_size:
            self.encode()

    def fail(self, key: str, reason: str) -> None:
        """Note that an item cannot be embedded."""
        self._reasons[key] = reason

    def encode(self) -> None:
        """Encode what is prepared; a batch that does not fit is halved, and stays so."""
        while self._prepared:
            batch = self._prepared[: self._batch_size]
            with self._clock.measure("forward"):
                try:
                    vectors = self.encoder.encode([item for _, item in batch])
                except MemoryError:
                    if self._batch_size == 1:
                        raise
                    self._batch_size = max(1, min(self._batch_size, len(batch)) // 2)
                    continue
            del self._prepared[: len(batch)]
            finite = np.asarray(np.isfinite(vectors).all(axis=1))
            for (key, _), good in zip(batch, finite, strict=True):
                if good:
                    self._keys.append(key)
                else:
                    self.fail(key, "its vector is not finite")
            self._vectors.append(vectors[finite])
            if len(self._keys) >= WRITE_ROWS:
                self.write()

    def write(self) -> None:
        """Write what is encoded, and what failed."""
        keys, vectors, reasons = self._keys, self._vectors, self._reasons
        self._keys, self._vectors, self._reasons = [], [], {}
        with self._clock.measure("store"):
            if keys:
                provenance = getattr(self.encoder, "provenance", None)
                self._store.write(self.encoder.space, keys, np.concatenate(vectors), provenance=provenance)
                self.embedded.update(keys)
            if reasons:
                self._store.fail(self.encoder.space, reasons)

    def expect(self) -> None:
        """Tell an encoder with weights how much will come, so that it picks its engine."""
        if (runner := getattr(self.encoder, "runner", None)) is not None:
            runner.expected = len(self.missing)


@dataclass
class Want:
    """One block and one encoder: what is reported."""

    block: str
    ids: NDArray[np.str_]
    items: Sequence[Any]
    keys: Sequence[str | None]
    lane: Lane
    claimed: set[str]

    @property
    def known_keys(self) -> list[str]:
        """Keys of the rows that can be read."""
        return [key for key in self.keys if key is not None]


def extract_features(
    dataset: Dataset,
    encoders: Mapping[str, Sequence[Encoder]],
    store: FeatureStore,
    *,
    batch_size: int | None = None,
    retry: bool = False,
    progress: Progress | None = None,
) -> list[SpaceReport]:
    """Embed whatever the store lacks.

    What is finished is kept: an interrupted run, or one that fails later, goes on where it stopped.

    Args:
        dataset: Whose images and texts.
        encoders: By block: ``{"image:bf": [...], "text:notes": [...]}`` (`make_encoders` gives this).
        store: Where the vectors go.
        batch_size: Rows per forward pass; by default what suits the encoder. Halved when memory runs out.
        retry: Try again what failed in an earlier run.
        progress: Called after each item.

    Returns:
        One report per block and encoder, in the order of `encoders`.

    Raises:
        InputError: No such block.
        StoreError: The store is damaged, full or not writable.
    """
    clocks = {"image": Clock(), "text": Clock()}
    lanes: dict[str, Lane] = {}
    wants: list[Want] = []
    for block, chosen in encoders.items():
        items, keys = _items(dataset, block)
        for encoder in chosen:
            space = encoder.space
            clock = clocks[space.modality]
            lane = lanes.setdefault(space.fingerprint, Lane(encoder, store, batch_size=batch_size, clock=clock))
            known = [key for key in keys if key is not None]
            claimed = set(store.missing(space, known, retry=retry)) - lane.missing
            lane.missing |= claimed
            wants.append(Want(block, dataset.ids, items, keys, lane, claimed))
    seconds = _run(wants, list(lanes.values()), progress)
    return [_report(want, store, clocks, seconds) for want in wants]


def probe_images(dataset: Dataset, *, progress: Progress | None = None) -> list[tuple[str, str, str]]:
    """Read every image once and return (row id, block, reason) for those that cannot be used, in row order."""
    todo = {(name, ref): block for name, block in dataset.images.items() for ref in block.refs if ref is not None}
    reasons: dict[tuple[str, ImageRef], str | None] = {}
    calls = [(key, lambda key=key, block=block: _probe(key[1], block)) for key, block in todo.items()]
    for done, (key, reason) in enumerate(_in_order(calls), start=1):
        reasons[key] = reason
        if progress:
            progress(done, len(todo))
    return [
        (str(row_id), name, reason)
        for name, block in dataset.images.items()
        for row_id, ref in zip(dataset.ids, block.refs, strict=True)
        if ref is not None and (reason := reasons[name, ref]) is not None
    ]


# --- the two passes ---


def _run(wants: Sequence[Want], lanes: Sequence[Lane], progress: Progress | None) -> dict[str, float]:
    """Embed what is missing and return the wall seconds per modality."""
    n_items = {modality: _distinct(lanes, modality) for modality in ("image", "text")}
    total, done, seconds = sum(n_items.values()), 0, {}
    for modality, run in (("image", _embed_images), ("text", _embed_texts)):
        start = time.perf_counter()
        mine = [lane for lane in lanes if lane.encoder.space.modality == modality and lane.missing]
        for lane in mine:
            lane.expect()
        with _kept(mine):
            for _ in run([want for want in wants if want.lane in mine], mine):
                done += 1
                if progress:
                    progress(done, total)
        seconds[modality] = time.perf_counter() - start
    return seconds


def _distinct(lanes: Iterable[Lane], modality: str) -> int:
    missing = [lane.missing for lane in lanes if lane.encoder.space.modality == modality]
    return len(set().union(*missing)) if modality == "image" else sum(map(len, missing))


@contextmanager
def _kept(lanes: Sequence[Lane]) -> Iterator[None]:
    """Encode and write the rest at the end; when something ends the run early, write what is encoded."""
    try:
        yield
        for lane in lanes:
            lane.encode()
    except StoreError:
        raise  # what the store did not take now it will not take a moment later
    except BaseException:
        for lane in lanes:
            lane.write()
        raise
    for lane in lanes:
        lane.write()


def _embed_images(wants: Sequence[Want], lanes: Sequence[Lane]) -> Iterator[str]:
    """Decode every distinct image once and hand it to all lanes that lack it; yield its key when that is done."""
    refs: dict[str, ImageRef] = {}
    for want in wants:
        for key, ref in zip(want.keys, want.items, strict=True):
            if key in want.claimed:
                refs.setdefault(key, ref)
    lacking = {key: [lane for lane in lanes if key in lane.missing] for key in refs}
    calls = [(key, lambda key=key, ref=ref: _prepare(ref, lacking[key])) for key, ref in refs.items()]
    prepared = _in_order(calls)
    clock = lanes[0]._clock if lanes else Clock()
    while True:
        with clock.measure("decode"):
            found = next(prepared, None)
        if found is None:
            return
        key, outcomes = found
        for lane, outcome in zip(lacking[key], outcomes, strict=True):
            if isinstance(outcome, ImageError):
                lane.fail(key, str(outcome))
            else:
                lane.add(key, outcome)
        yield key


def _embed_texts(wants: Sequence[Want], lanes: Sequence[Lane]) -> Iterator[str]:
    """Embed texts from short to long, so that little is padded."""
    texts = {key: text for want in wants for key, text in zip(want.keys, want.items, strict=True) if key is not None}
    for lane in lanes:
        for key in sorted(lane.missing, key=lambda key: (len(texts[key]), key)):
            lane.add(key, lane.encoder.prepare(texts[key]))
            yield key


def _in_order(calls: Iterable[tuple[Any, Callable[[], Any]]]) -> Iterator[tuple[Any, Any]]:
    """Run calls in worker threads, a bounded number ahead, and yield (key, result) in order.

    Threads, because decoding, conversion and resizing release Python's lock.
    """
    n_workers = min(_n_cores(), MAX_WORKERS)
    ahead: deque[tuple[Any, Future[Any]]] = deque()
    pool = ThreadPoolExecutor(n_workers)
    try:
        for key, call in calls:
            ahead.append((key, pool.submit(call)))
            if len(ahead) >= 16 * n_workers:
                first, future = ahead.popleft()
                yield first, future.result()
        while ahead:
            first, future = ahead.popleft()
            yield first, future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# --- one image ---


def _prepare(ref: ImageRef, lanes: Sequence[Lane]) -> list[Any]:
    """Return per lane what its encoder takes, or the `ImageError`; the file is decoded once."""
    try:
        pixels = read_image(ref.path, ref.page)
    except ImageError as error:
        return [error] * len(lanes)
    views: dict[tuple[Crop, str], Any] = {}
    outcomes = []
    for lane in lanes:
        space = lane.encoder.space
        view = (space.crop_bottom_px, space.convert or "none")
        try:
            if view not in views:
                views[view] = to_8bit(crop(pixels, view[0]), view[1])
            outcomes.append(lane.encoder.prepare(views[view]))
        except ImageError as error:
            outcomes.append(error)
    return outcomes


def crop(pixels: NDArray[Any], bottom: Crop) -> NDArray[Any]:
    """Return the image without its lowest rows: so many, or as many as an info bar is found to have.

    Raises:
        ImageError: Nothing would be left.
    """
    bottom_px = FINDERS[bottom](pixels) if isinstance(bottom, str) else bottom
    if bottom_px >= len(pixels):
        raise ImageError(f"has {len(pixels)} rows of pixels; crop_bottom_px = {bottom_px} leaves none")
    return pixels[: len(pixels) - bottom_px]


def _probe(ref: ImageRef, block: ImageBlock) -> str | None:
    try:
        to_8bit(crop(read_image(ref.path, ref.page), block.crop_bottom_px), block.convert)
    except ImageError as error:
        return str(error)
    return None


# --- what is reported ---


def _items(dataset: Dataset, block: str) -> tuple[Sequence[Any], list[str | None]]:
    """Return the items of ``image:NAME`` or ``text:NAME`` and their keys, in row order."""
    modality, _, name = block.partition(":")
    blocks: Mapping[str, Mapping[str, ImageBlock | TextBlock]] = {"image": dataset.images, "text": dataset.texts}
    found = blocks.get(modality, {}).get(name)
    if found is None:
        known = [f"image:{x}" for x in dataset.images] + [f"text:{x}" for x in dataset.texts]
        raise InputError(f"no block '{block}' in this dataset: expected one of {', '.join(known) or 'none'}")
    return found.refs if isinstance(found, ImageBlock) else found.texts, found.keys()


def _report(want: Want, store: FeatureStore, clocks: Mapping[str, Clock], seconds: Mapping[str, float]) -> SpaceReport:
    lane, space = want.lane, want.lane.encoder.space
    n_embedded = len(want.claimed & lane.embedded)
    failures = _failures(want, store)
    n_rows = sum(item is not None for item in want.items)
    wall = seconds[space.modality] if n_embedded else 0.0
    runner = getattr(lane.encoder, "runner", None)
    device, engine = ("cpu", "numpy") if runner is None else runner.describe()
    return SpaceReport(
        name=f"{want.block}@{space.encoder}",
        fingerprint=space.fingerprint,
        dim=space.dim,
        rows=n_rows,
        embedded=n_embedded,
        present=n_rows - n_embedded - len(failures),
        failed=len(failures),
        seconds=round(wall, 3),
        rows_per_second=round(n_embedded / wall, 1) if wall else 0.0,
        device=device,
        engine=engine,
        bottleneck=clocks[space.modality].bottleneck if n_embedded else "none",
        note="" if runner is None else runner.note,
        failures=tuple(failures[:N_EXAMPLES]),
    )


def _failures(want: Want, store: FeatureStore) -> list[tuple[str, str]]:
    """Return (row id, reason) of every row without a vector."""
    recorded = store.failures(want.lane.encoder.space)
    found = []
    for row_id, item, key in zip(want.ids, want.items, want.keys, strict=True):
        if item is None:
            continue
        if key is None:
            found.append((str(row_id), _why_unread(item)))
        elif key in recorded:
            found.append((str(row_id), recorded[key]))
    return found


def _why_unread(ref: ImageRef) -> str:
    try:
        read_image(ref.path, ref.page)
    except ImageError as error:
        return str(error)
    return "could not be read when its content was hashed"
