"""Reading and writing the feature store, beside np.load and np.save on the same values.

    python tests/benchmarks/bench_store.py [--rows 183120] [--repeats 5] [--folder DIR]

One JSON line per result; the whole run needs about 4 GB of disk at the default size. Values are compared before
anything is timed, A and B alternate, medians and the spread are reported.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from store import FeatureSpace
from store.vectors.features import FeatureStore

ROWS_AT_ONCE = 4096


def make_keys(n: int) -> list[str]:
    """n content keys without hashing n files: random bytes."""
    data = np.random.default_rng(1).bytes(32 * n).hex()
    return [data[64 * i : 64 * (i + 1)] for i in range(n)]


def seconds_of(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    result = function()
    seconds = time.perf_counter() - start
    del result
    return seconds


def alternating(functions: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds per function and repeat; one warm-up round, then in turn, the order turned round every time."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name in list(functions)[:: 1 if turn % 2 else -1]:
            took = seconds_of(functions[name])
            if turn:
                seconds[name].append(took)
    return seconds


def report(name: str, **values: Any) -> None:
    rounded = {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in values.items()}
    print(json.dumps({"bench": name} | rounded), flush=True)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def bench_write(store: FeatureStore, space: FeatureSpace, keys: list[str], vectors: np.ndarray) -> None:
    rates, began = [], time.perf_counter()
    for start in range(0, len(keys), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        rates.append(len(keys[part]) / seconds_of(lambda part=part: store.write(space, keys[part], vectors[part])))
    report(
        "write",
        dim=space.dim,
        rows=len(keys),
        vectors_per_second=len(keys) / (time.perf_counter() - began),
        median_call=float(np.median(rates)),
        slowest_call=min(rates),
        rows_per_call=ROWS_AT_ONCE,
    )


def bench_read(store: FeatureStore, space: FeatureSpace, keys: list[str], vectors: np.ndarray, args: Any) -> None:
    file = args.folder / "plain.npy"
    np.save(file, vectors)
    shuffled = np.random.default_rng(0).permutation(len(keys))
    mixed = [keys[i] for i in shuffled]
    assert np.array_equal(store.read(space, keys), np.load(file))
    assert np.array_equal(store.read(space, mixed), np.load(file)[shuffled])
    seconds = alternating(
        {
            "np.load": lambda: np.load(file),
            "store.read, stored order": lambda: store.read(space, keys),
            "np.load, shuffled": lambda: np.load(file)[shuffled],
            "store.read, shuffled": lambda: store.read(space, mixed),
            "open and read": lambda: FeatureStore(store.url).read(space, keys),
        },
        args.repeats,
    )
    for name, plain in {
        "store.read, stored order": "np.load",
        "open and read": "np.load",
        "store.read, shuffled": "np.load, shuffled",
    }.items():
        ratios = np.array(seconds[plain]) / np.array(seconds[name])
        report(
            f"read: {name}",
            rows=len(keys),
            dim=space.dim,
            gb_per_second=vectors.nbytes / np.median(seconds[name]) / 1e9,
            np_load_gb_per_second=vectors.nbytes / np.median(seconds[plain]) / 1e9,
            ratio=float(np.median(ratios)),
            ratio_low=float(ratios.min()),
            ratio_high=float(ratios.max()),
        )


def bench_million(args: Any) -> None:
    n, dim = args.million, 256
    space, keys = FeatureSpace("image", "bench", dim, "v1"), make_keys(args.million)
    store = FeatureStore(args.folder / "million.zarr")
    block = np.random.default_rng(2).standard_normal((ROWS_AT_ONCE, dim), dtype=np.float32)
    start = time.perf_counter()
    for first in range(0, n, ROWS_AT_ONCE):
        part = keys[first : first + ROWS_AT_ONCE]
        store.write(space, part, block[: len(part)])
    report("million: write", rows=n, dim=dim, vectors_per_second=n / (time.perf_counter() - start))
    before_mb = peak_mb()
    opened = FeatureStore(store.url)
    some = np.random.default_rng(3).choice(n, 10_000, replace=False)
    asked = [keys[i] for i in some]
    report("million: open and missing(all)", seconds=seconds_of(lambda: opened.missing(space, keys)))
    report("million: missing(all) again", seconds=seconds_of(lambda: opened.missing(space, keys)))
    report("million: missing(1024)", seconds=seconds_of(lambda: opened.missing(space, keys[:1024])))
    assert np.array_equal(opened.read(space, asked), block[some % ROWS_AT_ONCE])
    report("million: read 10,000 random", seconds=seconds_of(lambda: opened.read(space, asked)))
    report("million: memory", peak_growth_mb=peak_mb() - before_mb, keys_themselves_mb=n * 113 / 2**20)


def bench_small(args: Any) -> None:
    space, keys = FeatureSpace("image", "small", 1280, "v1"), make_keys(640)
    store = FeatureStore(args.folder / "small.zarr")
    vectors = np.random.default_rng(4).standard_normal((640, 1280), dtype=np.float32)
    for size in (1, 64):
        n = 20 * size if size == 1 else 320
        start = time.perf_counter()
        for first in range(0, n, size):
            at = slice(320 * (size == 64) + first, 320 * (size == 64) + first + size)
            store.write(space, keys[at], vectors[at])
        report(f"write, {size} at a time", dim=1280, vectors_per_second=n / (time.perf_counter() - start))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=183_120)
    parser.add_argument("--million", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder otherwise")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
        args.folder = Path(scratch)
        report("setting", cpus=os.cpu_count(), python=platform.python_version(), numpy=np.__version__, read_threads=2)
        bench_million(args)  # first: its peak memory is not hidden by the others
        space, keys = FeatureSpace("image", "bench", 1280, "v1"), make_keys(args.rows)
        vectors = np.random.default_rng(0).standard_normal((args.rows, 1280), dtype=np.float32)
        store = FeatureStore(args.folder / "bench.zarr")
        bench_write(store, space, keys, vectors)
        bench_read(store, space, keys, vectors, args)
        bench_small(args)


if __name__ == "__main__":
    main()
