"""Extraction against the plain loop that a user would write, and against its own limit; one JSON line per result.

    python tests/benchmarks/bench_extract.py [--images 500] [--repeats 3] [--encoder efficientnet_b0]

The plain loop is Pillow, torchvision's transforms, a DataLoader and eager float32. The limit is what forward-only
and decode-only set together when both use all cores. Weights are random: the arithmetic is the same. The
order of the contestants alternates; ratios are between medians of one run. Other processes disturb every figure.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))

from extract.encoder import Options, make_encoders
from extract.engine import relative_error
from extract.pipeline import _in_order, _prepare, extract_features
from store import Dataset, FeatureStore, load_dataset

FORMATS = {"jpg": (512, 384), "png": (512, 384), "tif": (1024, 1024)}
PLAIN_BATCHES = (32, 4)


def make_images(folder: Path, n_images: int, suffix: str) -> Dataset:
    """Write smooth colour images with a little noise and a table that names them."""
    rng = np.random.default_rng(0)
    width, height = FORMATS[suffix]
    for index in range(n_images):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize((width, height))
        noisy = np.asarray(coarse) + rng.integers(0, 9, (height, width, 1))
        Image.fromarray(np.minimum(noisy, 255).astype(np.uint8)).save(folder / f"{index:05d}.{suffix}")
    names = "\n".join(f"{index:05d}.{suffix},{'ab'[index % 2]}" for index in range(n_images))
    (folder / "table.csv").write_text(f"file,label\n{names}\n")
    (folder / "dataset.toml").write_text(
        'name = "bench"\ntable = "table.csv"\nroot = "."\n'
        '[images.photo]\ncolumn = "file"\nconvert = "none"\n[tasks.label]\ncolumn = "label"\n'
    )
    return load_dataset(folder / "dataset.toml")


def plain_loop(paths: list[Path], name: str, batch_size: int) -> tuple[NDArray[np.float32], float]:
    """Return vectors and seconds of the loop a user would write.

    In a process of its own: this one's allocator may have been told to keep freed memory, which helps the loop too.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_plain_loop, paths, name, batch_size).result()


def _plain_loop(paths: list[Path], name: str, batch_size: int) -> tuple[NDArray[np.float32], float]:
    """Making the model is not counted."""
    import timm
    import torch
    from torch.utils.data import DataLoader

    torch.manual_seed(0)
    network = timm.create_model(name, pretrained=False)
    network.reset_classifier(0)
    network.eval()
    transform = timm.data.create_transform(**timm.data.resolve_data_config(model=network))
    loader: Any = DataLoader(
        [str(path) for path in paths],  # type: ignore[arg-type]
        batch_size=batch_size,
        num_workers=2,
        collate_fn=partial(_collate, transform),
    )
    with torch.inference_mode():
        network(torch.zeros(batch_size, 3, 224, 224))
        start = time.perf_counter()
        vectors = np.concatenate([network(batch).numpy() for batch in loader])
    return vectors, time.perf_counter() - start


def _collate(transform: Callable[[Image.Image], Any], paths: list[str]) -> Any:
    import torch

    return torch.stack([transform(Image.open(path).convert("RGB")) for path in paths])


def ours(dataset: Dataset, names: list[str], folder: Path) -> tuple[NDArray[np.float32], float]:
    """Return vectors of the first encoder and seconds of `extract_features` into an empty store."""
    encoders, _ = make_encoders(names, dataset, Options(weights="random", device="cpu"))
    for encoder in encoders["image:photo"]:
        encoder.runner.choice = "openvino"  # type: ignore[attr-defined]
        encoder.runner.engine  # type: ignore[attr-defined] # noqa: B018 - compiled before the clock starts
    store = FeatureStore(folder / f"{time.time_ns()}.zarr")
    start = time.perf_counter()
    extract_features(dataset, encoders, store)
    seconds = time.perf_counter() - start
    return store.read(encoders["image:photo"][0].space, keys_of(dataset)), seconds


def keys_of(dataset: Dataset) -> list[str]:
    """Return the keys of all images; none is missing."""
    found = dataset.images["photo"].keys()
    return [key for key in found if key is not None]


def decode_only(dataset: Dataset, name: str) -> float:
    """Return seconds to decode, convert and resize every image in the workers."""
    encoders, _ = make_encoders([name], dataset, Options(weights="random", device="cpu"))

    class Lane:
        encoder = encoders["image:photo"][0]

    refs = [ref for ref in dataset.images["photo"].refs if ref is not None]
    start = time.perf_counter()
    for _ in _in_order((ref, lambda ref=ref: _prepare(ref, [Lane])) for ref in refs):  # type: ignore[misc,list-item]
        pass
    return time.perf_counter() - start


def forward_only(dataset: Dataset, name: str, choice: str, n_images: int) -> float:
    """Return seconds to run prepared pixels through an engine."""
    encoders, _ = make_encoders([name], dataset, Options(weights="random", device="cpu", engine=choice))  # type: ignore[arg-type]
    encoder: Any = encoders["image:photo"][0]
    side = encoder.space.preprocess["input_px"]
    batch = list(np.random.default_rng(0).integers(0, 256, (encoder.batch_size, *side, 3), dtype=np.uint8))
    encoder.encode(batch)
    start = time.perf_counter()
    for _ in range(max(1, n_images // len(batch))):
        encoder.encode(batch)
    seconds = time.perf_counter() - start
    return seconds * n_images / (max(1, n_images // len(batch)) * len(batch))


def texture(dataset: Dataset, folder: Path) -> float:
    """Return seconds of the built-in encoder."""
    encoders, _ = make_encoders(["texture"], dataset)
    start = time.perf_counter()
    extract_features(dataset, encoders, FeatureStore(folder / f"{time.time_ns()}.zarr"))
    return time.perf_counter() - start


def contestants(dataset: Dataset, name: str, folder: Path) -> dict[str, Callable[[], float]]:
    """Return what is timed, by name; each returns seconds."""
    paths = [ref.path for ref in dataset.images["photo"].refs if ref is not None]
    runs: dict[str, Callable[[], float]] = {
        f"plain_bs{size}": lambda size=size: plain_loop(paths, name, size)[1]  # type: ignore[misc]
        for size in PLAIN_BATCHES
    }
    return runs | {
        "ours": lambda: ours(dataset, [name], folder)[1],
        "decode_only": lambda: decode_only(dataset, name),
        "forward_openvino": lambda: forward_only(dataset, name, "openvino", len(paths)),
        "forward_torch": lambda: forward_only(dataset, name, "torch", len(paths)),
        "texture": lambda: texture(dataset, folder),
    }


def check_equal(dataset: Dataset, name: str, folder: Path) -> float:
    """Return the relative error between both, having made sure that they do the same work."""
    paths = [ref.path for ref in dataset.images["photo"].refs if ref is not None]
    vectors, _ = ours(dataset, [name], folder)
    error = relative_error(vectors, plain_loop(paths, name, 32)[0])
    if error > 0.02:
        raise SystemExit(f"vectors differ by {error:.3g}: nothing to compare")
    return error


def measure(suffix: str, name: str, n_images: int, repeats: int) -> None:
    """Time all contestants on one file format and print rates and ratios."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        dataset = make_images(folder, n_images, suffix)
        error = check_equal(dataset, name, folder)
        runs = contestants(dataset, name, folder)
        seconds: dict[str, list[float]] = {run: [] for run in runs}
        for repeat in range(repeats):
            for run in list(runs)[:: 1 if repeat % 2 == 0 else -1]:
                seconds[run].append(runs[run]())
    rate = {run: n_images / statistics.median(values) for run, values in seconds.items()}
    limit = 1 / (1 / rate["decode_only"] + 1 / rate["forward_openvino"])
    common = {"format": suffix, "size_px": FORMATS[suffix], "encoder": name, "n_images": n_images}
    for run, values in seconds.items():
        spread = [round(n_images / value, 1) for value in (max(values), min(values))]
        emit(common | {"run": run, "images_per_second": round(rate[run], 1), "slowest_fastest": spread})
    ratios = {f"ours / plain_bs{size}": round(rate["ours"] / rate[f"plain_bs{size}"], 2) for size in PLAIN_BATCHES}
    ratios["ours / limit"] = round(rate["ours"] / limit, 2)
    emit(common | {"relative_error": float(f"{error:.2g}"), "limit": round(limit, 1), "ratios": ratios})


def emit(result: dict[str, Any]) -> None:
    """Print one JSON line with what a reader needs to judge it."""
    import openvino
    import timm
    import torch

    versions = {"torch": torch.__version__, "timm": timm.__version__, "openvino": openvino.__version__.split("-")[0]}
    place = {"cores": len(os.sched_getaffinity(0)), "machine": platform.machine(), "load": round(os.getloadavg()[0], 1)}
    sys.stdout.write(json.dumps(result | place | versions) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--encoder", default="efficientnet_b0")
    parser.add_argument("--format", choices=list(FORMATS), action="append")
    options = parser.parse_args()
    for suffix in options.format or list(FORMATS):
        measure(suffix, options.encoder, options.images, options.repeats)


if __name__ == "__main__":
    main()
