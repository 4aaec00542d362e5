"""One vector from several looks at an image: its tiles, pooled, and its turns, averaged."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.contract import Encoder
from extract.decode import ImageError, Pixels
from store import FeatureSpace, n_tiles

TURNS: dict[str, tuple[tuple[int, bool], ...]] = {
    "none": ((0, False),),
    "flips": ((0, False), (0, True), (2, False), (2, True)),
    "d4": tuple((quarters, mirrored) for quarters in range(4) for mirrored in (False, True)),
}
"""By name, the turns that are averaged: quarter turns, and whether left and right are exchanged after them."""
LIKELY_TILES = 16  # of an image cut by `tile_px`, before any is seen


def turned(pixels: Pixels, turns: str) -> Iterator[Pixels]:
    """Yield every turn of an image (h, w, …), the image itself first."""
    for quarters, mirrored in TURNS[turns]:
        found = np.rot90(pixels, quarters)
        yield np.ascontiguousarray(found[:, ::-1] if mirrored else found)


def cut(pixels: Pixels, settings: Mapping[str, Any]) -> list[Pixels]:
    """Return the tiles of an image (h, w, …), row by row; nothing is left out and nothing padded.

    ``tiles``: rows x columns of equal parts, which differ by 1 px where it does not divide. ``tile_px``: the least
    number of squares that covers the image, first and last at its edges and evenly spread, so that they overlap where
    it does not divide; a side shorter than `tile_px` is taken whole.

    Raises:
        ImageError: The image has fewer px than tiles.
    """
    if settings["tiles"] is None and settings["tile_px"] is None:
        return [pixels]
    sides = pixels.shape[:2]
    if settings["tile_px"] is not None:
        spans = [_squares(side, settings["tile_px"]) for side in sides]
    else:
        counts = n_tiles(settings["tiles"])
        if sides[0] < counts[0] or sides[1] < counts[1]:
            raise ImageError(f"has {sides[0]} x {sides[1]} px, too few for tiles = {settings['tiles']!r}")
        spans = [_parts(side, count) for side, count in zip(sides, counts, strict=True)]
    return [np.ascontiguousarray(pixels[rows, columns]) for rows in spans[0] for columns in spans[1]]


def _parts(side_px: int, count: int) -> list[slice]:
    edges = [round(i * side_px / count) for i in range(count + 1)]
    return [slice(a, b) for a, b in pairwise(edges)]


def _squares(side_px: int, tile_px: int) -> list[slice]:
    free = max(0, side_px - tile_px)
    steps = math.ceil(free / tile_px)
    starts = [round(i * free / max(1, steps)) for i in range(steps + 1)]
    return [slice(start, start + tile_px) for start in starts]


class PooledEncoder:
    """An `Encoder` whose items are the turns of an image, each a list of tiles; another one embeds the tiles.

    The vector of a turn is the mean or maximum over its tiles, that of the image the mean over its turns. Images of
    a batch may have different numbers of tiles.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.space: FeatureSpace = encoder.space
        space = self.space
        rows, columns = n_tiles(space.tiles) if space.tiles else (1, LIKELY_TILES if space.tile_px else 1)
        self.n_looks = rows * columns * len(TURNS[space.turns])
        self._encoder = encoder
        self.runner, self.provenance = encoder.runner, encoder.provenance
        self._rows: int | None = None

    @cached_property
    def batch_size(self) -> int:
        """Images per batch: so many that their tiles and turns are what the other encoder takes."""
        return max(1, self._encoder.batch_size // self.n_looks)

    def prepare(self, turns: Sequence[Sequence[Pixels]]) -> list[list[Any]]:
        """Return what the other encoder takes of every tile of every turn."""
        return [[self._encoder.prepare(tile) for tile in tiles] for tiles in turns]

    def encode(self, batch: Sequence[list[list[Any]]]) -> NDArray[np.float32]:
        """Return float32 ``(b, d)`` for b prepared images.

        Raises:
            MemoryError: Not even one tile fits on the device.
        """
        vectors = self._embed([tile for turns in batch for tiles in turns for tile in tiles]).astype(np.float64)
        ends = np.cumsum([len(tiles) for turns in batch for tiles in turns])
        parts = np.split(vectors, ends[:-1])
        pooled = [part.max(axis=0) if self.space.pool == "max" else part.mean(axis=0) for part in parts]
        n_turns = len(TURNS[self.space.turns])
        return np.asarray(np.reshape(pooled, (len(batch), n_turns, -1)).mean(axis=1), dtype=np.float32)

    def _embed(self, tiles: Sequence[Any]) -> NDArray[np.float32]:
        found: list[NDArray[np.float32]] = []
        done, rows = 0, self._rows or self._encoder.batch_size
        while done < len(tiles):
            try:
                found.append(self._encoder.encode(tiles[done : done + rows]))
            except MemoryError:
                if rows == 1:
                    raise
                self._rows = rows = max(1, min(rows, len(tiles) - done) // 2)
                continue
            done += len(found[-1])
        return np.concatenate(found)
