"""Twelve conversions from one decode against twelve runs of one conversion each; one JSON line per set of images.

    python tests/benchmarks/bench_variants.py IMAGES_FOLDER … [--images 60] [--repeats 3] [--encoder texture]

CPU seconds of this process, all threads; the order alternates, medians and the spread are given. `decode_s` is what
reading the images once costs, so that eleven times it can be saved, and eleven times hashing.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from extract import Options, extract_features, make_encoders
from extract.decode import read_image
from store import CONVERSIONS, Dataset, FeatureStore, hash_files, load_dataset, with_variants

NAMES = [name for name in CONVERSIONS if name != "none"]


def make_dataset(folder: Path, images: Path, n_images: int) -> Dataset:
    """Return a dataset of the first images of a folder."""
    files = sorted(path for path in images.iterdir() if path.suffix in (".png", ".tif", ".jpg"))[:n_images]
    rows = "\n".join(f"{file.name},{'ab'[i % 2]}" for i, file in enumerate(files))
    (folder / "table.csv").write_text(f"file,label\n{rows}\n")
    (folder / "dataset.toml").write_text(
        f'name = "bench"\ntable = "table.csv"\nroot = "{images.resolve()}"\n'
        '[images.bf]\ncolumn = "file"\n[tasks.label]\ncolumn = "label"\n'
    )
    return load_dataset(folder / "dataset.toml")


def embed(datasets: list[Dataset], encoder: str, folder: Path) -> tuple[float, list[bytes]]:
    """Extract each dataset in a run of its own; return CPU seconds and the vectors by conversion."""
    store = FeatureStore(folder / f"{time.time_ns()}.zarr")
    made = [make_encoders([encoder], dataset, Options(weights="random", device="cpu"))[0] for dataset in datasets]
    start = time.process_time()
    for dataset, encoders in zip(datasets, made, strict=True):
        extract_features(dataset, encoders, store)
    seconds = time.process_time() - start
    found = []
    for dataset, encoders in zip(datasets, made, strict=True):
        first, *_ = dataset.images.values()
        keys = list(filter(None, first.keys()))
        found += [store.read(chosen[0].space, keys).tobytes() for chosen in encoders.values()]
    return seconds, found


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU seconds of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(images: Path, n_images: int, repeats: int, encoder: str) -> dict[str, object]:
    """Return the figures of one folder of images."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = make_dataset(folder, images, n_images)
        together = [with_variants(dataset, converts=NAMES)]
        apart = [with_variants(dataset, converts=[convert]) for convert in NAMES]
        assert embed(together, encoder, folder)[1] == embed(apart, encoder, folder)[1]
        times = np.array([[embed(way, encoder, folder)[0] for way in (together, apart)] for _ in range(repeats)])
        paths = [ref.path for ref in dataset.images["bf"].refs if ref is not None]
        decode = cpu_seconds(lambda: [read_image(path) for path in paths])
        hashing = cpu_seconds(lambda: hash_files(dataset.images.values()))
    ratios = times[:, 1] / times[:, 0]
    return {
        "images": str(images.name),
        "n_images": len(paths),
        "encoder": encoder,
        "together_s": round(statistics.median(times[:, 0]), 3),
        "apart_s": round(statistics.median(times[:, 1]), 3),
        "ratio": round(statistics.median(ratios), 2),
        "spread": [round(float(ratios.min()), 2), round(float(ratios.max()), 2)],
        "decode_s": round(decode, 3),
        "hash_s": round(hashing, 3),
        "n_cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--encoder", default="texture")
    options = parser.parse_args()
    for images in options.folders:
        print(json.dumps(measure(images, options.images, options.repeats, options.encoder)), flush=True)
