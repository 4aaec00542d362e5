"""From a dataset to vectors in the store: each image decoded once, for every encoder that lacks it."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import compress
from typing import Any

from extract.ahead import in_order, worker_threads
from extract.contract import Encoder
from extract.decode import ImageError
from extract.lane import IN_FLIGHT, Clock, Lane
from extract.outcome import Pass, SpaceReport, Want, make_report, told_apart
from extract.preparation import Outcome, Sources, prepare
from extract.rounds import Unit, claimed, rounds
from extract.shard import Shard
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
)


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
    with worker_threads(IN_FLIGHT) as workers:
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
        passes = _run(wants, list(lanes.values()), clocks, progress)
    return told_apart([make_report(want, dataset, store, passes) for want in wants])


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


def _run(
    wants: Sequence[Want], lanes: Sequence[Lane], clocks: Mapping[str, Clock], progress: Progress | None
) -> dict[str, Pass]:
    """Embed what is missing and return the pass of each modality."""
    n_items = {modality: _distinct(lanes, modality) for modality in ("image", "text")}
    total, done, passes = sum(n_items.values()), 0, {}
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
        worked = sum(lane.worked for lane in mine if lane.embedded)
        passes[modality] = Pass(time.perf_counter() - start, clocks[modality], worked)
    return passes


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

    def call(unit: Unit) -> Callable[[], tuple[list[Outcome], Clock]]:
        lacking = {key: [lane for lane in lanes if key in lane.claimed] for key in unit}
        return lambda: prepare({key: sources[key] for key in unit if lacking[key]}, lacking)

    for units in rounds(_sharing(sources), lanes):
        yield from _hand_out(((unit, call(unit)) for unit in claimed(units, lanes)), lanes)


def _hand_out(calls: Iterable[tuple[Unit, Callable[[], Any]]], lanes: Sequence[Lane]) -> Iterator[str]:
    """Prepare images ahead, give them to their lanes in order, and yield their keys."""
    prepared = in_order(calls, n_parts=sum(lane.encoder.n_looks for lane in lanes))
    clock = lanes[0].clock if lanes else Clock()
    while True:
        begun = time.perf_counter()
        found = next(prepared, None)
        if found is None:
            return
        unit, (outcomes, spent) = found
        clock.divide(time.perf_counter() - begun, spent)
        for outcome in outcomes:
            if isinstance(outcome.item, ImageError):
                outcome.lane.fail(outcome.key, str(outcome.item))
            else:
                outcome.lane.is_deep |= outcome.is_deep
                outcome.lane.n_small += outcome.is_small
                outcome.lane.add(outcome.key, outcome.item, outcome.seconds)
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
