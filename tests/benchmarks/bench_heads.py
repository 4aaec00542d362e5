"""A whole sweep: 5 tasks x every combination of 4 feature spaces, 5 outer x 4 inner folds, intervals and calibration.

    python tests/benchmarks/bench_heads.py [--rows 185] [--head linear --head fusion]

One JSON line: how many results, seconds on the clock and of the processor (BLAS on one thread; LightGBM and the solver
may use all cores), and seconds on the clock by head. PYTHONPATH set to another checkout measures that one.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

sys.path.append(str(Path(__file__).parents[2]))

from heads.sweep import Sweep
from store import make_split
from tests.heads.made import classes, dataset, matrix

COLUMNS = {"efficientnet_b0": 1280, "mobilenetv2_100": 1280, "resnet18": 512, "texture": 239}
CLASSES = (4, 6, 5, 5, 2)


def draw(n_rows):
    """Return labels of five tasks and four blocks that know a part of what is behind them."""
    rng = np.random.default_rng(0)
    latent = rng.standard_normal((n_rows, 40))
    labels = [
        (latent[:, :6] @ rng.standard_normal((6, c)) + rng.gumbel(size=(n_rows, c))).argmax(axis=1) for c in CLASSES
    ]
    blocks = {}
    for name, width in COLUMNS.items():
        mixing = rng.standard_normal((40, width)) * np.exp(-np.arange(40) / 10)[:, None]
        blocks[f"image__tem_at_{name}"] = latent @ mixing + 0.3 * rng.standard_normal((n_rows, width))
    return labels, blocks


def run(n_rows, heads):
    """Return the entries of a sweep, its seconds on the clock and of the processor."""
    labels, blocks = draw(n_rows)
    data = dataset(*(classes(y, name=f"task{i}") for i, y in enumerate(labels)), n=n_rows)
    sweep = Sweep(data, matrix(data, **blocks), make_split(data, n_folds=5, seed=0), heads=heads)
    clock, processor = time.perf_counter(), time.process_time()
    entries = sweep.run()
    return entries, time.perf_counter() - clock, time.process_time() - processor


def main():
    """Time one sweep and print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=185)
    parser.add_argument("--head", action="append", choices=["linear", "lightgbm", "fusion"])
    arguments = parser.parse_args()
    with threadpool_limits(1):
        entries, clock, processor = run(arguments.rows, arguments.head or ["linear", "lightgbm", "fusion"])
    by_head = Counter()
    for entry in entries:
        by_head[entry["head"]] += entry["seconds"]
    line = {
        "benchmark": "heads",
        "rows": arguments.rows,
        "columns": list(COLUMNS.values()),
        "results": len(entries),
        "seconds": round(clock, 2),
        "cpu_seconds": round(processor, 2),
        "seconds_by_head": {head: round(seconds, 2) for head, seconds in by_head.items()},
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
