"""From a dataset to vectors in the store: each image decoded once, for every encoder that lacks it."""

import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import compress
from typing import Any, TypeVar

from numpy.typing import NDArray

from extract.decode import ImageError, read_image
from extract.encoder import Encoder
from extract.lane import IN_FLIGHT, Clock, Lane
from extract.rounds import Unit, claimed, rounds
from extract.shard import Shard
from extract.view import render
from store import (
    Dataset,
    FeatureStore,
    Hashes,
    ImageBlock,
    ImageRef,
    Progress,
    StoreError,
    find_block,
    hash_files,
    text_key,
    view_settings,
)

MAX_WORKERS = 16
AHEAD = 16  # images per worker that may be prepared before they are asked for; fewer where one gives many elements

T = TypeVar("T")

Sources = tuple[ImageRef, ...]
"""The files of one image: one, or those of a stack."""


Prepared = tuple[list[tuple[str, Lane, Any]], Clock]
"""What lanes get of some images, and where the time went."""


@dataclass(frozen=True)
class SpaceReport:
    """What happened to one block in one feature space; ``rows = embedded + shared + present + failed``.

    Attributes:
        name: ``image:bf@efficientnet_b0``.
        fingerprint: The space's.
        dim: d.
        rows: Rows of the block that have a file or text.
        embedded: Vectors computed now; rows of equal content count once.
        shared: Rows whose vector was computed now for another row, of equal content.
        present: Rows whose vector was there already.
        failed: Rows without a vector.
        seconds: Wall time of the pass over the images or texts, shared by its encoders.
        rows_per_second: ``embedded / seconds``.
        device: ``"cpu"`` or ``"cuda"``.
        engine: ``"openvino"``, ``"torch"``, ``"numpy"``; ``"none"`` if no engine was needed.
        bottleneck: ``"decode"``, ``"forward"`` (the encoder's work), ``"store"``; ``"none"`` if nothing was embedded.
        note: Why another engine than the usual one ran, or "".
        failures: (row id, reason) of each row without a vector.
    """

    name: str
    fingerprint: str
    dim: int
    rows: int
    embedded: int
    shared: int
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
class Want:
    """One block and one encoder: what is reported."""

    block: str
    ids: Sequence[str]
    items: Sequence[Any]
    keys: Sequence[str | None]
    lane: Lane
    lacking: set[str]


def extract_features(
    dataset: Dataset,
    encoders: Mapping[str, Sequence[Encoder]],
    store: FeatureStore,
    *,
    batch_size: int | None = None,
    retry: bool = False,
    shard: Shard | None = None,
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
        shard: Only the rows that belong to this part; the reports count no others.
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
    hashes = hash_files(find_block(dataset, block) for block in encoders)
    with _workers(IN_FLIGHT) as workers:
        for block, chosen in encoders.items():
            ids, items, keys = _rows(dataset, block, hashes, shard)
            known = [key for key in keys if key is not None]
            for encoder in chosen:
                clock = clocks[encoder.space.modality]
                lane = Lane(encoder, store, batch_size=batch_size, clock=clock, workers=workers, retry=retry)
                lane = lanes.setdefault(encoder.space.fingerprint, lane)
                lacking = set(store.missing(encoder.space, known, retry=retry)) - lane.missing
                lane.missing |= lacking
                wants.append(Want(block, ids, items, keys, lane, lacking))
        seconds = _run(wants, list(lanes.values()), progress)
    return [_report(want, store, clocks, seconds) for want in wants]


def probe_images(dataset: Dataset, *, progress: Progress | None = None) -> list[tuple[str, str, str]]:
    """Read every image once and return (row id, block, reason) for those that cannot be used, in row order."""
    todo = {(name, refs): block for name, block in dataset.images.items() for refs in block.sources if refs is not None}
    reasons: dict[tuple[str, Sources], str | None] = {}
    calls = [(key, lambda key=key, block=block: _probe(key[1], block)) for key, block in todo.items()]
    for done, (key, reason) in enumerate(_in_order(calls), start=1):
        reasons[key] = reason
        if progress:
            progress(done, len(todo))
    return [
        (str(row_id), name, reason)
        for name, block in dataset.images.items()
        for row_id, refs in zip(dataset.ids, block.sources, strict=True)
        if refs is not None and (reason := reasons[name, refs]) is not None
    ]


def _rows(
    dataset: Dataset, block: str, hashes: Hashes, shard: Shard | None
) -> tuple[Sequence[str], Sequence[Any], Sequence[str | None]]:
    """Return ids, files or texts (None where a row has none), and keys of a block's rows; of a shard, only its own.

    A row that cannot be read has no key; its id decides.
    """
    found = find_block(dataset, block)
    ids, items = dataset.ids.tolist(), found.sources if isinstance(found, ImageBlock) else found.texts
    keys = found.keys(hashes)
    if shard is None:
        return ids, items, keys
    held = [shard.holds(key or text_key(row)) for row, key in zip(ids, keys, strict=True)]
    return list(compress(ids, held)), list(compress(items, held)), list(compress(keys, held))


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
                    progress(min(done, total), total)
        seconds[modality] = time.perf_counter() - start
    return seconds


def _distinct(lanes: Iterable[Lane], modality: str) -> int:
    missing = [lane.missing for lane in lanes if lane.encoder.space.modality == modality]
    return len(set().union(*missing)) if modality == "image" else sum(map(len, missing))


@contextmanager
def _kept(lanes: Sequence[Lane]) -> Iterator[None]:
    """When something ends the run early, write what is encoded, and leave the rest to others."""
    try:
        yield
    except StoreError:
        raise  # what the store did not take now it will not take a moment later
    except BaseException:
        for lane in lanes:
            lane.write()
        raise
    finally:
        for lane in lanes:
            lane.release()


def _embed_images(wants: Sequence[Want], lanes: Sequence[Lane]) -> Iterator[str]:
    """Decode every distinct image once and hand it to all lanes that lack it; yield its key when that is done."""
    sources: dict[str, Sources] = {}
    for want in wants:
        for key, refs in zip(want.keys, want.items, strict=True):
            if key in want.lacking:
                sources.setdefault(key, refs)

    def call(unit: Unit) -> Callable[[], Prepared]:
        lacking = {key: [lane for lane in lanes if key in lane.claimed] for key in unit}
        return lambda: _prepare({key: sources[key] for key in unit if lacking[key]}, lacking)

    for units in rounds(_sharing(sources), lanes):
        yield from _hand_out(((unit, call(unit)) for unit in claimed(units, lanes)), lanes)


def _hand_out(calls: Iterable[tuple[Unit, Callable[[], Any]]], lanes: Sequence[Lane]) -> Iterator[str]:
    """Prepare images ahead, give them to their lanes in order, and yield their keys."""
    n_looks = sum(getattr(lane.encoder, "n_looks", 1) for lane in lanes)
    prepared = _in_order(calls, ahead=max(2, min(AHEAD, 4 * AHEAD // max(1, n_looks))))
    clock = lanes[0].clock if lanes else Clock()
    while True:
        begun = time.perf_counter()
        found = next(prepared, None)
        if found is None:
            return
        unit, (outcomes, spent) = found
        clock.divide(time.perf_counter() - begun, spent)
        for key, lane, outcome in outcomes:
            if isinstance(outcome, ImageError):
                lane.fail(key, str(outcome))
            else:
                lane.add(key, outcome)
        yield from unit


def _sharing(sources: Mapping[str, Sources]) -> list[list[str]]:
    """Put images together whose files are decoded together: stacks with those of their parts; in order of first use.

    A file that stands in several stacks is decoded for each of them.
    """
    units: list[list[str]] = []
    owners: dict[ImageRef, list[str]] = {}
    for key, refs in sorted(sources.items(), key=lambda item: -len(item[1])):
        unit = owners.get(refs[0])
        if unit is None or any(owners.get(ref) is not unit for ref in refs):
            unit = []
            units.append(unit)
        unit.append(key)
        for ref in refs:
            owners.setdefault(ref, unit)
    return units


def _embed_texts(wants: Sequence[Want], lanes: Sequence[Lane]) -> Iterator[str]:
    """Embed texts from short to long, so that little is padded."""
    texts = {key: text for want in wants for key, text in zip(want.keys, want.items, strict=True) if key is not None}
    for lane in lanes:
        ordered = sorted(lane.missing, key=lambda key: (len(texts[key]), key))
        for units in rounds([(key,) for key in ordered], [lane]):
            for (key,) in claimed(units, [lane]):
                if key in lane.claimed:
                    lane.add(key, lane.prepare(texts[key], lane.clock))
                yield key


def _in_order(calls: Iterable[tuple[Any, Callable[[], Any]]], *, ahead: int = AHEAD) -> Iterator[tuple[Any, Any]]:
    """Run calls in worker threads, at most `ahead` per worker before they are asked for; yield (key, result) in order.

    Threads, because decoding, conversion and resizing release Python's lock.
    """
    n_workers = min(_n_cores(), MAX_WORKERS)
    waiting: deque[tuple[Any, Future[Any]]] = deque()
    with _workers(n_workers) as pool:
        for key, call in calls:
            waiting.append((key, pool.submit(call)))
            if len(waiting) >= ahead * n_workers:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()


@contextmanager
def _workers(n: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that drop what they have not begun when the block ends."""
    pool = ThreadPoolExecutor(n)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# --- one image ---


def _prepare(items: Mapping[str, Sources], lacking: Mapping[str, Sequence[Lane]]) -> Prepared:
    """Return (key, lane, what its encoder takes or the `ImageError`) of images that share files; each is decoded once.

    Lanes that see the same pixels follow each other, so that only one view is in memory at a time.
    """
    clock = Clock()
    with clock.measure("decode"):
        files = {ref: _read(ref) for ref in {ref for refs in items.values() for ref in refs}}
    outcomes: list[tuple[str, Lane, Any]] = []
    for key, refs in items.items():
        for lanes in _alike(lacking[key]):
            try:
                with clock.measure("decode"):
                    seen = render(_all_read(files[ref] for ref in refs), view_settings(lanes[0].encoder.space))
                outcomes += [(key, lane, lane.prepare(seen, clock)) for lane in lanes]
            except ImageError as error:
                outcomes += [(key, lane, error) for lane in lanes]
    return outcomes, clock


def _alike(lanes: Iterable[Lane]) -> list[list[Lane]]:
    """Put lanes together that see the same pixels."""
    groups: dict[str, list[Lane]] = {}
    for lane in lanes:
        groups.setdefault(json.dumps(view_settings(lane.encoder.space)), []).append(lane)
    return list(groups.values())


def _read(ref: ImageRef) -> NDArray[Any] | ImageError:
    try:
        return read_image(ref.path, ref.page)
    except ImageError as error:
        return error


def _all_read(images: Iterable[NDArray[Any] | ImageError]) -> list[NDArray[Any]]:
    found = []
    for image in images:
        if isinstance(image, ImageError):
            raise image
        found.append(image)
    return found


def _probe(refs: Sources, block: ImageBlock) -> str | None:
    try:
        render(_all_read(map(_read, refs)), view_settings(block))
    except ImageError as error:
        return str(error)
    return None


# --- what is reported ---


def _report(want: Want, store: FeatureStore, clocks: Mapping[str, Clock], seconds: Mapping[str, float]) -> SpaceReport:
    lane, space = want.lane, want.lane.encoder.space
    n_embedded = len(want.lacking & lane.embedded)
    n_served = sum(key in lane.embedded for key in want.keys)
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
        shared=n_served - n_embedded,
        present=n_rows - n_served - len(failures),
        failed=len(failures),
        seconds=round(wall, 3),
        rows_per_second=round(n_embedded / wall, 1) if wall else 0.0,
        device=device,
        engine=engine,
        bottleneck=clocks[space.modality].bottleneck if n_embedded else "none",
        note="" if runner is None else runner.note,
        failures=tuple(failures),
    )


def _failures(want: Want, store: FeatureStore) -> list[tuple[str, str]]:
    """Return (row id, reason) of every row without a vector."""
    recorded = store.failures(want.lane.encoder.space)
    found = []
    for row_id, item, key in zip(want.ids, want.items, want.keys, strict=True):
        if item is None:
            continue
        if key is None:
            found.append((row_id, _why_unread(item)))
        elif key in recorded:
            found.append((row_id, recorded[key]))
    return found


def _why_unread(refs: Sources) -> str:
    try:
        _all_read(map(_read, refs))
    except ImageError as error:
        return str(error)
    return "could not be read when its content was hashed"
