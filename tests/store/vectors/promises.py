"""Stores that are filled by this process and by others, to see whether they keep their promises."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from store import FeatureSpace
from store.vectors.features import FeatureStore
from tests.store.vectors.store_writer import make_keys, vectors_of

WRITER = Path(__file__).with_name("store_writer.py")
DIM = 64
SPACE = FeatureSpace("image", "texture", DIM, "v1")
FOLDER = SPACE.fingerprint[:16]


def start_writer(url: Path, go: Path, *, n_rows: int, batch: int, start: int = 0) -> subprocess.Popen[str]:
    """A writer that has imported everything and waits for `go` to appear."""
    command = [sys.executable, str(WRITER), str(url), str(n_rows), str(batch), str(start), str(go)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def contents(url: Path) -> dict[str, bytes]:
    """Every chunk and description of a store's only space, byte by byte; not the time it was made."""
    files = [p for p in (url / FOLDER).rglob("*") if p.is_file() and p.suffix != ".partial" and p.name != ".lock"]
    return {str(p.relative_to(url)): timeless(p.read_bytes()) for p in files if p.parent.name != FOLDER}


def filled(url: Path, n: int = 2500) -> tuple[FeatureStore, list[str]]:
    features, keys = FeatureStore(url), make_keys(n)
    features.write(SPACE, keys, vectors_of(keys))
    return features, keys


def timeless(data: bytes) -> bytes:
    """A file without the time that the store was made at."""
    return re.sub(rb'"created": "[^"]*"', b"", data) if data.startswith(b"{") else data


def chunk(url: Path, array: str, number: int) -> Path:
    return url / FOLDER / array / f"c.{number}.0"


def flip_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(data)


def assert_true_rows(features: FeatureStore, keys: list[str]) -> list[str]:
    """All that is there is right; return the keys that are there."""
    found = [key for key, there in zip(keys, features.present(SPACE, keys), strict=True) if there]
    np.testing.assert_array_equal(features.read(SPACE, found), vectors_of(found))
    return found
