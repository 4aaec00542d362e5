"""One chunk: its bytes, its checksum, and the document that describes an array of chunks to every Zarr v3 reader."""

import json
from collections.abc import Mapping
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from store.errors import StoreError
from store.vectors.files import Readable

ROWS = 1024
SUM_BYTES = 4
BLOCK_BYTES = 1 << 18  # checksummed while it still lies in the L2 cache: three times as fast as a chunk at once


class ChunkDamage(StoreError):
    """A stored file is not what was written.

    Args:
        owner: Whose file, for people: a space, or the store.

    Attributes:
        chunk: The file's name within its owner's folder, such as ``vectors/c.3.0``.
        reason: What is wrong with it.
    """

    def __init__(self, owner: str, chunk: str, reason: str) -> None:
        self.chunk = chunk
        self.reason = reason
        what = f"chunk {chunk}" if "/c." in chunk else chunk
        super().__init__(
            f"{owner}: {what} {reason}; `store repair` mends that, then `extract` brings back what is lost"
        )


def chunk_name(array: str, chunk: int) -> str:
    """Return a chunk's file name within its space."""
    return f"{array}/c.{chunk}.0"


def encode_chunk(block: NDArray[Any]) -> tuple[NDArray[np.uint8], bytes]:
    """Return a chunk's file in two parts: the values, little-endian in C order, and their crc32c."""
    data = np.ascontiguousarray(block).reshape(-1).view(np.uint8)
    return data, int(google_crc32c.value(data)).to_bytes(SUM_BYTES, "little")


def decode_chunk(file: Readable, out: NDArray[Any]) -> str | None:
    """Fill `out` from a chunk's file and return what is wrong with the file, None if nothing is.

    Args:
        file: Read from its start.
        out: C-contiguous, of the stored shape and dtype.
    """
    data = out.reshape(-1).view(np.uint8)
    checksum = 0
    for start in range(0, data.size, BLOCK_BYTES):
        block = data[start : start + BLOCK_BYTES]
        if (n_read := file.readinto(block.data)) != block.size:
            return size_problem(start + n_read, data.size)
        checksum = google_crc32c.extend(checksum, block)
    tail = file.read(5)
    if len(tail) != SUM_BYTES:
        return size_problem(data.size + len(tail), data.size)
    return None if tail == checksum.to_bytes(SUM_BYTES, "little") else "fails its checksum"


def size_problem(n_bytes: int, n_data: int) -> str | None:
    """Return what is wrong with the size of the file of a chunk of `n_data` bytes, None if nothing is."""
    expected = n_data + SUM_BYTES
    if n_bytes == expected:
        return None
    return f"{'is cut short' if n_bytes < n_data else 'has a wrong size'} (expected {expected:,} bytes)"


def row_sums(rows: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the crc32c of each of n rows, ``(n, 4)``, little-endian.

    Args:
        rows: ``(n, d)``, of the stored dtype.
    """
    data = np.ascontiguousarray(rows).view(np.uint8)
    sums = np.fromiter(map(google_crc32c.value, data), "<u4", len(data))
    return sums.view(np.uint8).reshape(len(data), SUM_BYTES)


def array_document(n_rows: int, n_columns: int, dtype: str, attributes: Mapping[str, Any]) -> bytes:
    """Return the zarr.json of an array in chunks of `ROWS` rows: bytes and crc32c, no compression, no shards."""
    import zarr
    from zarr.codecs import BytesCodec, Crc32cCodec
    from zarr.core.buffer import default_buffer_prototype
    from zarr.storage import MemoryStore

    array = zarr.create_array(
        MemoryStore(),
        shape=(n_rows, n_columns),
        chunks=(ROWS, n_columns),
        dtype=dtype,
        filters=None,
        serializer=BytesCodec(endian="little"),
        compressors=[Crc32cCodec()],
        fill_value=0,
        attributes=dict(attributes),
        chunk_key_encoding={"name": "default", "separator": "."},
    )
    return array.metadata.to_buffer_dict(default_buffer_prototype())["zarr.json"].to_bytes()


def group_document(attributes: Mapping[str, Any]) -> bytes:
    """Return the zarr.json of a group."""
    return json.dumps({"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}, indent=2).encode()


def layout_problem(document: dict[str, Any], n_columns: int, dtype: str) -> str | None:
    """Return how an array's zarr.json differs from the layout that this module writes, None if it does not."""
    try:
        found = {
            "columns": document["shape"][1],
            "data_type": document["data_type"],
            "chunk_shape": document["chunk_grid"]["configuration"]["chunk_shape"],
            "separator": document["chunk_key_encoding"]["configuration"]["separator"],
            "codecs": [codec["name"] for codec in document["codecs"]],
            "part_rows": document["shape"][0] % ROWS,
        }
    except (KeyError, IndexError, TypeError) as error:
        return f"lacks {error}"
    expected = {
        "columns": n_columns,
        "data_type": dtype,
        "chunk_shape": [ROWS, n_columns],
        "separator": ".",
        "codecs": ["bytes", "crc32c"],
        "part_rows": 0,
    }
    wrong = [f"{key} is {found[key]!r}, expected {expected[key]!r}" for key in expected if found[key] != expected[key]]
    return "; ".join(wrong) or None
