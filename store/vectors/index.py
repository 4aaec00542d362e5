"""Which row of a space holds which key."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from store.vectors.chunks import ROWS, SUM_BYTES

KEY_BYTES = 32
ROW_BYTES = KEY_BYTES + SUM_BYTES
"""A row of the keys' array: a key, and the crc32c of its vector, which ties the two files together."""

_MULTIPLIERS = np.array(  # odd 64-bit constants of xxHash (PRIME64_1 to 4), https://xxhash.com/doc
    [0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63], dtype=np.uint64
)


def key_bytes(keys: Sequence[str]) -> NDArray[np.uint8]:
    """Return n keys (sha256, hex) as bytes, ``(n, 32)``.

    Raises:
        ValueError: A key is no sha256 in hex.
    """
    try:
        data = bytes.fromhex("".join(keys))
    except ValueError:
        data = b""
    if len(data) != KEY_BYTES * len(keys) or any(size != 2 * KEY_BYTES for size in set(map(len, keys))):
        wrong = next((key for key in keys if len(key) != 64 or set(key) - set("0123456789abcdefABCDEF")), None)
        raise ValueError(f"{wrong!r} is no content key: expected 64 hex digits")
    table = np.frombuffer(data, np.uint8).reshape(-1, KEY_BYTES)
    if not table.any(axis=1).all():
        raise ValueError("a content key is never all zeros: zeros mark the rows without a vector")
    return table


def first_places(keys: Sequence[str]) -> NDArray[np.int64]:
    """Return where every distinct key stands first, ascending."""
    places: dict[str, int] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, place)
    return np.fromiter(places.values(), np.int64, len(places))


class KeyIndex:
    """The keys of all rows in memory: 52 bytes a row, found by a sorted 64-bit hash.

    Attributes:
        counts: Rows with a key per chunk, ``(n_chunks,)``.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(0, np.int64)
        self._buffer = np.zeros((0, ROW_BYTES), np.uint8)
        self._hashes = np.zeros(0, np.uint64)
        self._rows = np.zeros(0, np.int64)

    @property
    def n_chunks(self) -> int:
        """Chunks known, full or not."""
        return len(self.counts)

    def block(self, chunk: int) -> NDArray[np.uint8]:
        """Return a chunk's keys and sums, ``(1024, 36)``; zeros where there is none."""
        return self._buffer[chunk * ROWS : (chunk + 1) * ROWS]

    def replace(self, blocks: Mapping[int, NDArray[np.uint8]], n_chunks: int) -> None:
        """Take over changed chunks; `n_chunks` may have grown."""
        self._grow(n_chunks)
        kept = np.ones(self.n_chunks, bool)
        for chunk, block in blocks.items():
            self.block(chunk)[:] = block
            self.counts[chunk] = np.count_nonzero(block.any(axis=1))
            kept[chunk] = False
        stays = kept[self._rows // ROWS]
        self._hashes, self._rows = self._hashes[stays], self._rows[stays]
        self._insert(np.flatnonzero(~kept))

    def find(self, keys: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the row of every key, ``(n,)``; -1 where there is none.

        Args:
            keys: ``(n, 32)``.
        """
        hashes = _hash(keys)
        rows = np.full(len(keys), -1, np.int64)
        order = np.argsort(hashes)  # a search in ascending order walks through memory once: five times as fast
        place = np.empty(len(keys), np.int64)
        place[order] = np.searchsorted(self._hashes, hashes[order])
        todo = np.arange(len(keys))
        while True:  # once, but for keys that share a hash
            todo = todo[place[todo] < len(self._hashes)]
            todo = todo[self._hashes[place[todo]] == hashes[todo]]
            if not todo.size:
                return rows
            candidates = self._rows[place[todo]]
            same = (_words(self._buffer[candidates, :KEY_BYTES]) == _words(keys[todo])).all(axis=1)
            rows[todo[same]] = candidates[same]
            todo = todo[~same]
            place[todo] += 1

    def _grow(self, n_chunks: int) -> None:
        added = n_chunks - self.n_chunks
        if n_chunks * ROWS > len(self._buffer):  # by an eighth at least, so that copies stay rare
            larger = np.zeros((max(n_chunks * ROWS, len(self._buffer) * 9 // 8), ROW_BYTES), np.uint8)
            larger[: len(self._buffer)] = self._buffer
            self._buffer = larger
        self.counts = np.concatenate([self.counts, np.zeros(max(added, 0), np.int64)])

    def _insert(self, chunks: NDArray[np.int64]) -> None:
        rows = (chunks[:, None] * ROWS + np.arange(ROWS)).reshape(-1)
        rows = rows[self._buffer[rows].any(axis=1)]
        hashes = _hash(self._buffer[rows, :KEY_BYTES])
        order = np.argsort(hashes, kind="stable")
        hashes, rows = hashes[order], rows[order]
        place = np.searchsorted(self._hashes, hashes)
        self._hashes = np.insert(self._hashes, place, hashes)
        self._rows = np.insert(self._rows, place, rows)


def _words(keys: NDArray[np.uint8]) -> NDArray[np.uint64]:
    return np.ascontiguousarray(keys).view(np.uint64)


def _hash(keys: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Mix all four words, so that keys which are no real sha256 spread too."""
    words = _words(keys)
    mixed = np.zeros(len(keys), np.uint64)
    for column, multiplier in enumerate(_MULTIPLIERS):
        mixed = (mixed ^ words[:, column]) * multiplier
        mixed ^= mixed >> np.uint64(29)
    return mixed
