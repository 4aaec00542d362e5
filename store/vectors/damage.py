"""Damage in one space: found by reading everything or by a listing alone, and dropped."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from store.vectors.arrays import SpaceArrays
from store.vectors.chunks import ROWS, ChunkDamage, chunk_name, size_problem
from store.vectors.description import ARRAYS, n_chunks_of, sound_description, space_attributes
from store.vectors.failures import FAILURES, read_failures
from store.vectors.index import ROW_BYTES


def find_damage(arrays: SpaceArrays) -> list[ChunkDamage]:
    """Read every chunk that holds a row, and every description; return those that are not what was written."""
    documents = [_caught(lambda array=array: arrays.document(array)) for array in ARRAYS]  # type: ignore[misc]
    failures = _caught(lambda: read_failures(arrays))
    chunks = arrays.in_threads(lambda chunk: _chunk_damage(arrays, chunk), range(_n_chunks(arrays)))
    return [found for found in (*documents, failures, *chunks) if found]


def drop_damage(arrays: SpaceArrays, damage: ChunkDamage) -> str | None:
    """Drop the rows of a damaged chunk, or write a damaged description again; return as `mend`."""
    with arrays.lock():
        if damage.chunk == FAILURES:
            arrays.files.delete(f"{arrays.folder}/{FAILURES}")
            return "dropped"
        array, file = damage.chunk.split("/")
        if file == "zarr.json":
            about = sound_description(arrays.files, arrays.folder)
            arrays.describe(array, _n_chunks(arrays), space_attributes(**about) if about else None)
            return "written again"
        chunk = int(file.split(".")[1])
        if _chunk_damage(arrays, chunk) is None:
            return None
        arrays.write_chunk("keys", chunk, np.zeros((ROWS, ROW_BYTES), np.uint8))  # first: no key, no row
        arrays.files.delete(f"{arrays.folder}/{chunk_name('vectors', chunk)}")
        return "dropped"


def check_sizes(arrays: SpaceArrays) -> None:
    """Compare the sizes of the vectors' files with what was written, which a listing tells; reading finds the rest.

    Raises:
        ChunkDamage: A file that holds rows is missing, cut short or too long; the first one, and how many there are.
    """
    version = arrays.refresh()
    while found := _wrong_sizes(arrays):
        before, version = version, arrays.refresh()
        if version == before:  # no repair dropped it meanwhile
            (name, problem), n_wrong = found[0], len(found)
            others = f" (and {n_wrong - 1} more are missing or of a wrong size)" if n_wrong > 1 else ""
            raise ChunkDamage(arrays.label, name, problem + others)


def _wrong_sizes(arrays: SpaceArrays) -> list[tuple[str, str]]:
    """Return name and problem of the vectors' files that a listing shows to be damaged."""
    sizes = arrays.files.sizes(f"{arrays.folder}/vectors")
    n_data = ROWS * arrays.space.dim * np.dtype(arrays.space.dtype).itemsize
    names = [chunk_name("vectors", int(chunk)) for chunk in np.flatnonzero(arrays.index.counts)]
    problems = [_size_problem(sizes, name.removeprefix("vectors/"), n_data) for name in names]
    return [(name, problem) for name, problem in zip(names, problems, strict=True) if problem]


def _size_problem(sizes: Mapping[str, int | None], file: str, n_data: int) -> str | None:
    if file not in sizes:
        return "is missing"
    size = sizes[file]
    return None if size is None else size_problem(size, n_data)


def _n_chunks(arrays: SpaceArrays) -> int:
    """Return the number of chunks that have a file, or that the keys' shape covers."""
    n_files = n_chunks_of(arrays.files, arrays.folder)
    if _caught(lambda: arrays.document("keys")) is None:
        return max(n_files, int(arrays.document("keys")["shape"][0]) // ROWS)
    return n_files


def _chunk_damage(arrays: SpaceArrays, chunk: int) -> ChunkDamage | None:
    return _caught(lambda: arrays.check_chunk(chunk))


def _caught(function: Callable[[], Any]) -> ChunkDamage | None:
    try:
        function()
    except ChunkDamage as found:
        return found
    return None
