"""One space's folder: its description, the array of vectors, and the array of keys that commits them."""

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from threading import RLock
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from store.errors import InputError
from store.space import FeatureSpace
from store.vectors.chunks import (
    ROWS,
    ChunkDamage,
    array_document,
    chunk_name,
    decode_chunk,
    encode_chunk,
    group_document,
    layout_problem,
    row_sums,
)
from store.vectors.description import (
    ARRAYS,
    DESCRIPTION,
    LostSpace,
    folder_of,
    n_chunks_of,
    read_copy,
    read_description,
    read_json,
    space_attributes,
)
from store.vectors.files import Files, Stamp, reading
from store.vectors.index import KEY_BYTES, ROW_BYTES, KeyIndex

LOCK = "keys/.lock"  # inside an array, where Zarr readers list nothing
CLAIMS = "keys/.claims"
T = TypeVar("T")
R = TypeVar("R")


class SpaceArrays:
    """The vectors of one space and their keys, in chunks of 1,024 rows.

    A row exists exactly if its key is non-zero. Beside its key lies the checksum of its vector, so that files that were
    exchanged are noticed (spaces that version 1 made have no such sums). Under the space's lock, a writer first writes
    the vectors' chunk whole (with the rows it had, and the new ones), then the keys' chunk: that rename is the commit.
    Readers need no lock. Every chunk that the arrays' shape covers has a keys file, if only of zeros, so that a deleted
    one is noticed.
    """

    def __init__(self, files: Files, space: FeatureSpace | LostSpace) -> None:
        self.space = space
        self.index = KeyIndex()
        self.files = files
        self.folder = folder_of(space)
        self.label = f"space {space.name!r} ({self.folder})"
        self._dtype = np.dtype(space.dtype).newbyteorder("<")
        self._stamps: dict[int, Stamp | None] = {}
        self._mutex = RLock()
        self._version = 0
        self._key_columns: int | None = None

    def make(self, space: FeatureSpace, provenance: Mapping[str, Any] | None) -> None:
        """Make the folder if there is none, and add to its description who writes now.

        A description that was lost is written again; what the arrays hold stays.
        """
        with self.lock():
            known = read_description(self.files, self.folder)
            before = known or read_copy(self.files, self.folder) or {}
            entries, created = list(before.get("provenance", [])), before.get("created")
            if provenance and dict(provenance) not in entries:
                entries.append(dict(provenance))
            elif known:
                return
            created = created or datetime.now(UTC).isoformat(timespec="seconds")
            self._describe_space(space_attributes(space, created=created, provenance=entries))

    def refresh(self) -> int:
        """Learn what others committed; return a number that changes when a row came, went or moved.

        Full chunks are known by inode, time and size; the others (one, as a rule) are read again every time.
        """
        with self._mutex:
            n_chunks = int(self.document("keys")["shape"][0]) // ROWS
            if n_chunks < self.index.n_chunks:  # dropped and begun again
                self.index, self._stamps = KeyIndex(), {}
            stamps = self.files.stamps(f"{self.folder}/keys")
            stale = [chunk for chunk in range(n_chunks) if not self._is_known(chunk, stamps)]
            blocks = dict(zip(stale, self.in_threads(self._load_keys, stale), strict=True))
            self._stamps |= {chunk: stamps.get(f"c.{chunk}.0") for chunk in stale}
            known = self.index.n_chunks
            changed = {c: b for c, b in blocks.items() if c >= known or not np.array_equal(b, self.index.block(c))}
            if changed:
                self.index.replace(changed, n_chunks)
                self._version += 1
            return self._version

    def find(self, keys: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the row of every key ``(n, 32)`` as of the last `refresh`; -1 where there is none."""
        with self._mutex:
            return self.index.find(keys)

    def n_rows(self) -> int:
        """Return how many vectors there are."""
        with self._mutex:
            self.refresh()
            return int(self.index.counts.sum())

    def gather(self, rows: NDArray[np.int64], out: NDArray[np.float32]) -> None:
        """Fill `out` ``(n, d)`` with the vectors of `rows` ``(n,)``, reading every chunk they lie in once."""
        chunks = rows // ROWS
        order = np.argsort(chunks, kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(chunks[order])) + 1)
        per_job = max(1, -(-len(groups) // (4 * self.files.n_threads)))
        jobs = [groups[start : start + per_job] for start in range(0, len(groups), per_job)]
        self.in_threads(lambda job: self._gather_groups(job, rows, out), jobs)

    def append(self, keys: NDArray[np.uint8], vectors: NDArray[Any]) -> int:
        """Store the rows whose key has none yet, one commit per chunk; return how many.

        Args:
            keys: ``(n, 32)``, distinct.
            vectors: ``(n, d)``, of the stored dtype.
        """
        todo, stored = np.arange(len(keys)), 0
        while todo.size:
            head, todo = todo[:ROWS], todo[ROWS:]
            with self.lock(), self._mutex:
                self.refresh()
                head = head[self.find(keys[head]) < 0]
                if head.size:
                    n_committed = self._commit(keys, vectors, head)
                    todo = np.concatenate([head[n_committed:], todo])
                    stored += n_committed
        return stored

    def lock(self) -> AbstractContextManager[None]:
        """Hold the space's lock: between threads and processes, released by the kernel if the holder dies."""
        return self.files.lock(f"{self.folder}/{LOCK}")

    def document(self, array: str) -> dict[str, Any]:
        """Return an array's checked description."""
        name = f"{array}/zarr.json"
        document = read_json(self.files, f"{self.folder}/{name}", self.label, name)
        if document is None:
            raise ChunkDamage(self.label, name, "is missing")
        if array == "keys":
            self._key_columns = _columns(document) or self._key_columns
        if problem := layout_problem(document, *self._layout(array)):
            raise ChunkDamage(self.label, name, problem)
        return document

    def describe(self, array: str, n_chunks: int, attributes: Mapping[str, Any] | None = None) -> None:
        """Write an array's description; the vectors' one has a copy of the space's `attributes`."""
        copied = attributes if attributes and array == "vectors" else {}
        document = array_document(n_chunks * ROWS, *self._layout(array), copied)
        self.files.write(f"{self.folder}/{array}/zarr.json", document)

    def write_chunk(self, array: str, chunk: int, block: NDArray[Any], *, sync: bool = True) -> None:
        """Replace a chunk in one step; with `sync` it is on the disk before it gets its name."""
        block = block[:, : self._layout(array)[0]]
        self.files.write(f"{self.folder}/{chunk_name(array, chunk)}", *encode_chunk(block), sync=sync)

    def check_chunk(self, chunk: int) -> None:
        """Read a chunk of both arrays and compare them. Raises ChunkDamage."""
        rows = self._load_keys(chunk)
        if rows.any():
            vectors = np.empty((ROWS, self.space.dim), self._dtype)
            self._load("vectors", chunk, vectors)
            there = rows.any(axis=1)
            self._check_sums(chunk, rows[there], vectors[there])

    def in_threads(self, function: Callable[[T], R], jobs: Sequence[T]) -> list[R]:
        """Return the results in the order of `jobs`."""
        if len(jobs) < 2:
            return [function(job) for job in jobs]
        with ThreadPoolExecutor(self.files.n_threads) as pool:
            return list(pool.map(function, jobs))

    def _describe_space(self, attributes: Mapping[str, Any]) -> None:
        """Write the space's description and its copy, and those of the arrays where there are none."""
        for array in reversed(ARRAYS):  # the keys' shape last, which readers go by
            if "zarr.json" not in self.files.names(f"{self.folder}/{array}"):
                self.describe(array, n_chunks_of(self.files, self.folder), attributes)
            elif array == "vectors":
                self._write_document(array, self.document(array) | {"attributes": attributes})
        self.files.write(f"{self.folder}/{DESCRIPTION}", group_document(attributes))

    def _write_document(self, array: str, document: Mapping[str, Any]) -> None:
        self.files.write(f"{self.folder}/{array}/zarr.json", json.dumps(document, indent=2).encode())

    def _is_known(self, chunk: int, stamps: Mapping[str, Stamp]) -> bool:
        return (
            chunk < self.index.n_chunks
            and self.index.counts[chunk] == ROWS
            and self._stamps[chunk] == stamps.get(f"c.{chunk}.0")
        )

    def _gather_groups(
        self, groups: list[NDArray[np.int64]], rows: NDArray[np.int64], out: NDArray[np.float32]
    ) -> None:
        scratch = np.empty((ROWS, self.space.dim), self._dtype)
        for where in groups:  # ascending places in `out` whose rows lie in one chunk
            chunk, first = divmod(int(rows[where[0]]), ROWS)
            place = slice(int(where[0]), int(where[-1]) + 1)
            in_order = place.stop - place.start == len(where) and bool((np.diff(rows[place]) == 1).all())
            known = self.index.block(chunk)[first : first + 1]
            if in_order and len(where) == ROWS and out.dtype == self._dtype:
                self._load("vectors", chunk, out[place])
                self._check_sums(chunk, known, out[place][:1])
                continue
            self._load("vectors", chunk, scratch)
            self._check_sums(chunk, known, scratch[first : first + 1])  # one row tells whose file it is
            if in_order:
                out[place] = scratch[first : first + len(where)]
            else:
                out[where] = scratch[rows[where] - chunk * ROWS]

    def _commit(self, keys: NDArray[np.uint8], vectors: NDArray[Any], todo: NDArray[np.int64]) -> int:
        """Store the first rows of `todo` in one chunk; return how many found room."""
        chunk, key_block, block = self._chunk_with_room()
        free = np.flatnonzero(~key_block.any(axis=1))[: len(todo)]
        into, out_of = _as_slice(free), _as_slice(todo[: len(free)])
        key_block[into, :KEY_BYTES] = keys[out_of]
        key_block[into, KEY_BYTES:] = row_sums(vectors[out_of])
        block[into] = vectors[out_of]
        if chunk == self.index.n_chunks:
            self._cover(chunk)
        self.write_chunk("vectors", chunk, block)
        self.write_chunk("keys", chunk, key_block)
        return len(free)

    def _chunk_with_room(self) -> tuple[int, NDArray[np.uint8], NDArray[Any]]:
        for chunk in map(int, np.flatnonzero(self.index.counts < ROWS)):
            keys, block = self.index.block(chunk).copy(), np.zeros((ROWS, self.space.dim), self._dtype)
            try:
                if self.index.counts[chunk]:
                    self._load("vectors", chunk, block)
            except ChunkDamage:
                continue  # whoever reads its rows is told; new rows go elsewhere
            block[~keys.any(axis=1)] = 0  # what a killed writer left
            return chunk, keys, block
        new = np.zeros((ROWS, ROW_BYTES), np.uint8), np.zeros((ROWS, self.space.dim), self._dtype)
        return self.index.n_chunks, *new

    def _cover(self, chunk: int) -> None:
        """Grow both arrays by a chunk without rows."""
        self.write_chunk("keys", chunk, np.zeros((ROWS, ROW_BYTES), np.uint8), sync=False)
        for array in ("vectors", "keys"):  # the keys' shape last, which readers go by
            document = self.document(array)
            self._write_document(array, document | {"shape": [(chunk + 1) * ROWS, document["shape"][1]]})

    def _layout(self, array: str) -> tuple[int, str]:
        return (self._n_key_columns(), "uint8") if array == "keys" else (self.space.dim, self.space.dtype)

    def _n_key_columns(self) -> int:
        """Return 36, or 32 for a space that version 1 made; if the description is damaged its first chunk tells."""
        if self._key_columns is None:
            with suppress(ChunkDamage):
                document = read_json(self.files, f"{self.folder}/keys/zarr.json", self.label, "keys/zarr.json")
                self._key_columns = _columns(document) if document else None
        if self._key_columns is None:
            with suppress(FileNotFoundError), reading(self.files, f"{self.folder}/{chunk_name('keys', 0)}") as file:
                self._key_columns = KEY_BYTES if len(file.read()) == ROWS * KEY_BYTES + 4 else None
        return self._key_columns or ROW_BYTES

    def _check_sums(self, chunk: int, rows: NDArray[np.uint8], vectors: NDArray[Any]) -> None:
        """Compare vectors with what was noted beside their keys ``(n, 36)``. Raises ChunkDamage."""
        if self._n_key_columns() == ROW_BYTES and not np.array_equal(rows[:, KEY_BYTES:], row_sums(vectors)):
            name = chunk_name("vectors", chunk)
            raise ChunkDamage(self.label, name, "holds other vectors than its keys' (was it exchanged with another?)")

    def _load(self, array: str, chunk: int, out: NDArray[Any]) -> None:
        name = chunk_name(array, chunk)
        try:
            with reading(self.files, f"{self.folder}/{name}") as file:
                problem = decode_chunk(file, out)
        except FileNotFoundError:
            problem = "is missing"
        if problem:
            raise ChunkDamage(self.label, name, problem)

    def _load_keys(self, chunk: int) -> NDArray[np.uint8]:
        block, n_columns = np.zeros((ROWS, ROW_BYTES), np.uint8), self._n_key_columns()
        stored = np.empty((ROWS, n_columns), np.uint8)
        self._load("keys", chunk, stored)
        block[:, :n_columns] = stored
        return block


def _columns(document: dict[str, Any]) -> int | None:
    """Return the columns that a sound description of the keys gives, None for another."""
    return next((n for n in (ROW_BYTES, KEY_BYTES) if layout_problem(document, n, "uint8") is None), None)


def as_stored(space: FeatureSpace, keys: Sequence[str], vectors: NDArray[Any]) -> NDArray[Any]:
    """Return `vectors` in the stored dtype, all finite. Raises InputError."""
    with np.errstate(over="ignore"):
        stored = vectors.astype(np.dtype(space.dtype).newbyteorder("<"), copy=False)
    finite = np.isfinite(stored).all(axis=1)
    if not finite.all():
        first = keys[int(np.argmin(finite))]
        raise InputError(
            f"space {space.name!r}: {np.count_nonzero(~finite)} of {len(keys)} vectors are not finite as {space.dtype} "
            f"(the first is of key {first[:12]}). Compute or store them in a higher precision"
        )
    return stored


def _as_slice(places: NDArray[np.int64]) -> slice | NDArray[np.int64]:
    """Return ascending places as a slice if they have no gap, which copies as one block."""
    first, last = int(places[0]), int(places[-1])
    return slice(first, last + 1) if last - first + 1 == len(places) else places
