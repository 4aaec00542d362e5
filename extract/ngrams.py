"""The built-in text encoder `ngrams`: hashed character n-grams, deterministic on every machine and without weights."""

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.contract import BATCH_ROWS
from store import FeatureSpace

ALGORITHM = "ngrams-1"  # raise the number when any value changes: it is the weights digest of the space
DIM = 1024
SIZES = (2, 3, 4, 5)
SPACE = ord(" ")


class NgramEncoder:
    """Counts of the 2- to 5-grams of a text, hashed with signs into `DIM` numbers.

    A gram lies within one word and the spaces around it, so that beginnings and ends of words count as such.
    Counts are dampened (log1p) and the vector has length one; a text without a word gives zeros.
    """

    runner = None
    provenance: Mapping[str, Any] | None = None
    batch_size = BATCH_ROWS
    n_looks = 1

    def __init__(self) -> None:
        self.space = FeatureSpace(
            modality="text",
            encoder="ngrams",
            dim=DIM,
            weights_digest=hashlib.sha256(ALGORITHM.encode()).hexdigest(),
            preprocess={"sizes": list(SIZES), "normalise": "NFKC", "lower_case": True},
            pooling="sum",
        )

    def prepare(self, text: str) -> str:
        """Return `text` in Unicode's compatibility form, in lower case, with single spaces between its words."""
        return " ".join(unicodedata.normalize("NFKC", text).lower().split())

    def encode(self, batch: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors of b prepared texts, float32 ``(b, d)``; rows do not depend on each other."""
        points, row = _code_points(batch)
        slots, signs = zip(*(_grams(points, row, size=size) for size in SIZES), strict=True)
        counts = np.bincount(np.concatenate(slots), np.concatenate(signs), minlength=len(batch) * DIM)
        signed = counts.reshape(len(batch), DIM)
        damped = np.sign(signed) * np.log1p(np.abs(signed))
        length = np.sqrt((damped**2).sum(axis=1, keepdims=True))
        return np.asarray(damped / np.where(length > 0, length, 1), dtype=np.float32)


def _code_points(batch: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.intp]]:
    """Return the code points of all texts in one run, each text between two spaces, and the row of each point."""
    padded = [f" {text} " for text in batch]
    points = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    return points, np.repeat(np.arange(len(batch)), [len(text) for text in padded])


def _grams(
    points: NDArray[np.uint64], row: NDArray[np.intp], *, size: int
) -> tuple[NDArray[np.intp], NDArray[np.int8]]:
    """Return the slot (row * d + bucket) and the sign of every n-gram of `size` code points."""
    n = max(len(points) - size + 1, 0)
    columns = [points[i : i + n] for i in range(size)]
    word = ~((columns[0] == SPACE) & (columns[1] == SPACE))  # two spaces meet only between two texts
    for inner in columns[1:-1]:
        word &= inner != SPACE
    hashed = _hash([column[word] for column in columns])
    slot = row[:n][word] * DIM + (hashed % np.uint64(DIM)).astype(np.intp)
    return slot, np.where(hashed >> np.uint64(63), 1, -1).astype(np.int8)


def _hash(columns: Sequence[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    """Return 64-bit FNV-1a over the code points of each gram, finished with MurmurHash3's fmix64."""
    hashed = np.full(len(columns[0]), 0xCBF29CE484222325, dtype=np.uint64)
    for column in columns:
        hashed = (hashed ^ column) * np.uint64(0x100000001B3)
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        hashed = (hashed ^ (hashed >> np.uint64(33))) * np.uint64(factor)
    return hashed ^ (hashed >> np.uint64(33))
