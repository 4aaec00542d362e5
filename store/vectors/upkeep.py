"""Finding damage, dropping it, and cleaning up after killed writers."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from store.vectors.arrays import LOCK, SpaceArrays
from store.vectors.chunks import ROWS, ChunkDamage, chunk_name
from store.vectors.description import ARRAYS, DESCRIPTION, n_chunks_of
from store.vectors.failures import FAILURES, read_failures
from store.vectors.files import PARTIAL, Files
from store.vectors.index import ROW_BYTES


def find_damage(arrays: SpaceArrays) -> list[ChunkDamage]:
    """Read every chunk that holds a row, and every description; return those that are not what was written."""
    documents = [_caught(lambda array=array: arrays.document(array)) for array in ARRAYS]  # type: ignore[misc]
    failures = _caught(lambda: read_failures(arrays))
    chunks = arrays.in_threads(lambda chunk: _chunk_damage(arrays, chunk), range(_n_chunks(arrays)))
    return [found for found in (*documents, failures, *chunks) if found]


def drop_damage(arrays: SpaceArrays, damage: ChunkDamage) -> bool:
    """Drop the rows of a damaged chunk, or write a damaged description again; False if it is sound by now."""
    with arrays.lock():
        if damage.chunk == FAILURES:
            arrays.files.delete(f"{arrays.folder}/{FAILURES}")
            return True
        array, file = damage.chunk.split("/")
        if file == "zarr.json":
            arrays.describe(array, _n_chunks(arrays))
            return True
        chunk = int(file.split(".")[1])
        if _chunk_damage(arrays, chunk) is None:
            return False
        arrays.write_chunk("keys", chunk, np.zeros((ROWS, ROW_BYTES), np.uint8))  # first: no key, no row
        arrays.files.delete(f"{arrays.folder}/{chunk_name('vectors', chunk)}")
        return True


def clean_up(files: Files, folder: str) -> list[str]:
    """Delete what killed writers left in a space's folder, and a folder that never became a space; return the names.

    Under the lock nobody else has any files there but claims, which are a courtesy.
    """
    with files.lock(f"{folder}/{LOCK}"):
        is_begun = DESCRIPTION in files.names(folder) or n_chunks_of(files, folder)
        parts = [folder, *(f"{folder}/{name}" for name in (*ARRAYS, "failures"))]
        left = leftovers(files, parts) if is_begun else [folder]
        for name in left:
            files.delete(name)
        return left


def leftovers(files: Files, folders: Sequence[str]) -> list[str]:
    """Return the files in `folders` that were never finished."""
    return [
        f"{folder}/{name}".lstrip("/") for folder in folders for name in files.names(folder) if name.endswith(PARTIAL)
    ]


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
