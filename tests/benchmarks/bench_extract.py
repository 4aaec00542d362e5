"""Extraction against the loops that a user would write, and against its own limit; one JSON line per result.

    python tests/benchmarks/bench_extract.py                                            # everything: 10 minutes
    python tests/benchmarks/bench_extract.py --encoder resnet18 --format png --images 64 --repeats 1

Contestants: `plain` (Pillow, torchvision's transforms, a DataLoader, eager float32, np.save) at batch 32 and at the
batch size that suits it best; `timm` (create_dataset, create_loader, eager float32) at batch 32; `ours` (hashing,
decoding, forward, store). The limit is what `decode` and `forward` alone, on all cores, set together. Loops run in a
process of their own, so that what our engines tell the allocator does not help them. Nobody's clock counts making the
network; the loops' clock starts when their first batch is through, so that starting workers does not count.

Weights are random and seeded, vectors are compared before anything is timed, the order alternates, rates are medians
over the repeats with the slowest and fastest beside them. Another process on the machine disturbs every figure.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))

from extract.decode import read_image
from extract.encoder import Options, make_encoders
from extract.engine import relative_error
from extract.pipeline import _in_order, extract_features
from extract.view import render
from store import Dataset, FeatureStore, load_dataset, view_settings

ENCODERS = ("efficientnet_b0", "resnet18", "convnext_tiny", "mobilenetv2_100")
FORMATS = {"jpg": (512, 384, "8"), "png": (512, 384, "8"), "tif8": (1024, 1024, "8"), "tif16": (1024, 1024, "16")}
PLAIN_BATCHES = (2, 4, 8)  # beside 32
LOOP_IMAGES = 128  # the loops are slower; their rate does not depend on how many
BARS = {"efficientnet_b0": (6.0, 2.5)}  # against the plain loop at batch 32, and at its best; 2 for the others
BLOCK = "image:photo"
Timed = tuple[NDArray[np.float32] | None, float]
"""Vectors of the first encoder in row order, and seconds."""


# --- data ---


def make_images(folder: Path, kind: str, n_images: int) -> None:
    """Write pictures with edges and grain, and a dataset that names them; colour, or grey of 16 bits."""
    rng = np.random.default_rng(0)
    width, height, bits = FORMATS[kind]
    (folder / "files").mkdir(parents=True)
    for index in range(n_images):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize((width, height))
        noisy = np.minimum(np.asarray(coarse) + rng.integers(0, 9, (height, width, 1)), 255)
        pixels = noisy.astype(np.uint8) if bits == "8" else (noisy[..., 0] * 16 + 7).astype(np.uint16)
        Image.fromarray(pixels).save(folder / "files" / f"{index:05d}.{kind.rstrip('0123456789')}", quality=90)
    names = [path.name for path in sorted((folder / "files").iterdir())]
    rows = "\n".join(f"{name},{'ab'[index % 2]}" for index, name in enumerate(names))
    (folder / "table.csv").write_text(f"file,label\n{rows}\n")
    (folder / "dataset.toml").write_text(
        'name = "bench"\ntable = "table.csv"\nroot = "files"\n[images.photo]\ncolumn = "file"\n'
        f'convert = "{"linear" if bits == "16" else "none"}"\n[tasks.label]\ncolumn = "label"\n'
    )


# --- what a user would write ---


@cache
def eager(name: str) -> tuple[Any, dict[str, Any]]:
    """Return the network with the weights that `ours` has, and timm's configuration of its input."""
    import timm
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = timm.create_model(name, pretrained=False)
    network.reset_classifier(0)
    return network.eval(), timm.data.resolve_data_config(model=network)


def plain(folder: Path, name: str, n_images: int, batch_size: int) -> Timed:
    """Pillow, torchvision's transforms as timm puts them together, a DataLoader, np.save."""
    import timm
    from torch.utils.data import DataLoader

    network, config = eager(name)
    collate = partial(_collate, timm.data.create_transform(**config))
    paths: Any = sorted((folder / "files").iterdir())[:n_images]
    loader: Any = DataLoader(paths, batch_size=batch_size, num_workers=n_cores(), collate_fn=collate)
    return _run_eager(network, loader, folder)


def _collate(transform: Callable[[Image.Image], Any], paths: Sequence[Path]) -> Any:
    import torch

    return torch.stack([transform(_open(path)) for path in paths])


def _open(path: Path) -> Image.Image:
    """Open as RGB; 16 bits are scaled from their least to their largest value."""
    image: Image.Image = Image.open(path)
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float32)
        low, high = values.min(), values.max()
        image = Image.fromarray(np.rint(255 * (values - low) / max(high - low, 1)).astype(np.uint8))
    return image.convert("RGB")


def timm_loader(folder: Path, name: str, n_images: int, batch_size: int) -> Timed:
    """timm's dataset and loader, as its inference script sets them up."""
    import timm
    from timm.data.readers import add_img_extensions
    from torch.utils.data import Subset

    add_img_extensions(".tif")  # which it can read, but does not look for
    network, config = eager(name)
    dataset: Any = timm.data.create_dataset("", root=str(folder / "files"))
    loader = timm.data.create_loader(
        dataset,
        input_size=config["input_size"],
        batch_size=batch_size,
        use_prefetcher=False,
        interpolation=config["interpolation"],
        mean=config["mean"],
        std=config["std"],
        crop_pct=config["crop_pct"],
        num_workers=n_cores(),
    )
    batches: Any = (
        loader
        if n_images >= len(dataset)
        else type(loader)(
            Subset(dataset, range(n_images)), batch_size=batch_size, num_workers=n_cores(), collate_fn=loader.collate_fn
        )
    )
    return _run_eager(network, (batch for batch, _ in batches), folder)


def _run_eager(network: Any, batches: Iterable[Any], folder: Path) -> Timed:
    """Return the vectors, and the seconds that so many images take at the pace of all batches but the first."""
    import torch

    with torch.inference_mode():
        remaining = iter(batches)
        vectors = [network(next(remaining)).numpy()]
        start = time.perf_counter()
        vectors += [network(batch).numpy() for batch in remaining]
        np.save(folder / "vectors.npy", np.concatenate(vectors))
    n_images = sum(map(len, vectors))
    return np.concatenate(vectors), (time.perf_counter() - start) * n_images / (n_images - len(vectors[0]))


# --- this project ---


@cache
def loaded(folder: Path, names: tuple[str, ...]) -> tuple[Dataset, dict[str, list[Any]]]:
    """Return dataset and encoders, compiled."""
    dataset = load_dataset(folder / "dataset.toml")
    encoders, _ = make_encoders(names, dataset, Options(weights="random", device="cpu", engine="openvino"))
    for encoder in encoders[BLOCK]:
        encoder.runner.engine  # type: ignore[attr-defined] # noqa: B018 - compiled before the clock starts
    return dataset, dict(encoders)


def ours(folder: Path, names: tuple[str, ...]) -> Timed:
    """`extract_features` into an empty store."""
    dataset, encoders = loaded(folder, names)
    store = FeatureStore(folder / f"{time.time_ns()}.zarr")
    start = time.perf_counter()
    extract_features(dataset, encoders, store)
    seconds = time.perf_counter() - start
    block = dataset.images["photo"]
    keys = [key for key in block.keys() if key is not None]  # noqa: SIM118 - a method of ImageBlock
    return store.read(encoders[BLOCK][0].space, keys), seconds


def decode(folder: Path, names: tuple[str, ...]) -> Timed:
    """Decode, convert and resize every image in the pipeline's workers."""
    dataset, encoders = loaded(folder, names)
    encoder, settings = encoders[BLOCK][0], view_settings(dataset.images["photo"])
    refs = [ref for ref in dataset.images["photo"].refs if ref is not None]
    start = time.perf_counter()
    for _ in _in_order(
        (ref, lambda ref=ref: encoder.prepare(render([read_image(ref.path)], settings))) for ref in refs
    ):
        pass
    return None, time.perf_counter() - start


def forward(folder: Path, names: tuple[str, ...]) -> Timed:
    """Run as many prepared images as the dataset has through each engine, in one call: no core ever waits."""
    dataset, encoders = loaded(folder, names)
    seconds = 0.0
    for encoder in encoders[BLOCK]:
        shape = (len(dataset.ids), *encoder.space.preprocess["input_px"], 3)
        pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        start = time.perf_counter()
        encoder.runner(pixels)
        seconds += time.perf_counter() - start
    return None, seconds


# --- timing ---


class Contestants:
    """Processes that stay, one for the loops and one for this project."""

    def __init__(self) -> None:
        spawn = get_context("spawn")
        self._theirs, self._ours = (ProcessPoolExecutor(1, mp_context=spawn) for _ in range(2))

    def run(self, function: Callable[..., Timed], *args: Any) -> Timed:
        """Return vectors and seconds."""
        pool = self._theirs if function in (plain, timm_loader) else self._ours
        return pool.submit(function, *args).result()

    def close(self) -> None:
        """End the processes."""
        self._theirs.shutdown()
        self._ours.shutdown()


Run = tuple[Callable[..., Timed], tuple[Any, ...], int]
"""What to call with which arguments, and how many images it takes through."""


def alternate(contestants: Contestants, runs: dict[str, Run], repeats: int) -> dict[str, list[float]]:
    """Return images/s of every run and repeat; the order turns round from one repeat to the next."""
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats):
        for name in list(runs)[:: 1 if repeat % 2 == 0 else -1]:
            function, args, n_images = runs[name]
            rates[name].append(n_images / contestants.run(function, *args)[1])
    return rates


def best_batch(contestants: Contestants, folder: Path, name: str) -> int:
    """Return the batch size that suits the plain loop best, tried on 40 images."""
    seconds = {size: contestants.run(plain, folder, name, 40, size)[1] for size in PLAIN_BATCHES}
    return min(seconds, key=lambda size: seconds[size])


def compare(contestants: Contestants, folder: Path, kind: str, name: str, options: argparse.Namespace) -> None:
    """Time one network on one kind of file and print rates, ratios and how the bars are met."""
    n_loop = min(LOOP_IMAGES, options.images)
    best = best_batch(contestants, folder, name)
    loops = {"plain": plain} | ({} if kind == "tif16" else {"timm": timm_loader})  # timm's cuts 16 bits off at 255
    errors = {}
    vectors = contestants.run(ours, folder, (name,))[0]
    for loop, function in loops.items():
        theirs = contestants.run(function, folder, name, 32, 16)[0]
        assert vectors is not None and theirs is not None
        errors[loop] = relative_error(vectors[: len(theirs)], theirs)
        if errors[loop] > 0.02:
            raise SystemExit(f"{name}, {kind}: vectors differ by {errors[loop]:.3g} from {loop}: nothing to compare")
    runs: dict[str, Run] = {
        f"{loop}_bs{size}": (function, (folder, name, n_loop, size), n_loop)
        for loop, function in loops.items()
        for size in ((32, best) if loop == "plain" else (32,))
    } | {run.__name__: (run, (folder, (name,)), options.images) for run in (ours, decode, forward)}
    rates = alternate(contestants, runs, options.repeats)
    rate = {run: statistics.median(values) for run, values in rates.items()}
    limit = 1 / (1 / rate["decode"] + 1 / rate["forward"])
    ratios = {f"ours/{run}": rate["ours"] / rate[run] for run in rate if "_bs" in run} | {
        "ours/limit": rate["ours"] / limit
    }
    at_32, at_best = BARS.get(name, (2.0, 2.0))
    met = {
        f"ours/plain_bs32 >= {at_32:g}": ratios["ours/plain_bs32"] >= at_32,
        f"ours/plain_bs{best} >= {at_best:g}": ratios[f"ours/plain_bs{best}"] >= at_best,
        "ours/limit >= 0.85": ratios["ours/limit"] >= 0.85,
    }
    emit(
        {"encoder": name, "files": kind, "size_px": FORMATS[kind][:2], "n_images": options.images},
        rates,
        limit_per_second=round(limit, 1),
        ratios={key: round(value, 2) for key, value in ratios.items()},
        met=met,
        relative_error={loop: float(f"{error:.1g}") for loop, error in errors.items()},
    )


def one_pass(contestants: Contestants, folder: Path, kind: str, options: argparse.Namespace) -> None:
    """Time all networks in one pass against the sum of their forward times."""
    names = tuple(options.encoder)
    runs: dict[str, Run] = {run.__name__: (run, (folder, names), options.images) for run in (ours, decode, forward)}
    rates = alternate(contestants, runs, options.repeats)
    ratio = statistics.median(rates["forward"]) / statistics.median(rates["ours"])
    emit(
        {"encoders": names, "files": kind, "n_images": options.images},
        rates,
        ratios={"seconds / forward seconds": round(ratio, 3)},
        met={"seconds / forward seconds <= 1.1": ratio <= 1.1},
    )


def emit(about: dict[str, Any], rates: dict[str, list[float]], **results: Any) -> None:
    """Print one JSON line with what a reader needs to judge it."""
    import openvino
    import timm
    import torch
    import torchvision

    per_second = {
        name: {"median": round(statistics.median(v), 1), "slowest": round(min(v), 1), "fastest": round(max(v), 1)}
        for name, v in rates.items()
    }
    versions = {module.__name__: module.__version__.split("-")[0] for module in (torch, torchvision, timm, openvino)}
    place = {"device": "cpu", "cores": n_cores(), "machine": platform.machine(), "load": round(os.getloadavg()[0], 1)}
    line = about | {"images_per_second": per_second} | results | place | versions
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def n_cores() -> int:
    """Return the cores this process may use; every contestant uses as many."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--images", type=int, default=400, help=f"for this project; the loops take {LOOP_IMAGES} at most"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--encoder", nargs="+", default=list(ENCODERS))
    parser.add_argument("--format", nargs="+", choices=list(FORMATS), default=list(FORMATS))
    options = parser.parse_args()
    if options.images <= 32:
        parser.error(f"--images {options.images}: expected more than 32, since a loop's first batch does not count")
    contestants = Contestants()
    with tempfile.TemporaryDirectory() as temporary:
        for kind in options.format:
            make_images(Path(temporary) / kind, kind, options.images)
            for name in options.encoder if kind == options.format[0] else options.encoder[:1]:
                compare(contestants, Path(temporary) / kind, kind, name, options)
        if len(options.encoder) > 1:
            one_pass(contestants, Path(temporary) / options.format[0], options.format[0], options)
        contestants.close()


if __name__ == "__main__":
    main()
