"""Extraction against the loops that a user would write, and against its own limit; one JSON line per result.

    python tests/benchmarks/bench_extract.py                                            # everything: 10 minutes
    python tests/benchmarks/bench_extract.py --encoder resnet18 --format png --images 64 --repeats 1
    python tests/benchmarks/bench_extract.py --device cuda                              # the same on a GPU

Contestants: `plain` (Pillow, torchvision's transforms, a DataLoader, eager float32, np.save) at batch 32 and at the
batch size that suits it best; `timm` (create_dataset, create_loader, eager float32) at batch 32; `ours` (hashing,
decoding, forward, store). The limit is what `decode` and `forward` alone, on all cores, set together. Loops run in a
process of their own, so that what our engines tell the allocator does not help them. Nobody's clock counts making the
network; the loops' clock starts when their first batch is through, so that starting workers does not count.

With `--device cuda` the loops run at batch 32 and 256, from pinned memory, copies not waited for: in float32 as it
comes (convolutions in TF32, torch's default; ours are exact), and channels-last under autocast to bfloat16, beside
`--precision bfloat16` of ours. The bars are the CPU's and not asked for there. No GPU has run this yet: what is tested
are its options, and its loops on the CPU.

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
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import get_all_start_methods, get_context, set_start_method
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))

from extract.ahead import in_order
from extract.decode import read_image
from extract.encoder import make_encoders
from extract.engine import relative_error
from extract.lane import IN_FLIGHT
from extract.network import Options
from extract.pipeline import extract_features
from extract.runner import resolve_device
from extract.view import render
from store import Dataset, FeatureStore, InputError, load_dataset, view_settings
from tests.benchmarks.gpu import Utilisation

ENCODERS = ("efficientnet_b0", "resnet18", "convnext_tiny", "mobilenetv2_100")
FORMATS = {"jpg": (512, 384, "8"), "png": (512, 384, "8"), "tif8": (1024, 1024, "8"), "tif16": (1024, 1024, "16")}
PLAIN_BATCHES = (2, 4, 8)  # beside 32
GPU_BATCHES = (32, 256)
N_IMAGES = {"cpu": 400, "cuda": 4096}
MAX_ERRORS = {"float32": 0.02, "bfloat16": 0.2}  # more is another network, and nothing to compare
LOOP_IMAGES = 128  # the loops are slower; their rate does not depend on how many
BARS = {"efficientnet_b0": (6.0, 2.5)}  # against the plain loop at batch 32, and at its best; 2 for the others
BLOCK = "image:photo"
Timed = tuple[NDArray[np.float32] | None, float]
"""Vectors of the first encoder in row order, and seconds."""


@dataclass(frozen=True)
class How:
    """Where a network runs, and its arithmetic; lower ones also lay pixels out channels-last."""

    device: str = "cpu"
    precision: str = "float32"

    @property
    def mark(self) -> str:
        """What the names of contestants end in."""
        return "" if self.precision == "float32" else f"_{self.precision}"


CPU = How()


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
def eager(name: str, how: How) -> tuple[Any, dict[str, Any]]:
    """Return the network with the weights that `ours` has, where it runs, and timm's configuration of its input."""
    import timm
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = timm.create_model(name, pretrained=False)
    network.reset_classifier(0)
    layout = torch.contiguous_format if how.precision == "float32" else torch.channels_last
    config = timm.data.resolve_data_config(model=network)
    return network.eval().to(how.device, memory_format=layout), config  # type: ignore[call-overload]


def plain(folder: Path, name: str, n_images: int, batch_size: int, how: How = CPU) -> Timed:
    """Pillow, torchvision's transforms as timm puts them together, a DataLoader, np.save."""
    import timm
    from torch.utils.data import DataLoader

    network, config = eager(name, how)
    collate = partial(_collate, timm.data.create_transform(**config))
    paths: Any = sorted((folder / "files").iterdir())[:n_images]
    is_pinned = how.device == "cuda"
    loader: Any = DataLoader(
        paths, batch_size=batch_size, num_workers=n_cores(), collate_fn=collate, pin_memory=is_pinned
    )
    return _run_eager(network, loader, folder, how)


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


def timm_loader(folder: Path, name: str, n_images: int, batch_size: int, how: How = CPU) -> Timed:
    """timm's dataset and loader, as its inference script sets them up."""
    import timm
    import torch
    from timm.data.readers import add_img_extensions
    from torch.utils.data import Subset

    add_img_extensions(".tif")  # which it can read, but does not look for
    network, config = eager(name, how)
    dataset: Any = timm.data.create_dataset("", root=str(folder / "files"))
    loader = timm.data.create_loader(
        dataset,
        input_size=config["input_size"],
        batch_size=batch_size,
        use_prefetcher=how.device == "cuda",  # its own default: copies ahead, and normalises on the GPU
        pin_memory=how.device == "cuda",
        device=torch.device(how.device),
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
    return _run_eager(network, (batch for batch, _ in batches), folder, how)


def _run_eager(network: Any, batches: Iterable[Any], folder: Path, how: How) -> Timed:
    """Return the vectors, and the seconds that so many images take at the pace of all batches but the first."""
    import torch

    layout = torch.contiguous_format if how.precision == "float32" else torch.channels_last
    lower = nullcontext() if how.precision == "float32" else torch.autocast(how.device, getattr(torch, how.precision))

    def embed(batch: Any) -> NDArray[np.float32]:
        there = batch.to(how.device, non_blocking=True, memory_format=layout)
        vectors: NDArray[np.float32] = network(there).float().cpu().numpy()
        return vectors

    with torch.inference_mode(), lower:
        remaining = iter(batches)
        vectors = [embed(next(remaining))]
        start = time.perf_counter()
        vectors += [embed(batch) for batch in remaining]
        np.save(folder / "vectors.npy", np.concatenate(vectors))
    n_images = sum(map(len, vectors))
    return np.concatenate(vectors), (time.perf_counter() - start) * n_images / (n_images - len(vectors[0]))


# --- this project ---


@cache
def loaded(folder: Path, names: tuple[str, ...], how: How) -> tuple[Dataset, dict[str, list[Any]]]:
    """Return dataset and encoders, compiled."""
    dataset = load_dataset(folder / "dataset.toml")
    engine: Any = "openvino" if how.device == "cpu" else "torch"
    given: Any = {"device": how.device, "precision": how.precision, "engine": engine}
    encoders, _ = make_encoders(names, dataset, Options(weights="random", **given))
    for encoder in encoders[BLOCK]:
        encoder.runner.engine  # type: ignore[attr-defined] # noqa: B018 - compiled before the clock starts
    return dataset, dict(encoders)


def ours(folder: Path, names: tuple[str, ...], how: How = CPU) -> Timed:
    """`extract_features` into an empty store."""
    dataset, encoders = loaded(folder, names, how)
    store = FeatureStore(folder / f"{time.time_ns()}.zarr")
    start = time.perf_counter()
    extract_features(dataset, encoders, store)
    seconds = time.perf_counter() - start
    block = dataset.images["photo"]
    keys = [key for key in block.keys() if key is not None]  # noqa: SIM118 - a method of ImageBlock
    return store.read(encoders[BLOCK][0].space, keys), seconds


def decode(folder: Path, names: tuple[str, ...], how: How = CPU) -> Timed:
    """Decode, convert and resize every image in the pipeline's workers."""
    dataset, encoders = loaded(folder, names, how)
    encoder, settings = encoders[BLOCK][0], view_settings(dataset.images["photo"])
    refs = [ref for ref in dataset.images["photo"].refs if ref is not None]
    start = time.perf_counter()
    for _ in in_order((ref, lambda ref=ref: encoder.prepare(render([read_image(ref.path)], settings))) for ref in refs):
        pass
    return None, time.perf_counter() - start


def forward(folder: Path, names: tuple[str, ...], how: How = CPU) -> Timed:
    """Run as many prepared images as the dataset has through each engine, so that no core or GPU ever waits.

    A CPU takes them in one call; a GPU in large batches, of which one is copied while another is computed.
    """
    dataset, encoders = loaded(folder, names, how)
    seconds = 0.0
    for encoder in encoders[BLOCK]:
        shape = (len(dataset.ids), *encoder.space.preprocess["input_px"], 3)
        pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        size = len(pixels) if how.device == "cpu" else max(GPU_BATCHES)
        batches = [pixels[first : first + size] for first in range(0, len(pixels), size)]
        with ThreadPoolExecutor(IN_FLIGHT) as threads:
            start = time.perf_counter()
            list(threads.map(encoder.runner, batches))
            seconds += time.perf_counter() - start
    return None, seconds


# --- timing ---


class Contestants:
    """Processes that stay, one for the loops and one for this project; loops start their workers as in a user's."""

    def __init__(self) -> None:
        spawn = get_context("spawn")
        self._theirs = ProcessPoolExecutor(1, mp_context=spawn, initializer=_start_as_usual)
        self._ours = ProcessPoolExecutor(1, mp_context=spawn)

    def run(self, function: Callable[..., Timed], *args: Any) -> Timed:
        """Return vectors and seconds."""
        pool = self._theirs if function in (plain, timm_loader) else self._ours
        return pool.submit(function, *args).result()

    def close(self) -> None:
        """End the processes."""
        self._theirs.shutdown()
        self._ours.shutdown()


def _start_as_usual() -> None:
    """Start workers as the platform does: a spawned process would spawn them too, and import torch in each."""
    set_start_method(get_all_start_methods()[0], force=True)


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


def contest(
    contestants: Contestants, folder: Path, kind: str, name: str, options: argparse.Namespace
) -> dict[str, Run]:
    """Return the runs of one network on one kind of file: the loops, this project, and its limit, by precision."""
    is_gpu = options.device == "cuda"
    sizes = GPU_BATCHES if is_gpu else (32, best_batch(contestants, folder, name))
    n_loop = options.images if is_gpu else min(LOOP_IMAGES, options.images)
    runs: dict[str, Run] = {}
    for how in hows(options.device):
        for loop, function in loops_for(kind).items():
            for size in sizes if loop == "plain" or is_gpu else (32,):
                runs[f"{loop}{how.mark}_bs{size}"] = (function, (folder, name, n_loop, size, how), n_loop)
        for run in (ours, decode, forward):
            runs[f"{run.__name__}{how.mark}"] = (run, (folder, (name,), how), options.images)
    return runs


def loops_for(kind: str) -> dict[str, Callable[..., Timed]]:
    """Return the loops that can read a kind of file: timm's cuts 16 bits off at 255."""
    return {"plain": plain} | ({} if kind == "tif16" else {"timm": timm_loader})


def hows(device: str) -> list[How]:
    """Return the arithmetics that are compared on a device."""
    return [How(device)] if device == "cpu" else [How(device, precision) for precision in MAX_ERRORS]


def differences(contestants: Contestants, folder: Path, kind: str, name: str, device: str) -> dict[str, float]:
    """Return how far the vectors of each loop are from ours, on the first 32 images."""
    found = {}
    for how in hows(device):
        vectors, _ = contestants.run(ours, folder, (name,), how)
        for loop, function in loops_for(kind).items():
            theirs, _ = contestants.run(function, folder, name, 32, 16, how)
            assert vectors is not None and theirs is not None
            found[f"{loop}{how.mark}"] = error = relative_error(vectors[: len(theirs)], theirs[: len(vectors)])
            if error > MAX_ERRORS[how.precision]:
                raise SystemExit(f"{name}, {kind}: vectors differ by {error:.3g} from {loop}: nothing to compare")
    return found


def compare(contestants: Contestants, folder: Path, kind: str, name: str, options: argparse.Namespace) -> None:
    """Time one network on one kind of file and print rates, ratios and how the bars are met."""
    runs = contest(contestants, folder, kind, name, options)
    errors = differences(contestants, folder, kind, name, options.device)
    rates = alternate(contestants, runs, options.repeats)
    rate = {run: statistics.median(values) for run, values in rates.items()}
    ratios, met, limits, used = {}, {}, {}, {}
    for how in hows(options.device):
        own = f"ours{how.mark}"
        limits[own] = 1 / (1 / rate[f"decode{how.mark}"] + 1 / rate[f"forward{how.mark}"])
        loops = [run for run, (_, args, _) in runs.items() if "_bs" in run and args[-1] == how]
        ratios |= {f"{own}/{run}": rate[own] / rate[run] for run in loops} | {f"{own}/limit": rate[own] / limits[own]}
        if options.device == "cuda":
            ratios[f"{own}/forward"] = rate[own] / rate[f"forward{how.mark}"]
            sampled = Utilisation()
            contestants.run(*[ours, *runs[own][1]])
            used[f"{own}_utilisation_percent"] = sampled.stop()
        else:
            met = bars_met(name, ratios)
    emit(
        {"encoder": name, "files": kind, "size_px": FORMATS[kind][:2], "n_images": options.images},
        rates,
        options.device,
        limit_per_second={own: round(limit, 1) for own, limit in limits.items()},
        ratios={key: round(value, 2) for key, value in ratios.items()},
        met=met,
        relative_error={loop: float(f"{error:.1g}") for loop, error in errors.items()},
        **used,
    )


def bars_met(name: str, ratios: dict[str, float]) -> dict[str, bool]:
    """Return which bars of the CPU are met: against the plain loop at batch 32, at its best batch, and the limit."""
    at_32, at_best = BARS.get(name, (2.0, 2.0))
    bars = {run: at_32 if run.endswith("_bs32") else at_best for run in ratios if "/plain_bs" in run}
    bars["ours/limit"] = 0.85
    return {f"{run} >= {bar:g}": ratios[run] >= bar for run, bar in bars.items()}


def one_pass(contestants: Contestants, folder: Path, kind: str, options: argparse.Namespace) -> None:
    """Time all networks in one pass against the sum of their forward times."""
    names = tuple(options.encoder)
    args = (folder, names, How(options.device))
    runs: dict[str, Run] = {run.__name__: (run, args, options.images) for run in (ours, decode, forward)}
    rates = alternate(contestants, runs, options.repeats)
    ratio = statistics.median(rates["forward"]) / statistics.median(rates["ours"])
    emit(
        {"encoders": names, "files": kind, "n_images": options.images},
        rates,
        options.device,
        ratios={"seconds / forward seconds": round(ratio, 3)},
        met={"seconds / forward seconds <= 1.1": ratio <= 1.1},
    )


def emit(about: dict[str, Any], rates: dict[str, list[float]], device: str, **results: Any) -> None:
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
    named = "cpu" if device == "cpu" else torch.cuda.get_device_name()
    place = {"device": named, "cores": n_cores(), "machine": platform.machine(), "load": round(os.getloadavg()[0], 1)}
    line = about | {"images_per_second": per_second} | results | place | versions
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def n_cores() -> int:
    """Return the cores this process may use; every contestant uses as many."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_options(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what is to be measured; what cannot be ends the program in one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    usual = ", ".join(f"{n} on {device}" for device, n in N_IMAGES.items())
    parser.add_argument("--images", type=int, help=f"{usual}; on a CPU the loops take {LOOP_IMAGES} at most")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--encoder", nargs="+", default=list(ENCODERS))
    parser.add_argument("--format", nargs="+", choices=list(FORMATS), default=list(FORMATS))
    parser.add_argument("--device", choices=list(N_IMAGES), default="cpu")
    options = parser.parse_args(words)
    options.images = N_IMAGES[options.device] if options.images is None else options.images
    largest = max(GPU_BATCHES) if options.device == "cuda" else 32
    if options.images <= largest:
        parser.error(
            f"--images {options.images}: expected more than {largest}, since a loop's first batch does not count"
        )
    if options.device == "cuda":
        try:
            resolve_device("cuda")
        except InputError as error:
            parser.error(str(error))
    return options


def main() -> None:
    """Read the options and measure."""
    options = read_options()
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
