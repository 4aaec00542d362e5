"""A process that fills a store like an extraction does; the promises' tests start it, kill it and start it again.

    python tests/store/vectors/store_writer.py URL N_ROWS BATCH START GO

It writes rows START, START + 1, ... (wrapping round), prints `ready`, waits until the file GO exists, appends every row
that it computes to GO's neighbour `computed.txt`, and prints how many rows it stored.
"""

import hashlib
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[3]
DIM = 64


def make_keys(n: int) -> list[str]:
    return [hashlib.sha256(str(i).encode()).hexdigest() for i in range(n)]


def vectors_of(keys: list[str]) -> np.ndarray:
    seeds = np.array([int(key[:8], 16) for key in keys], np.float64)
    return np.sin(seeds[:, None] * 1e-4 + np.arange(DIM)).astype(np.float32)


def main(url: str, n_rows: int, batch: int, start: int, go: Path) -> None:
    from store import FeatureSpace
    from store.vectors.features import FeatureStore

    space, keys, n_stored = FeatureSpace("image", "texture", DIM, "v1"), make_keys(n_rows), 0
    order = keys[start:] + keys[:start]
    print("ready", flush=True)
    while not go.exists():
        time.sleep(0.001)
    store = FeatureStore(url)
    for first in range(0, n_rows, batch):
        todo = store.missing(space, order[first : first + batch])
        if todo:
            with go.with_name("computed.txt").open("a") as log:
                log.write("".join(f"{key}\n" for key in todo))
            n_stored += store.write(space, todo, vectors_of(todo))
    print(n_stored, flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
