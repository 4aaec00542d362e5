"""From files to what encoders take: every file decoded once for all of them, in worker threads."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from extract.ahead import in_order
from extract.decode import ImageError, NoFileError, Pixels, read_image
from extract.lane import Clock, Lane
from extract.view import render
from store import Dataset, ImageBlock, ImageRef, Progress, view_settings

Sources = tuple[ImageRef, ...]
"""The files of one image: one, or those of a stack."""


@dataclass(frozen=True)
class Outcome:
    """What a lane gets of one image.

    Attributes:
        item: What its encoder takes, or why there is nothing to take.
        seconds: What preparing took, after decoding.
        is_deep: Whether the image has more than 8 bits.
        is_small: Whether a side of it is shorter than the tiles that it was to be cut into.
    """

    key: str
    lane: Lane
    item: Any | ImageError
    seconds: float = 0.0
    is_deep: bool = False
    is_small: bool = False


def prepare(items: Mapping[str, Sources], lacking: Mapping[str, Sequence[Lane]]) -> tuple[list[Outcome], Clock]:
    """Return the outcomes of images that share files, and where the time went; each file is decoded once.

    Lanes that see the same pixels follow each other, so that only one view is in memory at a time.
    """
    clock = Clock()
    with clock.measure("decode"):
        files = {ref: _read(ref) for ref in {ref for refs in items.values() for ref in refs}}
    outcomes: list[Outcome] = []
    for key, refs in items.items():
        for lanes in _alike(lacking[key]):
            try:
                settings = view_settings(lanes[0].encoder.space)
                with clock.measure("decode"):
                    images = _all_read(files[ref] for ref in refs)
                    seen = render(images, settings)
                is_deep = any(image.dtype != np.uint8 for image in images)
                about = {"is_deep": is_deep, "is_small": _is_small(seen, settings["tile_px"])}
                outcomes += [_prepared(key, lane, seen, clock, about) for lane in lanes]
            except ImageError as error:
                outcomes += [Outcome(key, lane, error) for lane in lanes]
    return outcomes, clock


def probe_images(dataset: Dataset, *, progress: Progress | None = None) -> list[tuple[str, str, str]]:
    """Read every image once and return (row id, block, reason) for those that cannot be used, in row order.

    Files that are not there, or cannot be opened, are not among them: `check_dataset` names these.
    """
    todo = {(name, refs): block for name, block in dataset.images.items() for refs in block.sources if refs is not None}
    reasons: dict[tuple[str, Sources], str | None] = {}
    calls = [(key, lambda key=key, block=block: _probe(key[1], block)) for key, block in todo.items()]
    for done, (key, reason) in enumerate(in_order(calls), start=1):
        reasons[key] = reason
        if progress:
            progress(done, len(todo))
    return [
        (str(row_id), name, reason)
        for name, block in dataset.images.items()
        for row_id, refs in zip(dataset.ids, block.sources, strict=True)
        if refs is not None and (reason := reasons[name, refs]) is not None
    ]


def why_unread(refs: Sources) -> str:
    """Return why the files of an image could not be hashed."""
    try:
        _all_read(map(_read, refs))
    except ImageError as error:
        return str(error)
    return "could not be read when its content was hashed"


def _prepared(key: str, lane: Lane, seen: Any, clock: Clock, about: Mapping[str, bool]) -> Outcome:
    begun = time.perf_counter()
    item = lane.prepare(seen, clock)
    return Outcome(key, lane, item, time.perf_counter() - begun, **about)


def _is_small(seen: Any, tile_px: int | None) -> bool:
    """Whether the first tile of what `render` gave is no full square: tiles of one image are of one size."""
    return tile_px is not None and min(seen[0][0].shape[:2]) < tile_px


def _alike(lanes: Iterable[Lane]) -> list[list[Lane]]:
    """Put lanes together that see the same pixels."""
    groups: dict[str, list[Lane]] = {}
    for lane in lanes:
        groups.setdefault(json.dumps(view_settings(lane.encoder.space)), []).append(lane)
    return list(groups.values())


def _read(ref: ImageRef) -> Pixels | ImageError:
    try:
        return read_image(ref.path, ref.page)
    except ImageError as error:
        return error


def _all_read(images: Iterable[Pixels | ImageError]) -> list[Pixels]:
    found = []
    for image in images:
        if isinstance(image, ImageError):
            raise image
        found.append(image)
    return found


def _probe(refs: Sources, block: ImageBlock) -> str | None:
    try:
        render(_all_read(map(_read, refs)), view_settings(block))
    except NoFileError:
        return None
    except ImageError as error:
        return str(error)
    return None
