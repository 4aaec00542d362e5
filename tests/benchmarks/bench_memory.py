"""The memory that extraction takes, from 1,000 to 100,000 images: is it the rows' ids, paths and keys, or more?

    python tests/benchmarks/bench_memory.py [--rows 1000 10000 100000] [--encoder means] [--predict] [--folder DIR]

Each size is extracted by a process of its own from as many different 8 x 8 PNG files; one JSON line each: the peak of
the resident memory after the imports, after the dataset was loaded and after it was extracted, in MB; images/s; and
the bytes that a row costs beyond the first line's. `--encoder means` computes next to nothing, so that the pipeline
and the store are what is measured; any encoder can be given instead, a network with random weights.
With `--predict`, a bundle of a linear head predicts a folder of as many files, as the command `predict` does, with the
encoder `means`: the peak after the imports, and after the last of the predictions was written.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import resource
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))


def write_dataset(folder: Path, n_rows: int) -> Path:
    """Write n different grey images of 8 x 8 px, in folders of 1,000, a table and a dataset.toml."""
    header = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))
    end, lines = chunk(b"IEND", b""), ["id,file,label"]
    for i in range(n_rows):
        name = f"{i // 1000:03d}/specimen_{i:06d}.png"
        if i % 1000 == 0:
            (folder / "images" / name).parent.mkdir(parents=True)
        pixels = (i * 2654435761 % 2**64).to_bytes(8, "little") + bytes(56)
        lines_of_pixels = b"".join(b"\0" + pixels[8 * y : 8 * y + 8] for y in range(8))
        data = zlib.compress(lines_of_pixels, 1)
        (folder / "images" / name).write_bytes(header + chunk(b"IDAT", data) + end)
        lines.append(f"row_{i:06d},{name},{'ab'[i % 2]}")
    (folder / "labels.csv").write_text("\n".join(lines))
    spec = folder / "dataset.toml"
    spec.write_text(
        'name = "memory"\ntable = "labels.csv"\nroot = "images"\nid = "id"\n'
        '[images.bf]\ncolumn = "file"\nconvert = "none"\n[tasks.label]\ncolumn = "label"\n'
    )
    return spec


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return one chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def peak_mb() -> float:
    """Return the peak of the resident memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Means:
    """An encoder that costs nothing: the grey values, repeated to d = 512 numbers."""

    runner = provenance = None
    batch_size, n_looks = 64, 1

    def __init__(self) -> None:
        from store import FeatureSpace

        self.space = FeatureSpace("image", "means", 512, "0" * 64, convert="none")

    def prepare(self, pixels: Any) -> Any:
        return np.asarray(pixels, np.float32).reshape(-1)[:64]

    def encode(self, batch: list[Any]) -> Any:
        return np.tile(np.stack(batch), (1, 8))


def measure(spec: Path, encoder: str) -> dict[str, Any]:
    """Load and extract, and say how much memory that took; run in a process of its own."""
    from extract import Options, extract_features, make_encoders
    from store import FeatureStore, load_dataset

    warm, _ = (None, None) if encoder == "means" else make_encoders([encoder], load_dataset(spec), Options("random"))
    imported = peak_mb()
    dataset = load_dataset(spec)
    loaded, start = peak_mb(), time.perf_counter()
    encoders: Any = warm or {"image:bf": [Means()]}
    [report] = extract_features(dataset, encoders, FeatureStore(spec.parent / "features.zarr"))
    assert report.embedded == dataset.n_rows, report
    seconds = time.perf_counter() - start
    return {"imported_mb": imported, "loaded_mb": loaded, "extracted_mb": peak_mb(), "rate": dataset.n_rows / seconds}


def write_bundle(spec: Path) -> None:
    """Fit a linear head on 200 of the images, and write its bundle; run in a process of its own."""
    from extract import extract_features
    from heads import Sweep, fit_bundle, load_matrix
    from store import FeatureStore, load_dataset, make_split

    dataset, store = load_dataset(spec).take(range(200)), FeatureStore(spec.parent / "train.zarr")
    extract_features(dataset, {"image:bf": [Means()]}, store)  # type: ignore[list-item]
    sweep = Sweep(dataset, load_matrix(dataset, store), make_split(dataset, n_folds=3), heads=["linear"])
    fit_bundle(sweep, sweep.run(), spec.parent / "bundle")


def measure_prediction(spec: Path) -> dict[str, Any]:
    """Predict all files, and say how much memory that took; run in a process of its own."""
    import cli
    import extract
    from extract import Options

    extract.encoders_from_spaces = lambda *_: {"image:bf": [Means()]}  # type: ignore[assignment, return-value, list-item]
    from heads import load_bundle

    bundle = spec.parent / "bundle"
    load_bundle(bundle)
    imported, start, out = peak_mb(), time.perf_counter(), spec.parent / "predictions.csv"
    store_url = str(spec.parent / "new.zarr")
    n_rows, n_failed = cli.predict_files(bundle, spec.parent / "images", out, store_url=store_url, options=Options())
    assert not n_failed and sum(1 for _ in out.open()) == n_rows + 1
    return {"imported_mb": imported, "predicted_mb": peak_mb(), "rate": n_rows / (time.perf_counter() - start)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--encoder", default="means")
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder otherwise")
    parser.add_argument("--predict", action="store_true", help="predict the files instead of extracting them")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--bundle", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.bundle:
        write_bundle(given.bundle)
        return
    if given.measure:
        print(json.dumps(measure_prediction(given.measure) if given.predict else measure(given.measure, given.encoder)))
        return
    peak = "predicted_mb" if given.predict else "extracted_mb"
    first: dict[str, Any] = {}
    for n_rows in given.rows:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            spec = write_dataset(Path(folder), n_rows)
            command = [sys.executable, __file__, "--measure", str(spec), "--encoder", given.encoder]
            if given.predict:
                subprocess.run([sys.executable, __file__, "--bundle", str(spec)], check=True)
                command.append("--predict")
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = {"rows": n_rows} | json.loads(done.stdout)
        if first:
            more = found[peak] - first[peak]
            found["bytes_per_row"] = more * 2**20 / (n_rows - first["rows"])
        first = first or found
        print(json.dumps({key: round(value, 1) for key, value in found.items()}), flush=True)


if __name__ == "__main__":
    main()
